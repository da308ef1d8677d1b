"""Lists of what is registered: decoders, procedures, detectors and benchmarks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ...flows.benchmarks.registry import BENCHMARKS
from ...pipelines.entry_points import OURS
from .console import console

if TYPE_CHECKING:
    from ...pipelines.entry_points import Taken
    from ...pipelines.registry import Registry

ALL_FAMILIES = "all supported"
TITLES = {"cited": "paper"}  # of a row's parts, where another word is shown


def methods(registry: Registry, columns: Sequence[str], long: bool) -> None:
    """A table of the registered methods; `columns` are parts of their rows (see `registry.Method`).

    A method of another package has the package behind its name, as has a name that several packages register.
    """
    if not long:
        rows = [_row(registry, name, columns) for name in registry.names if name not in registry.taken]
        _table(f"{registry.kind}s", columns, rows)
        _taken(registry.taken)
        return
    _heading(f"{registry.kind}s")
    for name in registry.names:
        if name not in registry.taken:
            _method(registry, name, columns)
    _taken(registry.taken)


def record(*registries: Registry) -> dict[str, Any]:
    """All that is registered as plain values: kind -> name -> what is known of it, and what benchmarks measure."""
    found = {}
    for registry in registries:
        known = [name for name in registry.names if name not in registry.taken]
        found[f"{registry.kind}s"] = {name: _about(registry, name) for name in known}
    measured = {name: {"measures": _measures(name), "origin": BENCHMARKS.origin(name)} for name in BENCHMARKS
                if name not in BENCHMARKS.taken}  # fmt: skip
    return {**found, "benchmarks": measured}


def _about(registry: Registry, name: str) -> dict[str, Any]:
    try:
        fields = {field.name: _default(field.default) for field in dataclasses.fields(registry.type(name))}
        return {**vars(registry.about(name)), "fields": fields}
    except Exception as error:  # another package's class that cannot be imported leaves the list whole
        return {"error": str(error), "origin": registry.names[name].origin}


def _row(registry: Registry, name: str, columns: Sequence[str]) -> list[str]:
    try:
        row = registry.about(name)
    except Exception as error:  # another package's class that cannot be imported leaves the list whole
        return [_named(registry, name), f"cannot be imported: {error}", *[""] * (len(columns) - 1)]
    return [_named(registry, name), *(getattr(row, column) for column in columns)]


def _named(registry: Registry, name: str) -> str:
    origin = registry.names[name].origin
    return name if origin == OURS else f"{name} ({origin})"


def _taken(names: Mapping[str, Taken]) -> None:
    """Names that several packages register, and why they stand for nothing."""
    for name, at in names.items():
        typer.secho(f"{name}: {at.why}\n", fg="red")


def _method(registry: Registry, name: str, columns: Sequence[str]) -> None:
    """All that is known of one method."""
    from ...pipelines.method import rules

    cls, row = registry.type(name), registry.about(name)
    fields = ",".join(f"{f.name}={_default(f.default)}" for f in dataclasses.fields(cls))
    about = [f"{TITLES.get(column, column)}: {getattr(row, column)}" for column in columns if getattr(row, column)]
    lines = [first_paragraph(cls), " · ".join(about)]
    if row.origin != OURS:
        lines.append(f"from {row.origin}")
    if "cost" in columns:  # what changes a model's text, as opposed to what reads along
        lines.append(f"families: {row.families or ALL_FAMILIES}")
    if row.differs:
        lines.append(f"paper and code: {row.differs}")
    for pattern, values in getattr(cls, "by_model", {}).items():
        lines.append(f"on {pattern}: {', '.join(f'{field}={_default(value)}' for field, value in values.items())}")
    lines += [f"{field}: {rule}" for field, rule in rules(cls).items()]
    _block(f"{name}:{fields}" if fields else name, *lines)


def _default(value: Any) -> str:
    """As the command line takes it; blanks only inside text."""
    return repr(value) if isinstance(value, str) else repr(value).replace(" ", "")


def benchmarks(long: bool) -> None:
    """The benchmarks, as the methods."""
    origins = {name: BENCHMARKS.origin(name) for name in BENCHMARKS if name not in BENCHMARKS.taken}
    names = {name: name if origin == OURS else f"{name} ({origin})" for name, origin in origins.items()}
    if not long:
        _table("benchmarks", ("measures",), [(shown, _measures(name)) for name, shown in names.items()])
        _taken(BENCHMARKS.taken)
        return
    _heading("benchmarks")
    for name, shown in names.items():
        benchmark = BENCHMARKS[name]
        metrics = ", ".join(metric for group in benchmark.tables.values() for metric in group)
        _block(shown, first_paragraph(benchmark), f"metrics: {metrics}")
    _taken(BENCHMARKS.taken)


def _measures(name: str) -> str:
    try:
        return first_paragraph(BENCHMARKS[name])
    except ValueError as error:  # another package's that cannot be imported leaves the list whole
        return str(error)


def first_paragraph(thing: Any) -> str:
    """Of its docstring, on one line."""
    return (thing.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("name", no_wrap=True, style="cyan")
    for column in columns:
        table.add_column(TITLES.get(column, column))
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
