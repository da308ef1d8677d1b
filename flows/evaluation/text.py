"""Figures and tables as text, the same in reports, cards and messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

ABSENT = "–"


def interval(record: Mapping[str, Any] | None, digits: int = 3) -> str:
    """A figure with its interval; a dash where there is none, or where it rests on nothing.

    record: value, low, high and n of an estimate; null stands for a number that is not finite.

    >>> interval({"value": 0.5, "low": 0.25, "high": 0.75, "n": 4}), interval(None)
    ('0.500 [0.250, 0.750]', '–')
    """
    if record is None or record["n"] == 0:
        return ABSENT
    value, low, high = (
        ABSENT if record[part] is None else f"{record[part]:.{digits}f}" for part in ("value", "low", "high")
    )
    return f"{value} [{low}, {high}]"


def figure(value: float) -> str:
    """A share with three decimals, anything larger with one.

    >>> figure(0.12345), figure(31.4159)
    ('0.123', '31.4')
    """
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table.

    >>> print(markdown_table(["decoder", "n"], [["vcd", 4]]))
    | decoder | n |
    |---|---|
    | vcd | 4 |
    """
    lines = [f"| {' | '.join(map(str, row))} |" for row in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])
