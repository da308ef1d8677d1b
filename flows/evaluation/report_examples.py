"""The examples of an evaluation as the browser of a report holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...datasets.boxes import boxes
from ...datasets.examples import Example
from ..benchmarks.base import Benchmark, Mark
from ..report import maps
from ..report.texts import shown_words
from ..report.thumbnails import thumbnails
from . import answer_file
from .attention import attention_path, read
from .choice import PLAIN, choose, marks_of, wrong_of
from .request import Evaluation

MOST = 1000  # examples of a report


def browser(
    out: str, request: Evaluation, sections: Sequence[tuple[Benchmark, Mapping[str, Sequence[answer_file.Row]]]]
) -> dict[str, Any]:
    """All that the browser of examples shows, as plain values.

    sections: each benchmark with the rows of every decoder.
    """
    methods, detectors = list(request.decoders), list(_detectors(sections))
    shown, opened, left = [], {}, maps.MOST
    for benchmark, rows in sections:
        examples = benchmark.examples(request.source)
        marks = marks_of(request, benchmark, rows)
        wrong = wrong_of(marks)
        attended = {
            decoder: {row["id"]: row for row in read(attention_path(out, benchmark.name, decoder))}
            for decoder in methods
        }
        for index in choose(wrong, [e.image for e in examples], max(1, MOST // len(sections))):
            example = examples[index]
            opened[example.image] = example.open
            of_each = {decoder: (rows[decoder][index], marks[decoder][index]) for decoder in methods}
            one = _example(request, benchmark, example, of_each)
            one |= _verdicts({decoder: wrong[decoder][index] for decoder in methods})
            for answer, decoder in zip(one["answers"], methods, strict=True):
                left -= maps.attach(answer, attended[decoder].get(example.id), left)
            shown.append(one)
    images = thumbnails(opened)
    places = {name: place for place, name in enumerate(images)}
    for one in shown:
        size = images[one["image"]]
        one["boxes"] = [_share(box, size["width"], size["height"]) for box in one["boxes"] if size["width"]]
        one["image"] = places[one["image"]]
    return {
        "methods": methods, "detectors": detectors, "plain": PLAIN if PLAIN in methods else None, "truth": True,
        "images": [one["uri"] for one in images.values()], "examples": shown,
        "attention": sum(any("maps" in answer for answer in one["answers"]) for one in shown),
        "count": sum(len(benchmark.examples(request.source)) for benchmark, _ in sections),
    }  # fmt: skip


def _detectors(sections: Sequence[tuple[Benchmark, Mapping[str, Sequence[answer_file.Row]]]]) -> dict[str, None]:
    return {name: None for _, rows in sections for answers in rows.values() for row in answers for name in row["risk"]}


def _example(
    request: Evaluation, benchmark: Benchmark, example: Example,
    of_each: Mapping[str, tuple[answer_file.Row, Sequence[Mark]]],
) -> dict[str, Any]:  # fmt: skip
    plain = of_each[PLAIN][0]["text"] if PLAIN in of_each else None
    instances = request.source.files.instances if request.source.coco else None
    answers = []
    for decoder, (row, marks) in of_each.items():
        before = None if decoder == PLAIN else plain
        found = shown_words(row["text"], row["tokens"], row["risk"], marks, before)
        answers.append({"text": row["text"], "error": row["error"], "words": found, "risks": list(row["risk"])})
    named = {
        row["text"][mark.start : mark.end].lower()
        for row, marks in of_each.values() for mark in marks if not mark.right
    }  # fmt: skip
    return {
        "id": example.id, "benchmark": benchmark.name, "image": example.image, "boxes": boxes(example, instances),
        "question": ("… " if example.after else "") + (example.question or benchmark.prompt or ""),
        "label": example.label, "objects": sorted(example.objects),
        "wrong": sorted(named) if example.label is None else [], "answers": answers,
    }  # fmt: skip


def _verdicts(wrong: Mapping[str, int]) -> dict[str, list[int]]:
    """Numbers of the decoders that err less, and of those that err more, than plain decoding."""
    if PLAIN not in wrong:
        return {"fixed": [], "broken": []}
    gains = [wrong[PLAIN] - count for count in wrong.values()]
    return {
        "fixed": [number for number, gain in enumerate(gains) if gain > 0],
        "broken": [number for number, gain in enumerate(gains) if gain < 0],
    }


def _share(box: Any, width: int, height: int) -> list[Any]:
    """Category, and x, y, width and height in thousandths of the image."""
    return [
        box.category, round(1000 * box.x / width), round(1000 * box.y / height),
        round(1000 * box.width / width), round(1000 * box.height / height),
    ]  # fmt: skip
