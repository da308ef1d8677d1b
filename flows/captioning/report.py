"""The report of a captioning job: its captions beside their images in one HTML file, and attention over the first."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..evaluation import answer_file
from ..evaluation.choice import PLAIN
from ..evaluation.request import REPORT
from ..files import atomic
from ..files.run_warnings import once_per_run
from ..report import maps
from ..report.attended import NoAttention, attended
from ..report.page import render
from ..report.texts import shown_words
from ..report.thumbnails import opened, thumbnails
from . import shard_format
from .image_loader import Limits, decode, read
from .images import is_url
from .job import Job, ledger

MOST = 1000  # images that are shown
ATTENTION = "attention.jsonl"

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
    job: Job, rows: Sequence[Row], counts: Mapping[str, Mapping[str, int]], attention: Sequence[Row] = (),
    budget: str = "",
) -> Path:  # fmt: skip
    """Write report.html. counts: decoder -> rows, errors and tokens of the whole job. attention: of `attend`.
    budget: a sentence on the budget of time, if the job has one.

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
    text = render("captioning.html.jinja", job=job, counts=counts, browser=shown, title=title, budget=budget)
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


# -- attention --------------------------------------------------------------------------------------------------
def attend(out: str) -> str:
    """Read the attention of the first captions that the report shows, and write attention.jsonl. Returns the folder.

    One teacher-forced forward pass of the model, without decoders, for each of at most `attention_maps` images and
    every decoder, whatever the size of the job. The same captions give the same bytes: the file is written whole or not
    at all, and kept where it belongs to these captions. An image that is gone, or a model that cannot show attention,
    costs the overlays and not the job.
    """
    job = Job.read(out)
    path = job.out / ATTENTION
    wanted = [(place, row) for place, row in _first(job) if row["error"] is None and row["caption"].strip()]
    known = [(row["id"], row["decoder"], row["text"]) for row in read_attention(path)]
    if known == [(row["id"], row["decoder"], row["caption"]) for _, row in wanted]:
        return out
    path.unlink(missing_ok=True)
    try:
        with once_per_run(out):
            found = _read(job, wanted)
    except Exception as error:  # a report without overlays is a report, and the captions are there
        why = f"{type(error).__name__}: {error}".partition("\n")[0]
        warnings.warn(f"the report has no attention over images: {why}", NoAttention, stacklevel=2)
        return out
    if found:
        atomic.write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found))
    return out


def read_attention(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of attention: id, decoder, and what `report.attended` reads; none where there is no file."""
    return answer_file.read_rows(path)


def _first(job: Job) -> Iterator[tuple[int, Any]]:
    """The rows of the first images that the report shows, each with its image's place in the plan."""
    apart, done, decoders = step(job.images), ledger(job), len(job.request.decoders)
    for place in range(0, min(job.images, apart * job.request.attention_maps), apart):
        shard, within = divmod(place, job.request.shard_size)
        if shard in done:
            rows = shard_format.read(job.shard_path(shard))
            yield from ((place, row) for row in rows[within * decoders : (within + 1) * decoders])


def _read(job: Job, wanted: list[tuple[int, Any]]) -> list[dict[str, Any]]:
    request, limits, out = job.request, Limits(job.request.max_pixels, job.request.max_bytes), []
    for start in range(0, len(wanted), request.batch_size):
        part = []
        for place, row in wanted[start : start + request.batch_size]:
            item = dict(job.items(place // request.shard_size))[place]
            if (image := decode(read(item, place, limits), limits)) is not None:
                part.append((row, image))
        if not part:
            continue
        rows, images = zip(*part, strict=True)
        texts = [row["caption"] for row in rows]
        found = attended(job.load(), images, [request.question] * len(rows), texts, request.system)
        if found is None:
            return []
        out += [{"id": r["id"], "decoder": r["decoder"], **one} for r, one in zip(rows, found, strict=True)]
    return out
