"""What `veridical compare` prints."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from ...flows.scoring import compare, tables
from ...flows.scoring.compare import Found
from ...flows.scoring.runs import OverRuns
from ...metrics.compare import Comparison
from . import scores

COLUMNS = ("figure", "system", "baseline", "difference", "95 % from", "to", "n", "p", "p (Holm)", "verdict")


def pairs(found: Sequence[Found], form: str, notes: Sequence[str], skipped: Sequence[str], files: bool) -> None:
    """One table of all systems, then each pair with its tables, and whether anything ranks it; warnings at the end.

    form: "json", or one of `tables.FORMATS`; those but "text" hold the one table alone.
    """
    if form == "json":
        scores.as_json({"comparisons": [one.record() for one in found], "notes": notes, "skipped": skipped})
    elif form == "text":
        _summary(found)
    else:
        typer.echo(tables.as_text(tables.compared(found), form))
    for one in found if form == "text" else ():
        typer.secho(f"{one.system.benchmark}: {one.system.name} against {one.baseline.name}", bold=True)
        for title, table in one.tables.items():
            rows = [_row(name, comparison) for name, comparison in table.items()]
            scores.plain_table(title, COLUMNS, rows)
        if one.tables:
            n = max(c.difference.n for table in one.tables.values() for c in table.values())
            apart = ", ".join(one.ranked)
            typer.echo(f"apart by more than the noise: {apart}" if apart else
                       f"not ranked: at n={n} every difference may be chance")  # fmt: skip
        typer.echo()
    for one in found:
        for kind, texts in (("warning", one.warnings), ("note", one.notes)):
            for text in texts:
                typer.echo(f"{kind}: {one.system.benchmark}, {one.system.name}: {text}", err=True)
    for benchmark in dict.fromkeys(one.system.benchmark for one in found):
        there = [one for one in found if one.system.benchmark == benchmark and one.tables]
        if there:
            typer.echo(f"note: {benchmark}: {compare.tested(there)}", err=True)
    if files:
        typer.echo("note: files do not say their prompts and token budgets: compare only like with like", err=True)
    scores.notes(notes, skipped)


def _summary(found: Sequence[Found]) -> None:
    """Every system a row, where there are more than two."""
    if len(found) < 2:
        return
    for matrix in tables.compared(found):
        head, *rows = matrix.cells()
        scores.plain_table(f"{matrix.title}: ▲ better, ▼ worse than {rows[0][0]}", head, rows)


def over_runs(found: Sequence[OverRuns], as_json: bool) -> None:
    """Mean ± sd of every method, then differences from the first."""
    if as_json:
        scores.as_json([one.record() for one in found])
    for text in [f"{one.benchmark}: {text}" for one in found for text in one.warnings]:
        typer.echo(f"warning: {text}", err=True)
    for one in found if not as_json else ():
        methods = list(one.figures)
        names = list(dict.fromkeys(name for table in one.figures.values() for name in table))
        rows = [(name, *(str(one.figures[m][name]) if name in one.figures[m] else "–" for m in methods))
                for name in names]  # fmt: skip
        scores.plain_table(f"{one.benchmark}, mean ± sd over runs", ("figure", *methods), rows)
        for method, table in one.differences.items():
            rows = [_row(name, comparison) for name, comparison in table.items()]
            title = f"{one.benchmark}: {method} against {methods[0]}, run by run (n = runs)"
            scores.plain_table(title, COLUMNS, rows)
        if one.differences:
            typer.echo(f"note: {one.benchmark}: p (Holm) is corrected for all figures of all methods", err=True)
        for method in one.repeated:
            typer.echo(
                f"note: {one.benchmark}, {method}: all runs are alike; other seeds or images are needed", err=True
            )


def _row(name: str, one: Comparison) -> tuple[str, ...]:
    d = one.difference
    ps = ("" if p is None else f"{p:.3g}" for p in (one.p, one.adjusted))
    figures = (f"{one.first:.4f}", f"{one.second:.4f}", f"{d.value:+.4f}", f"{d.low:+.4f}", f"{d.high:+.4f}")
    return name + scores.arrow(one.higher_is_better), *figures, str(d.n), *ps, one.verdict
