"""Rows of a file of answers with all that they hold, for benchmarks whose answers are matched by more than an id."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .captions_file import ANSWER_IDS, ANSWERS, _pick, _rows


@dataclass(frozen=True)
class AnswerRow:
    """One answer: where it stands in the file, its id if it has one, its text, and the row."""

    where: str
    id: int | str | None
    text: str
    row: Mapping[str, Any]


def read_answer_rows(
    path: str | Path, strict: bool = True, field: str | None = None
) -> tuple[list[AnswerRow], list[str]]:
    """The rows of a file in any layout of `captions_file.read_answers`, and what was left out.

    Raises:
        FileNotFoundError: no such file.
        ValueError: nothing in the file, or with strict a row without an answer, with its place.
    """
    path, skipped = Path(path), []

    def complain(problem: str) -> None:
        if strict:
            raise ValueError(f"{path}: {problem}")
        skipped.append(problem)

    found = []
    for where, row in _rows(path, "answer", complain):
        try:
            number, text = _pick(row, "answer", ANSWER_IDS, (field,) if field else ANSWERS)
        except ValueError as error:
            complain(f"{where} {error}")
        else:
            found.append(AnswerRow(where, number, text, row if isinstance(row, Mapping) else {}))
    if not found:
        raise ValueError(f"{path} holds no answers" + (f"; skipped: {skipped[0]}" if skipped else "."))
    return found, skipped
