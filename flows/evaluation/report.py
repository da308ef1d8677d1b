"""The report of an evaluation: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from ...datasets.examples import Example
from ..benchmarks.base import Benchmark, Mark
from ..benchmarks.registry import BENCHMARKS
from ..detection.word_risk import words
from ..files import atomic
from ..scoring import compare
from . import answer_file
from .request import MANIFEST, REPORT, RESULTS, Evaluation
from .text import figure

PLAIN = "greedy"
THUMBNAIL = 240
EXAMPLES = 6
Marks = dict[tuple[str, str], str]  # decoder, figure -> better, best or worse
ARROWS = {True: "↑", False: "↓", None: ""}


def write(out: str | Path, examples: int = EXAMPLES) -> Path:
    """Write report.html from the files of an evaluation.

    Args:
        examples: how many images are shown for each benchmark.

    Raises:
        FileNotFoundError, ValueError: a file of the evaluation is missing or broken.
    """
    out = Path(out)
    request = Evaluation.read(out)
    results, manifest = atomic.read_json(out / RESULTS), atomic.read_json(out / MANIFEST)
    marked = marks(out)
    sections = [
        _section(str(out), request, BENCHMARKS[name], results, *marked[name], examples) for name in request.benchmarks
    ]
    text = _template().render(request=request, manifest=manifest, sections=sections)
    path = out / REPORT
    atomic.write_text(path, text)
    return path


@cache
def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["figure"] = figure
    return environment.get_template("report.html.jinja")


# -- tables --------------------------------------------------------------------------------------------------------
def _section(
    out: str, request: Evaluation, benchmark: Benchmark, results: Sequence[Mapping], marked: Marks, compared: str,
    count: int,
) -> dict[str, Any]:
    records = [record for record in results if record["benchmark"] == benchmark.name]
    examples = benchmark.examples(request.source)
    rows = {
        record["decoder"]: answer_file.rows_of(out, benchmark.name, record["decoder"], examples) for record in records
    }
    first_errors = {row["image"]: row["error"] for answers in rows.values() for row in answers if row["error"]}
    return {
        "name": benchmark.name,
        "compared": compared,
        "about": (benchmark.__doc__ or "").strip().split("\n\n")[0],
        "unit": benchmark.unit,
        "tables": [
            _table(title, metrics, records, benchmark, marked) for title, metrics in benchmark.tables.items()
            if any(name in record["metrics"] for record in records for name in metrics)
        ],
        "records": records,
        "idle": [(r["decoder"], name) for r in records for name, counts in r["acted"].items() if not counts["acted"]],
        "errors": list(first_errors.items())[:10],
        "examples": _examples(request, benchmark, examples, rows, count),
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


def marks(out: Path) -> dict[str, tuple[Marks, str]]:
    """`verdicts` of every benchmark of a folder, against plain decoding; nothing is marked where it was not run."""
    return _marks(out, (out / RESULTS).stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _marks(out: Path, written: int) -> dict[str, tuple[Marks, str]]:
    """Kept from the report to what the command prints."""
    request = Evaluation.read(out)
    decoders = sorted(request.decoders, key=lambda decoder: decoder != PLAIN)
    systems = compare.of_folder(out, decoders) if PLAIN in decoders else []
    return {name: verdicts([one for one in systems if one.benchmark == name]) for name in request.benchmarks}


def verdicts(systems: Sequence[compare.System]) -> tuple[Marks, str]:
    """(decoder, figure) -> "best", "better" or "worse" than the first system; and what was compared, as a sentence.

    The verdicts are those of `scoring.compare.against_first`, which `veridical compare` prints. best: better, with the
    best value of those that are. Nothing is marked where the benchmark has no paired comparison.
    """
    if not any(one.parts for one in systems[1:]):
        return {}, "Nothing is marked: there is no paired comparison with plain decoding here."
    try:
        pairs = compare.against_first(systems)
    except ValueError as error:
        return {}, f"Nothing is marked: {error}"
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
    return marked, f"{compare.tested(pairs)}."


# -- examples ------------------------------------------------------------------------------------------------------
def _examples(
    request: Evaluation, benchmark: Benchmark, examples: Sequence[Example],
    rows: Mapping[str, Sequence[answer_file.Row]], count: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """Examples as the template shows them."""
    marks = {
        decoder: [benchmark.marks(request.source, e, row["text"]) for e, row in zip(examples, answers, strict=True)]
        for decoder, answers in rows.items()
    }
    wrong = {decoder: [sum(not m.right for m in found) for found in per] for decoder, per in marks.items()}
    shown = []
    for index in choose(wrong, [e.image for e in examples], count):
        example = examples[index]
        texts = [
            {"decoder": decoder, "pieces": segments(answers[index], marks[decoder][index]),
             "error": answers[index]["error"], "wrong": wrong[decoder][index]}
            for decoder, answers in rows.items()
        ]  # fmt: skip
        shown.append({
            "id": example.id, "image": thumbnail(example),
            "question": ("… " if example.after else "") + (example.question or benchmark.prompt or ""),
            "label": example.label, "objects": sorted(example.objects), "texts": texts,
        })  # fmt: skip
    return shown


def choose(wrong: Mapping[str, Sequence[int]], images: Sequence[str], wanted: int) -> list[int]:
    """Which examples to show: one per image, by turns one where some decoder errs less than plain decoding, one where
    some errs more, and one where all err alike; the earliest first.

    >>> choose({"greedy": [1, 0, 0, 1], "vcd": [1, 0, 1, 0]}, ["a", "b", "c", "d"], 3)
    [3, 2, 0]
    """
    plain = wrong.get(PLAIN) or next(iter(wrong.values()), [])
    gains = [[base - errors[index] for errors in wrong.values()] for index, base in enumerate(plain)]
    helped = [index for index, gain in enumerate(gains) if max(gain) > 0]
    hurt = [index for index, gain in enumerate(gains) if max(gain) <= 0 and min(gain) < 0]
    alike = [index for index, gain in enumerate(gains) if not any(gain) and plain[index]]
    rest = [index for index, gain in enumerate(gains) if not any(gain) and not plain[index]]
    queues, seen = [helped, hurt, alike], set()
    out: list[int] = []
    while len(out) < wanted and (any(queues) or rest):
        for queue in queues if any(queues) else [rest]:
            while queue and len(out) < wanted:
                index = queue.pop(0)
                if images[index] not in seen:
                    seen.add(images[index])
                    out.append(index)
                    break
    return out


def segments(row: answer_file.Row, marks: Sequence[Mark]) -> list[tuple[str, str, str]]:
    """A text cut at its marks: (text, "right", "wrong" or "", its risk by each detector)."""
    text, here = row["text"], 0
    out: list[tuple[str, str, str]] = []
    for mark in sorted(marks, key=lambda mark: mark.start):
        if mark.start > here:
            out.append((text[here : mark.start], "", ""))
        out.append((text[mark.start : mark.end], "right" if mark.right else "wrong", _risk(row, mark)))
        here = mark.end
    return [*out, (text[here:], "", "")] if here < len(text) else out


def _risk(row: answer_file.Row, mark: Mark) -> str:
    risks = []
    for detector, risk in row["risk"].items():
        inside = [
            word.risk for word in words(row["text"], row["tokens"], risk)
            if word.risk is not None and word.start < mark.end and word.end > mark.start
        ]  # fmt: skip
        risks += [f"{detector} {max(inside):.2f}"] if inside else []
    return ", ".join(risks)


def thumbnail(example: Example) -> str:
    """The image as a JPEG data URI, 240 pixels wide or high; empty where it cannot be opened."""
    try:
        with example.open() as image:
            small = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return ""
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
