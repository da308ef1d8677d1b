"""What benchmarks of closed questions share: answers that are a number, yes or no, or an option; question files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...datasets.examples import Example
from ...metrics import counting, sycophancy
from ...metrics.pope_answers import READERS
from .base import Mark, Source

READER = "strict"  # of yes and no


def read(example: Example, text: str) -> str | int | None:
    """What an answer says: a number, yes or no, or an option; None where nothing can be read."""
    if "number" in example.facts:
        return counting.parse_count(text)
    if example.label in ("yes", "no"):
        word = READERS[READER](text)
        return None if word == "unparsed" else word
    return sycophancy.read_option(text) or None


def is_right(example: Example, text: str) -> bool:
    label = example.label or ""
    wanted = example.facts.get("number", label if label in ("yes", "no") else sycophancy.read_option(label))
    return read(example, text) == wanted


def answer_marks(example: Example, text: str) -> list[Mark]:
    """A whole answer is right or wrong; a thought is neither."""
    return [Mark(0, len(text), is_right(example, text))] if text and example.label is not None else []


def question_rows_of(source: Source, needed: Sequence[str]) -> tuple[list[dict[str, Any]], Path]:
    """The rows of a question file, and the folder of its images."""
    from ..scoring.more_files import read_rows

    path = Path(source.data or "")
    return read_rows(path, needed), path.parent


def refuse_empty(examples: Sequence[Example], source: Source, enough: bool) -> None:
    """Refuse a source that holds too few questions.

    Raises:
        ValueError: says how many there are.
    """
    if not enough:
        raise ValueError(f"{source.name} holds nothing to ask: {len(examples)} questions of the kinds that are needed.")
