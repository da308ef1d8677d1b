"""What the command line prints: lists of methods, answers, tables of results."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ...flows.benchmarks.registry import BENCHMARKS
from ...flows.detection.word_risk import words
from ...flows.evaluation.report import verdicts
from ...flows.evaluation.request import REPORT, RESULTS
from ...flows.evaluation.text import figure
from ...flows.files import atomic
from .method_facts import said

if TYPE_CHECKING:
    from ...pipelines.registry import Registry
    from ...pipelines.results import Answer


ALL_FAMILIES = "all supported"


def console() -> Console:
    """Standard output; where it is no terminal, wide enough for a table."""
    return Console() if sys.stdout.isatty() else Console(width=160)


# -- methods -------------------------------------------------------------------------------------------------------
def methods(registry: Registry, columns: Sequence[str], long: bool) -> None:
    """A table of the registered methods; `columns` are class attributes that say a word about each."""
    if not long:
        _table(f"{registry.kind}s", columns, [(n, *(said(registry, n, c) for c in columns)) for n in registry.names])
        return
    _heading(f"{registry.kind}s")
    for name in registry.names:
        cls = registry.type(name)
        fields = ",".join(f"{f.name}={_default(f.default)}" for f in dataclasses.fields(cls))
        about = " · ".join(f"{column}: {getattr(cls, column)}" for column in columns if hasattr(cls, column))
        lines = [first_paragraph(cls), about]
        if "cost" in columns:  # what changes a model's text, as opposed to what reads along
            lines.append(f"families: {getattr(cls, 'families', ALL_FAMILIES)}")
        if getattr(cls, "differs", ""):
            lines.append(f"paper and code: {cls.differs}")
        for pattern, values in getattr(cls, "by_model", {}).items():
            lines.append(f"on {pattern}: {', '.join(f'{field}={_default(value)}' for field, value in values.items())}")
        _block(f"{name}:{fields}" if fields else name, *lines)


def _default(value: Any) -> str:
    """As the command line takes it; blanks only inside text."""
    return repr(value) if isinstance(value, str) else repr(value).replace(" ", "")


def benchmarks(long: bool) -> None:
    """The benchmarks, as the methods."""
    if not long:
        rows = [(name, first_paragraph(benchmark) + _origin(name)) for name, benchmark in BENCHMARKS.items()]
        _table("benchmarks", ("measures",), rows)
        return
    _heading("benchmarks")
    for name, benchmark in BENCHMARKS.items():
        metrics = ", ".join(metric for group in benchmark.tables.values() for metric in group)
        _block(name, first_paragraph(benchmark) + _origin(name), f"metrics: {metrics}")


def _origin(benchmark: str) -> str:
    """The package that a benchmark comes from, where it is another than ours."""
    package = BENCHMARKS.origin(benchmark)
    return "" if package == "veridical" else f" (from {package})"


def first_paragraph(thing: Any) -> str:
    """Of its docstring, on one line."""
    return (thing.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("name", no_wrap=True, style="cyan")
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*row)
    console().print(table)
    typer.echo()


def _heading(title: str) -> None:
    typer.secho(f"{title}\n", bold=True)


def _block(name: str, *lines: str) -> None:
    typer.secho(name, fg="cyan")
    for line in lines:
        console().print(Padding(Text(" ".join(line.split())), (0, 0, 0, 2)))
    typer.echo()


# -- answers -------------------------------------------------------------------------------------------------------
def answers(image: Any, said: Mapping[str, Answer], alone: bool) -> None:
    """What each decoder says about one image. alone: one image and one decoder, so that the text needs no names."""
    if not alone:
        typer.secho(str(image), bold=True)
    errors = {answer.error for answer in said.values()}
    if len(errors) == 1 and None not in errors:
        typer.secho(f"  error: {errors.pop()}", fg="red")
        return
    for decoder, answer in said.items():
        label = f"  {decoder}: " if len(said) > 1 else "" if alone else "  "
        if answer.error is not None:
            typer.secho(f"{label}error: {answer.error}", fg="red")
            continue
        if not answer.risk:
            typer.echo(label + answer.text)
        for detector, risk in answer.risk.items():
            typer.echo(label + typer.style(f"[{detector}] ", dim=True) + _risky(answer, risk))


def _risky(answer: Answer, risk: Sequence[float]) -> str:
    """Each word with its risk: "dog·0.83"; on a terminal the riskiest fifth stands out."""
    told = words(answer.text, answer.tokens, risk)
    known = sorted(word.risk for word in told if word.risk is not None)
    high = known[math.ceil(0.8 * (len(known) - 1))] if known else math.inf
    parts = []
    for word in told:
        if word.risk is None:
            parts.append(word.text)
            continue
        style: dict[str, Any] = {"fg": "red", "bold": True} if word.risk >= high else {}
        parts.append(typer.style(word.text, **style) + typer.style(f"·{word.risk:.2f}", dim=True))
    return " ".join(parts)


def json_line(image: Any, decoder: str, answer: Answer) -> None:
    """One JSON object on a line of its own."""
    risk = {name: [r if math.isfinite(r) else None for r in values] for name, values in answer.risk.items()}
    record = {"image": str(image), "decoder": decoder, **vars(answer), "risk": risk}
    utf8 = (sys.stdout.encoding or "utf-8").lower().replace("-", "") == "utf8"
    typer.echo(json.dumps(record, ensure_ascii=not utf8, allow_nan=False))


# -- results -------------------------------------------------------------------------------------------------------
def results(out: str | Path) -> None:
    """A table per benchmark with the metrics that matter most, and where the rest is."""
    records = atomic.read_json(Path(out) / RESULTS)
    for name in dict.fromkeys(record["benchmark"] for record in records):
        benchmark, part = BENCHMARKS[name], [record for record in records if record["benchmark"] == name]
        marked = verdicts(part, benchmark)
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
            for method, told in record["acted"].items():
                if not told["acted"]:
                    typer.echo(f"note: {record['decoder']}: {method} never acted on {name}", err=True)
            if record["errors"]:
                told = f"{record['errors']} of {record['errors'] + record['answers']} {benchmark.unit} of {name}"
                typer.echo(f"note: {record['decoder']}: {told} have no answer; the report says why", err=True)
    typer.echo(f"report: {Path(out) / REPORT}")


def _cell(found: Mapping[str, Any] | None, verdict: str | None) -> str:
    if found is None:
        return "–"
    colour = {"best": "bold green", "worse": "red", None: "default"}[verdict]
    text = f"{figure(found['value'])} [dim]\\[{figure(found['low'])}, {figure(found['high'])}][/dim]"
    return f"[{colour}]{text}[/{colour}]"
