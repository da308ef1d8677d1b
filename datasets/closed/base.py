"""A closed question, whichever benchmark it is from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..examples import Example
from ..image_paths import inside


@dataclass(frozen=True)
class ClosedQuestion:
    """One question with a known answer.

    Args:
        id: unique in its benchmark.
        image: file name as the benchmark has it, with its folders; None where it is asked without an image.
        text: as it is asked.
        label: yes, no, or the letter of an option.
        part: task, category or split.
        group: what is asked about the same image, or the same question about other images.
        options: the options' words.
        facts: what else the score needs.
    """

    id: str
    image: str | None
    text: str
    label: str
    part: str = ""
    group: str = ""
    options: Sequence[str] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


def examples(
    questions: Sequence[ClosedQuestion], folders: Sequence[Path], limit: int, what: str, need: str
) -> list[Example]:
    """The questions about the first `limit` images, with the images found below one of the folders.

    Args:
        what: the benchmark, and need: how its images are come by, for messages.

    Raises:
        FileNotFoundError: an image that is in none of the folders; says which were searched.
        ValueError: a name that leads out of them.
    """
    with_image = [question for question in questions if question.image is not None]
    kept = set(list(dict.fromkeys(question.image for question in with_image))[:limit])
    chosen = [question for question in with_image if question.image in kept]
    found = []
    for question in chosen:
        places = (inside(folder, str(question.image)) for folder in folders)
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            searched = ", ".join(map(str, dict.fromkeys(folders)))
            raise FileNotFoundError(f"{what} has no image {question.image} in {searched}. {need}")
        splits = question.facts.get("splits", (question.part,) if question.part else ())
        facts = {"part": question.part, "group": question.group, "options": list(question.options), **question.facts}
        found.append(Example(
            question.id, str(path), str(question.image), question.text, question.label, frozenset(),
            tuple(splits), facts={name: fact for name, fact in facts.items() if fact not in ("", [])},
        ))  # fmt: skip
    return found


def same_text(text: str) -> str:
    """A question without what programs change about it: spaces, what stands behind its question mark, and POPE's old
    "imange".

    >>> same_text("Is  there a train?  Please answer yes or no.") == same_text("Is there a train?\\nAnswer briefly.")
    True
    """
    plain = re.sub(r"\s+", " ", text.replace("<image>", " ").replace("？", "?").replace("imange", "image")).strip()
    return ENDING.sub("", plain).rstrip(" ?").casefold()


# What programs put behind a question; a question of MME that lacks its question mark has it behind a full stop.
ENDING = re.compile(
    r"\s*\b(?:Please (?:just )?answer yes or no|Please answer this question with one word|"
    r"Answer (?:the question using a single word or phrase|briefly))\b.*$", re.IGNORECASE,
)  # fmt: skip
