"""Rows of a question file as examples, for benchmarks whose public files are not part of this project."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import image_paths
from .examples import Example
from .object_questions import BUDGETS, REASON, SECOND_TURN

SYCOPHANCY_FIELDS = ("image", "text", "label", "pushed")
NUMBER_FIELDS = ("image", "text", "about")
RH_AUC_FIELDS = ("image", "text", "label", "part")

Row = Mapping[str, Any]


def image_of(folder: Path, name: str) -> str:
    """Where an image of a question file lies: beside it, or in its images/.

    Raises:
        ValueError: as `image_paths.inside`.
    """
    beside = image_paths.inside(folder, name)
    below = image_paths.linked(folder, "images")
    return str(beside if beside.is_file() or not (below / name).is_file() else image_paths.inside(below, name))


def first(rows: Sequence[Row], limit: int) -> list[tuple[int, Row]]:
    """The rows about the first `limit` images, numbered from 1."""
    images = list(dict.fromkeys(row["image"] for row in rows))[:limit]
    kept = frozenset(images)
    return [(number, row) for number, row in enumerate(rows, start=1) if row["image"] in kept]


def sycophancy(rows: Sequence[Row], folder: Path, limit: int) -> list[Example]:
    """MM-SY's layout in plain words: {image, text, label, pushed} and one follow-up for each tone that is asked.

    Follow-ups are the fields solid, gentle and suggest: what the user says after the model has answered.

    Raises:
        ValueError: a row without any follow-up, or whose user insists on what is right.
    """
    firsts: list[Example] = []
    seconds: list[Example] = []
    for number, row in first(rows, limit):
        tones = [tone for tone in SECOND_TURN if row.get(tone)]
        if not tones or row["pushed"] == row["label"]:
            why = "insists on the right answer" if tones else f"has none of {', '.join(SECOND_TURN)}"
            raise ValueError(f"question {number} {why}; needed: what the user says to push a wrong answer.")
        facts = {"pair": str(number), "pushed": str(row["pushed"])}
        firsts.append(_row(row, folder, str(number), row["text"], {**facts, "tone": ""}))
        seconds += [
            _row(row, folder, f"{number}: {tone}", row[tone], {**facts, "tone": tone}, after=str(number))
            for tone in tones
        ]
    return firsts + seconds


def number(rows: Sequence[Row], folder: Path, limit: int) -> list[Example]:
    """{image, text, about} with `number` for a question that asks for one, or `claims` and `at_least` for yes or no.

    Raises:
        ValueError: a row that is neither.
    """
    found = []
    for place, row in first(rows, limit):
        kept = {name: row[name] for name in ("number", "claims", "at_least", "about") if name in row}
        if ("number" in kept) is ("claims" in kept):
            raise ValueError(f"question {place} needs either a number, or claims (a number) and at_least.")
        if "claims" in kept:
            kept.setdefault("at_least", False)
        found.append(_row({"label": kept.get("number"), **row}, folder, str(place), row["text"], kept))
    return found


def reasoning(
    rows: Sequence[Row], folder: Path, limit: int, budgets: Sequence[int] = BUDGETS
) -> list[Example]:
    """RH-Bench's idea in plain words: {image, text, label, part}, part reasoning or perception.

    Raises:
        ValueError: another part.
    """
    thoughts: list[Example] = []
    answers: list[Example] = []
    for place, row in first(rows, limit):
        if row["part"] not in ("reasoning", "perception"):
            raise ValueError(f"question {place} has part {row['part']!r}; possible: reasoning, perception.")
        thought = f"{place}: thought"
        thoughts.append(
            _row({**row, "label": None}, folder, thought, REASON.format(question=row["text"]), {"part": "thought"})
        )
        answers += [
            _row(
                row, folder, f"{place} after {budget}", row["text"], {"part": row["part"], "budget": budget},
                after=thought if budget else "", words=budget or None,
            )
            for budget in budgets
        ]  # fmt: skip
    return thoughts + answers


def _row(
    row: Row, folder: Path, name: str, text: str, facts: Mapping[str, Any], after: str = "", words: int | None = None
) -> Example:
    label = None if row["label"] is None else str(row["label"])
    there: Iterable[str] = row.get("objects", ())
    image = image_of(folder, row["image"])
    return Example(name, image, row["image"], text, label, frozenset(there), (), after, words, facts)
