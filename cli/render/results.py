"""The results of an evaluation: a table per benchmark with the metrics that matter most."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer
from rich.table import Table

from ...flows.benchmarks.registry import BENCHMARKS
from ...flows.evaluation.report import marks
from ...flows.evaluation.request import REPORT, RESULTS
from ...flows.evaluation.text import figure, ties
from ...flows.files import atomic
from .console import console


def results(out: str | Path) -> None:
    """A table per benchmark with the metrics that matter most, and where the rest is."""
    records = atomic.read_json(Path(out) / RESULTS)
    compared = marks(Path(out))
    for name in dict.fromkeys(record["benchmark"] for record in records):
        benchmark, part = BENCHMARKS[name], [record for record in records if record["benchmark"] == name]
        marked, _ = compared[name]
        n = max(cell["n"] for record in part for cell in record["metrics"].values())
        table = Table(title=f"{name}, {n} images", title_justify="left", title_style="bold", box=None, pad_edge=False)
        table.add_column("decoder", no_wrap=True)
        for metric in benchmark.headline:
            better = benchmark.higher_is_better.get(metric)
            table.add_column(metric + {True: " ↑", False: " ↓", None: ""}[better], justify="right")
        table.add_column(f"s/{benchmark.unit[:-1]}", justify="right")
        for record in part:
            cells = [_cell(record["metrics"].get(m), marked.get((record["decoder"], m))) for m in benchmark.headline]
            table.add_row(record["decoder"], *cells, f"{record['seconds_per_image']:.3f}")
        console().print(table)
        typer.echo()
        for record in part:
            for method, counts in record["acted"].items():
                if not counts["acted"]:
                    typer.echo(f"note: {record['decoder']}: {method} never acted on {name}", err=True)
            if sentence := ties(record, benchmark.unit):
                typer.echo(f"note: {record['decoder']}: {sentence}; --dtype fp32 has few such ties", err=True)
            if record["errors"]:
                failed = f"{record['errors']} of {record['errors'] + record['answers']} {benchmark.unit} of {name}"
                typer.echo(f"note: {record['decoder']}: {failed} have no answer; the report has the reasons", err=True)
    typer.echo(f"report: {Path(out) / REPORT}")


def _cell(found: Mapping[str, Any] | None, verdict: str | None) -> str:
    if found is None:
        return "–"
    colour = {"best": "bold green", "better": "green", "worse": "red", None: "default"}[verdict]
    text = f"{figure(found['value'])} [dim]\\[{figure(found['low'])}, {figure(found['high'])}][/dim]"
    return f"[{colour}]{text}[/{colour}]"
