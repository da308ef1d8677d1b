"""What `score`, `compare` and `reproduce` print."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import typer
from rich.table import Table

from ...flows.scoring.files import Scored
from .console import console

SHOWN = 3  # of what was skipped


def arrow(higher: bool | None) -> str:
    """Which direction is better."""
    return {True: " ↑", False: " ↓", None: ""}[higher]


def as_json(content: Any) -> None:
    """One JSON object on standard output; nan and infinity become null."""
    typer.echo(json.dumps(content, ensure_ascii=False, indent=1, default=str))


def plain_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1, whole: int | None = None
) -> None:
    """A table whose first `left` columns are words and whose others are figures; the first `whole`, or all of words,
    are never wrapped."""
    table = Table(title=title or None, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place < left else "right",
                         no_wrap=place < (left if whole is None else whole))  # fmt: skip
    for row in rows:
        table.add_row(*row)
    console().print(table)
    typer.echo()


def scored(found: Scored) -> None:
    """Every figure with its interval, then how it was read, then what was left out."""
    for title, estimates in found.tables.items():
        rows = [
            (name + arrow(found.higher_is_better.get(name)), f"{e.value:.4f}", f"{e.low:.4f}", f"{e.high:.4f}",
             str(e.n))
            for name, e in estimates.items()
        ]  # fmt: skip
        heading = f"{found.benchmark} {title}".strip()
        plain_table(heading, ("figure", "value", "95 % from", "to", "n"), rows)
    for name, value in found.protocol.items():
        if isinstance(value, Mapping):
            for title, figures in value.items():
                numbers = ", ".join(f"{figure} {number}" for figure, number in figures.items())
                typer.echo(f"{name}, {title}: {numbers}")
        elif value is not None:
            typer.echo(f"{name}: {json.dumps(value, ensure_ascii=False) if isinstance(value, str) else value}")
    notes(found.notes, found.skipped)


def notes(texts: Sequence[str], skipped: Sequence[str] = ()) -> None:
    """Notes on standard error, with a count of what was left out."""
    for text in texts:
        typer.echo(f"note: {text}", err=True)
    if skipped:
        shown = "; ".join(skipped[:SHOWN]) + (" …" if len(skipped) > SHOWN else "")
        typer.echo(f"note: {len(skipped)} skipped: {shown}", err=True)
