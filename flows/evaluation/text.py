"""Figures and tables as text, the same in reports, cards and messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

ABSENT = "–"


def interval(record: Mapping[str, Any] | None, form: str = ".3f") -> str:
    """A figure with its interval; a dash where there is none, or where it rests on nothing.

    record: value, low, high and n of an estimate; null stands for a number that is not finite. form: of a number.

    >>> interval({"value": 0.5, "low": 0.25, "high": 0.75, "n": 4}), interval(None)
    ('0.500 [0.250, 0.750]', '–')
    """
    if record is None or record["n"] == 0:
        return ABSENT
    value, low, high = (
        ABSENT if record[part] is None else f"{record[part]:{form}}" for part in ("value", "low", "high")
    )
    return f"{value} [{low}, {high}]"


def figure(value: float) -> str:
    """A share with three decimals, anything larger with one.

    >>> figure(0.12345), figure(31.4159)
    ('0.123', '31.4')
    """
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[Any]], padded: bool = False) -> str:
    """A Markdown table.

    padded: columns as wide as their widest cell, so that it reads in a terminal too.

    >>> print(markdown_table(["decoder", "n"], [["vcd", 4]]))
    | decoder | n |
    |---|---|
    | vcd | 4 |
    >>> print(markdown_table(["decoder", "n"], [["a|b", 4]], padded=True))
    | decoder | n |
    |---------|---|
    | a¦b     | 4 |
    """
    cells = [[str(cell).replace("|", "¦") for cell in row] for row in (head, *rows)]
    widths = [max(len(row[column]) for row in cells) if padded else 0 for column in range(len(head))]
    lines = [f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |" for row in cells]
    rule = "|" + "|".join("-" * (width + 2 if padded else 3) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def ties(record: Mapping[str, Any], unit: str) -> str:
    """One sentence on answers that equal logits decided, "" where there is none. record: of results.json.

    >>> ties({"tied": 4, "answers": 60}, "questions")
    'in 4 of 60 questions several tokens had the highest logit at some step, and the first in the vocabulary was taken'
    >>> ties({"tied": 0, "answers": 60}, "questions"), ties({"answers": 60}, "questions")
    ('', '')
    """
    if not record.get("tied"):
        return ""
    where = f"in {record['tied']} of {record['answers']} {unit}"
    return f"{where} several tokens had the highest logit at some step, and the first in the vocabulary was taken"
