"""What `veridical reproduce` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer

from ...flows.evaluation.published import Line, Run
from ...flows.evaluation.reproduce import Repeated
from ...flows.evaluation.text import figure, interval
from . import scores


def repeated(found: Repeated, stale: bool) -> None:
    """Equal, or where it differs: the first example with both texts, figures, settings, versions."""
    for what, before, after in found.machine:
        typer.echo(f"note: {what}: {short(before)} then, {short(after)} now", err=True)
    for what, before, after in found.manifest:
        typer.echo(f"setting: {what}: {short(before)} then, {short(after)} now")
    for one in found.answers:
        typer.echo(f"answers: {one.benchmark}, {one.decoder}: {one.number} of {one.of} differ, first {one.example}")
        typer.echo(f"  then: {one.before}\n  now:  {one.after}")
    for benchmark, decoder, name, before, after in found.figures:
        typer.echo(
            f"figure: {benchmark}, {decoder}, {name}: {_value(before)} then, {_value(after)} now{_gap(before, after)}"
        )
    if stale:
        typer.echo(
            f"the figures in {found.before} do not follow from the answers beside them: one of the two was changed"
        )
    verdict = "equal" if found.equal else "different"
    typer.echo(f"{verdict}: {found.compared} answers, {found.before} and {found.after}")


def planned(runs: Sequence[Run]) -> None:
    """What is run, what is assumed, and what is left out."""
    for one in runs:
        if one.obstacle:
            typer.echo(f"note: {one.name}: not run: {one.obstacle}", err=True)
            continue
        typer.echo(f"{one.name}: {', '.join(one.decoders)}")
        if one.assumed:
            typer.echo(f"note: {one.name}: not stated by the paper, ours: {'; '.join(one.assumed)}", err=True)
        if one.left_out:
            typer.echo(f"note: {one.name}: not in this project: {', '.join(one.left_out)}", err=True)


def beside(title: str, lines: Sequence[Line]) -> None:
    """Ours, the paper's and others' side by side."""
    rows = [
        (
            line.method, line.figure, figure(line.ours["value"]),
            f"{figure(line.ours['low'])} to {figure(line.ours['high'])}", str(line.ours["n"]), figure(line.paper),
            "–" if line.independent is None else " to ".join(dict.fromkeys(map(figure, line.independent))),
            "yes" if line.inside else "no",
        )
        for line in lines
    ]  # fmt: skip
    columns = ("method", "figure", "ours", "95 %", "n", "paper", "independent", "paper inside ours")
    scores.plain_table(title, columns, rows, left=2)


def short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _value(cell: Any) -> str:
    return "absent" if cell is None else f"{interval(cell, '.6g')} (n={cell['n']})"


def _gap(before: Any, after: Any) -> str:
    return "" if before is None or after is None else f" ({after['value'] - before['value']:+.6g})"
