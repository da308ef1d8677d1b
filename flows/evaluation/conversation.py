"""Questions that follow an answer: batches in which it is there already, and the conversation so far."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ...datasets.examples import Example

if TYPE_CHECKING:
    from ...pipelines.lvlm import LVLM
    from ...pipelines.results import Answer

Question = str | tuple[str, ...] | None
NO_ANSWER = "the answer that this question follows is missing"


def batches(examples: Sequence[Example], size: int) -> Iterator[tuple[int, Sequence[Example]]]:
    """(place of the first, examples), `size` at a time; an example never shares a batch with the answer it follows.

    Examples that follow an answer come after it, and those that do stand together.

    >>> one, two = (Example(name, "", "", "?", None, frozenset()) for name in "ab")
    >>> then = Example("c", "", "", "Really?", None, frozenset(), after="a")
    >>> [[example.id for example in part] for _, part in batches([one, two, then], 16)]
    [['a', 'b'], ['c']]
    """
    start = 0
    for _, run in groupby(examples, key=lambda example: bool(example.after)):
        alike = list(run)
        for place in range(0, len(alike), size):
            yield start + place, alike[place : place + size]
        start += len(alike)


def questions(
    part: Sequence[Example], examples: Sequence[Example], prompt: str | None, texts: Mapping[str, str]
) -> list[Question]:
    """The question of each example in `part`: a text, or the turns of a conversation; None without its earlier answer.

    Args:
        examples: all of the benchmark. prompt: the benchmark's, for examples without a question.
        texts: example id -> the model's answer.
    """
    before = {e.after for e in part if e.after}
    first = {e.id: e.question or prompt or "" for e in examples if e.id in before} if before else {}
    out: list[Question] = []
    for example in part:
        question = example.question or prompt or ""
        if not example.after:
            out.append(question)
        elif example.after in texts:
            out.append((first[example.after], kept(texts[example.after], example.words), question))
        else:
            out.append(None)
    return out


def kept(text: str, words: int | None) -> str:
    """The first words of a text.

    >>> kept("One dog, two cats.", 2), kept("One dog.", None)
    ('One dog,', 'One dog.')
    """
    return text if words is None else " ".join(text.split()[:words])


def answered(
    lvlm: LVLM, part: Sequence[Example], questions: Sequence[Question], seed: int, **options: Any
) -> list[Answer]:
    """The answers of `lvlm.answer`, and an error row for each question without the answer that it follows.

    Args:
        questions: the questions of `part`. seed: of its first example. options: as `lvlm.answer`.
    """
    from ...pipelines.results import Answer

    good = [place for place, question in enumerate(questions) if question is not None]
    images = [part[place].path or part[place].open() for place in good]
    seeds = [seed + place for place in good]
    answers = iter(lvlm.answer(images, [questions[place] for place in good], errors="row", seed=seeds, **options))
    return [Answer("", error=NO_ANSWER) if question is None else next(answers) for question in questions]
