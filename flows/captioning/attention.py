"""The attention behind a job's captions, read after them, for the images that its report shows first."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..evaluation import answer_file
from ..files import atomic
from ..files.run_warnings import once_per_run
from ..report.attended import NoAttention, attended
from . import report, shard_format
from .image_loader import Limits, decode, read
from .job import Job, ledger

ATTENTION = "attention.jsonl"


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
    step, done, decoders = report.step(job.images), ledger(job), len(job.request.decoders)
    for place in range(0, min(job.images, step * job.request.attention_maps), step):
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
