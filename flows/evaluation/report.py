"""The report of an evaluation: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from ..benchmarks.base import Benchmark
from ..benchmarks.registry import BENCHMARKS
from ..files import atomic
from ..report.chart import chart
from ..report.page import render
from ..scoring import compare
from ..scoring.sentences import sentence
from . import answer_file
from .choice import PLAIN
from .report_examples import browser
from .request import MANIFEST, REPORT, RESULTS, Evaluation
from .text import ties

Marks = dict[tuple[str, str], str]  # decoder, figure -> better, best or worse
ARROWS = {True: "↑", False: "↓", None: ""}


def write(out: str | Path) -> Path:
    """Write report.html from the files of an evaluation: figure, verdicts, tables, and a browser of examples.

    Raises:
        FileNotFoundError, ValueError: a file of the evaluation is missing or broken.
    """
    out = Path(out)
    request = Evaluation.read(out)
    results, manifest = atomic.read_json(out / RESULTS), atomic.read_json(out / MANIFEST)
    verdict = compared(out)
    rows = {
        name: {d: answer_file.rows_of(out, name, d, BENCHMARKS[name].examples(request.source))
               for d in request.decoders}
        for name in request.benchmarks
    }  # fmt: skip
    sections = [_section(BENCHMARKS[name], results, rows[name], verdict[name]) for name in request.benchmarks]
    shown = browser(str(out), request, [(BENCHMARKS[name], rows[name]) for name in request.benchmarks])
    text = render(
        "evaluation.html.jinja", request=request, manifest=manifest, sections=sections, browser=shown,
        title=f"{request.model.name} on {', '.join(request.benchmarks)}",
    )  # fmt: skip
    path = out / REPORT
    atomic.write_text(path, text)
    return path


# -- tables --------------------------------------------------------------------------------------------------------
def _section(
    benchmark: Benchmark, results: Sequence[Mapping], rows: Mapping[str, Sequence[answer_file.Row]], verdict: Compared
) -> dict[str, Any]:  # fmt: skip
    records = [record for record in results if record["benchmark"] == benchmark.name]
    first_errors = {row["image"]: row["error"] for answers in rows.values() for row in answers if row["error"]}
    return {
        "name": benchmark.name,
        "compared": verdict.about,
        "sentences": verdict.sentences,
        "chart": chart(benchmark.name, benchmark.headline[0], records, benchmark.higher_is_better),
        "about": (benchmark.__doc__ or "").strip().split("\n\n")[0],
        "unit": benchmark.unit,
        "tables": [
            _table(title, metrics, records, benchmark, verdict.marks) for title, metrics in benchmark.tables.items()
            if any(name in record["metrics"] for record in records for name in metrics)
        ],
        "records": records,
        "idle": [(r["decoder"], name) for r in records for name, counts in r["acted"].items() if not counts["acted"]],
        "ties": [(r["decoder"], found) for r in records if (found := ties(r, benchmark.unit))],
        "errors": list(first_errors.items())[:10],
    }  # fmt: skip


def _table(
    title: str, metrics: Sequence[str], records: Sequence[Mapping], benchmark: Benchmark,
    marked: Marks,
) -> dict[str, Any]:  # fmt: skip
    heads = [(name.removeprefix(f"{title}_"), ARROWS[benchmark.higher_is_better.get(name)]) for name in metrics]
    return {"title": title, "metrics": heads, "rows": [_line(record, metrics, marked) for record in records]}


def _line(record: Mapping, metrics: Sequence[str], marked: Marks) -> dict[str, Any]:
    cells = [(record["metrics"].get(name), marked.get((record["decoder"], name), "")) for name in metrics]
    known = [cell["n"] for cell, _ in cells if cell]
    return {"record": record, "cells": cells, "n": max(known, default=0)}


class Compared(NamedTuple):
    """A benchmark's verdicts against plain decoding: marks, what was compared, and a sentence per decoder."""

    marks: Marks
    about: str
    sentences: dict[str, str]


def marks(out: Path) -> dict[str, tuple[Marks, str]]:
    """`verdicts` of every benchmark of a folder, against plain decoding; nothing is marked where it was not run."""
    return {name: (one.marks, one.about) for name, one in compared(out).items()}


def compared(out: Path) -> dict[str, Compared]:
    """The same with a sentence for each decoder."""
    return _compared(out, (out / RESULTS).stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _compared(out: Path, written: int) -> dict[str, Compared]:
    """Kept from the report to what the command prints."""
    request = Evaluation.read(out)
    decoders = sorted(request.decoders, key=lambda decoder: decoder != PLAIN)
    systems = compare.of_folder(out, decoders) if PLAIN in decoders else []
    found = {}
    for name in request.benchmarks:
        pairs, about = _pairs([one for one in systems if one.benchmark == name])
        sentences = {pair.system.method: text for pair in pairs if (text := sentence(pair))}
        found[name] = Compared(_marks(pairs), about, sentences)
    return found


def verdicts(systems: Sequence[compare.System]) -> tuple[Marks, str]:
    """(decoder, figure) -> "best", "better" or "worse" than the first system; and what was compared, as a sentence.

    The verdicts are those of `scoring.compare.against_first`, which `veridical compare` prints. best: better, with the
    best value of those that are. Nothing is marked where the benchmark has no paired comparison.
    """
    pairs, about = _pairs(systems)
    return _marks(pairs), about


def _pairs(systems: Sequence[compare.System]) -> tuple[list[compare.Found], str]:
    if not any(one.parts for one in systems[1:]):
        return [], "Nothing is marked: there is no paired comparison with plain decoding here."
    try:
        pairs = compare.against_first(systems)
    except ValueError as error:
        return [], f"Nothing is marked: {error}"
    return pairs, f"{compare.tested(pairs)}."


def _marks(pairs: Sequence[compare.Found]) -> Marks:
    marked: Marks = {}
    better: dict[str, list[tuple[float, str]]] = {}
    for pair in pairs:
        for title, table in pair.tables.items():
            for name, one in [(compare.figure_name(title, name), one) for name, one in table.items()]:
                if one.verdict in ("better", "worse"):
                    marked[pair.system.method, name] = one.verdict
                if one.verdict == "better":
                    value = one.first if one.higher_is_better else -one.first
                    better.setdefault(name, []).append((value, pair.system.method))
    for name, found in better.items():
        marked |= {(decoder, name): "best" for value, decoder in found if value == max(found)[0]}
    return marked
