"""The report of a captioning job: its captions to look at, beside their images, in one HTML file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..evaluation.choice import PLAIN
from ..evaluation.request import REPORT
from ..files import atomic
from ..report import maps
from ..report.page import render
from ..report.texts import shown_words
from ..report.thumbnails import opened, thumbnails
from .images import is_url
from .job import Job

MOST = 1000  # images that are shown

Row = Mapping[str, Any]


def step(images: int) -> int:
    """Every which image of a job is shown."""
    return max(1, math.ceil(images / MOST))


class Sample:
    """Rows of every k-th image of a job, so that at most 1,000 images are shown and none of them was picked.

    images: of the job. decoders: rows of each image.
    """

    def __init__(self, images: int, decoders: int) -> None:
        self.step, self.decoders = step(images), decoders
        self.rows: list[Row] = []
        self._seen = 0

    def add(self, rows: Sequence[Row]) -> None:
        """The next rows, in the order of the plan; those of an image come together."""
        for place, row in enumerate(rows, self._seen):
            if place // self.decoders % self.step == 0:
                self.rows.append(row)
        self._seen += len(rows)


def write(
    job: Job, rows: Sequence[Row], counts: Mapping[str, Mapping[str, int]], attention: Sequence[Row] = ()
) -> Path:
    """Write report.html. counts: decoder -> rows, errors and tokens of the whole job. attention: of `attention.attend`.

    The same rows and images give the same bytes; an image that is no longer there leaves an empty place.
    """
    methods = list(job.request.decoders)
    plain = PLAIN if PLAIN in methods and len(methods) > 1 else None
    images: dict[str, Any] = {}
    examples, left = [], maps.MOST
    known = {(row["id"], row["decoder"]): dict(row) for row in attention}
    for start in range(0, len(rows), len(methods)):
        part = rows[start : start + len(methods)]
        path = part[0]["path"]
        if not is_url(path) and any(row["error"] is None for row in part):
            images.setdefault(path, partial(opened, path))
        examples.append(_example(job, part, plain))
        for answer, row in zip(examples[-1]["answers"], part, strict=True):
            left -= maps.attach(answer, known.get((row["id"], row["decoder"])), left)
    found = thumbnails(images)
    places = {path: place for place, path in enumerate(found)}
    for one in examples:
        one["image"] = places.get(one["image"], -1)
    shown = {
        "methods": methods, "detectors": list(job.request.detectors), "plain": plain, "truth": False,
        "images": [one["uri"] for one in found.values()], "examples": examples, "count": job.images,
        "attention": sum(any("maps" in answer for answer in one["answers"]) for one in examples),
    }  # fmt: skip
    title = f"captions of {job.images} images"
    text = render("captioning.html.jinja", job=job, counts=counts, browser=shown, title=title)
    atomic.write_text(job.out / REPORT, text)
    return job.out / REPORT


def _example(job: Job, part: Sequence[Row], plain: str | None) -> dict[str, Any]:
    texts = {row["decoder"]: row["caption"] or "" for row in part}
    before = texts.get(plain) if plain else None
    answers = [
        {
            "text": texts[row["decoder"]], "error": row["error"], "risks": list(row["risk"]),
            "words": shown_words(
                texts[row["decoder"]], row["tokens"], row["risk"], [], None if row["decoder"] == plain else before
            ),
        }
        for row in part
    ]  # fmt: skip
    return {
        "id": part[0]["id"], "benchmark": "captions", "image": part[0]["path"], "boxes": [], "label": None,
        "question": job.request.question, "objects": [], "wrong": [], "fixed": [], "broken": [], "answers": answers,
    }  # fmt: skip
