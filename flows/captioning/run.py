"""Captioning many images as a job in a folder: plan, shards, merged files. It can be killed anywhere and started again.

Plain functions of names, paths and numbers. `flows.caption` runs the same as a Prefect flow.
"""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...datasets.captions import DETAIL_PROMPT
from ..evaluation import answer_file
from ..evaluation.request import chain
from ..files import atomic
from ..files.lock import locked
from ..files.progress import progress
from . import images as sources
from . import shard_format
from .job import ERRORS, JOB, PLAN, SHARDS, SUMMARY, TIMINGS, Job, Request, ledger, settings_of, sha256_of, write_plan
from .shard import caption_shard

MAX_PIXELS, MAX_BYTES = 50_000_000, 100_000_000
MOST_PIXELS = 178_956_970


class LeftOut(UserWarning):
    """A folder holds files that are not in the plan."""


def begin(request: Mapping[str, Any], out: str) -> str:
    """Check all that can be checked before the first caption, write the plan and job.json. Returns the folder.

    The plan is made once: a job that goes on keeps its images, whatever has come into the folder since.

    Args:
        request: the fields of `job.Request`.

    Raises:
        UnknownName, ValueError, OSError: a name that does not exist, a setting out of range, nothing to caption.
        OtherSettings: the folder holds a job with other settings.
        CannotLoad, UnsupportedModel: as `load`.
    """
    asked, folder = Request(**request), Path(out)
    _check(asked)
    there = Job.read(out) if (folder / JOB).exists() else None
    atomic.sweep(folder)
    atomic.sweep(folder / SHARDS)
    list_sha256 = sources.fingerprint(asked.sources)
    if there is None:
        found = sources.find(asked.sources, asked.allow_urls)
        if found.ignored:
            warnings.warn(sources.note(found.ignored), LeftOut, stacklevel=2)
        images, plan_sha256 = len(found.pictures), write_plan(folder / PLAN, found.pictures)
    else:
        images, plan_sha256 = there.images, there.settings["plan_sha256"]
    settings = settings_of(asked, asked.load(), plan_sha256, list_sha256)
    if there is not None and (said := answer_file.difference(there.settings, settings)):
        raise answer_file.OtherSettings(
            f"{out} was begun with other settings: {said}. Choose another --out, or delete it."
        )
    atomic.write_json(folder / JOB, {
        "request": dataclasses.asdict(asked), "settings": settings, "settings_sha256": sha256_of(settings),
        "images": images,
    })  # fmt: skip
    return out


def remaining(out: str, retry_errors: bool = False) -> list[int]:
    """Shards that are not finished, and with `retry_errors` those with an error."""
    task = Job.read(out)
    return _left(task, ledger(task), retry_errors)


def finish(out: str) -> str:
    """Merge the shards into one file, and write errors.jsonl, timings.jsonl and, last, summary.json. Returns its path.

    Raises:
        ValueError: a shard is missing, or its rows are not one for each planned image and decoder, in order.
    """
    task = Job.read(out)
    done = ledger(task)
    atomic.sweep(task.out / SHARDS)  # of a worker that was killed while it wrote; another has made its shard
    told = {name: Counter[str]() for name in task.request.decoders}
    errors = task.out / ERRORS
    with (
        shard_format.merging(task.captions_path) as add, atomic.replacing(errors) as bad,
        atomic.replacing(task.out / TIMINGS) as timed,
    ):  # fmt: skip
        for shard in range(task.shards):
            if shard not in done:
                raise ValueError(f"shard {shard} of {out} is missing; start the same command again")
            rows = shard_format.read(task.shard_path(shard))
            planned = [(p.id, name) for _, p in task.pictures(shard) for name in task.request.decoders]
            if [(row["id"], row["decoder"]) for row in rows] != planned:
                raise ValueError(f"{task.shard_path(shard)} has not one row per planned image and decoder; delete it")
            add(rows)
            for row, seconds in zip(rows, done[shard]["seconds"], strict=True):
                _count(told[row["decoder"]], row)
                few = {name: row[name] for name in ("id", "decoder")}
                timed.write(_line({**few, "seconds": seconds}))
                if row["error"] is not None:
                    bad.write(_line({**few, "path": row["path"], "error": row["error"]}))
    path = task.out / SUMMARY
    atomic.write_json(path, {
        "images": task.images, "shards": task.shards, "settings_sha256": task.settings_sha256,
        "captions": {"file": task.captions_path.name, "sha256": atomic.digest(task.captions_path)},
        "decoders": {name: {key: counts[key] for key in ("rows", "errors", "tokens")} for name, counts in told.items()},
    })  # fmt: skip
    return str(path)


def in_turn(
    shard: Callable[..., str], out: str, numbers: Sequence[int], retry_errors: bool
) -> Iterator[tuple[int, str]]:  # fmt: skip
    """Make shards one after another; gives the number and the file of each."""
    for number in numbers:
        yield number, shard(out, number, retry_errors)


@dataclass(frozen=True)
class Steps:
    """The three steps, plain or as tasks of a flow; each: how `shard` is called for every number."""

    begin: Callable[..., str] = begin
    shard: Callable[..., str] = caption_shard
    finish: Callable[..., str] = finish
    each: Callable[..., Iterator[tuple[int, str]]] = in_turn


def captioning(
    images: Sequence[str], out: str, model: str = "embedded", decoders: Sequence[str] = ("greedy",),
    detectors: Sequence[str] = (), question: str = DETAIL_PROMPT, system: str | None = None, seed: int = 0,
    batch_size: int = 8, shard_size: int = 32, form: str = "parquet", max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES, allow_urls: bool = False, readers: int = 4, device: str = "auto", dtype: str = "auto",
    revision: str | None = None, generation: Mapping[str, Any] | None = None, quantization: str | None = None,
    attention: str | None = None, retry_errors: bool = False, steps: Steps = Steps(),
) -> str:  # fmt: skip
    """Caption a folder, a list, a Parquet file or image files. Returns the path of summary.json.

    Run again with the same arguments it goes on where it was stopped, also by SIGKILL, and ends in the same bytes.

    Args:
        images: see `sources.find`. out: folder of the job.
        model, device, dtype, revision, quantization, attention: as `load`. decoders: a row per image for each.
        question, system: the prompt, the same for all.
        seed: the image at place i of the plan is sampled with seed + i.
        shard_size: images of a file, and of what a kill can cost at most. form: "parquet" or "jsonl".
        max_pixels, max_bytes: larger images become error rows. allow_urls: fetch addresses that a list names.
        readers: threads that read and decode.
        retry_errors: ask again for what has an error; all other rows stay.

    Raises:
        InUse: another process works on the folder. OtherSettings: the folder holds another job.
        DiskFull, ModelFailed: stopped; the same command goes on.
    """
    request = {
        "sources": [str(image) for image in images], "model": model, "decoders": list(dict.fromkeys(decoders)),
        "detectors": list(detectors), "question": question, "system": system, "seed": seed,
        "batch_size": batch_size, "shard_size": shard_size, "form": form, "max_pixels": max_pixels,
        "max_bytes": max_bytes, "allow_urls": allow_urls, "readers": readers, "device": device, "dtype": dtype,
        "revision": revision, "quantization": quantization, "attention": attention,
        "generation": {"do_sample": False, "max_new_tokens": 128, **(generation or {})},
    }  # fmt: skip
    sources.check_names([*map(str, images), out])
    with locked(Path(out)):
        steps.begin(request, out)
        run_shards(out, retry_errors, steps)
        return steps.finish(out)


def run_shards(out: str, retry_errors: bool, steps: Steps) -> None:
    """Make the shards that remain, under a progress bar with images/s, time left and errors."""
    task = Job.read(out)
    done = ledger(task)
    left = _left(task, done, retry_errors)
    if left:
        (task.out / SUMMARY).unlink(missing_ok=True)  # it is there when all is finished, and only then
    size = {n: min(task.request.shard_size, task.images - n * task.request.shard_size) for n in range(task.shards)}
    bad = sum(line["errors"] for line in done.values()) - sum(done[n]["errors"] for n in left if n in done)
    there = task.images - sum(size[n] for n in left)
    with progress("captions", task.images, "images", there, errors=bad) as advance:
        for number, path in steps.each(steps.shard, out, left, retry_errors):
            advance(size[number], shard_format.errors(Path(path)))


# -- helpers -------------------------------------------------------------------------------------------------------
def _left(task: Job, done: Mapping[int, Mapping[str, Any]], retry_errors: bool) -> list[int]:
    return [n for n in range(task.shards) if n not in done or (retry_errors and done[n]["errors"])]


def _check(request: Request) -> None:
    from ...pipelines.procedures import split
    from ...pipelines.registry import DETECTORS

    if not request.decoders or not request.sources:
        raise ValueError("a job needs at least one decoder and something to caption")
    detectors = DETECTORS.make_all(list(request.detectors))
    for name in request.decoders:
        if (procedure := split(chain(name))[0]) is not None:
            procedure.check([request.question], detectors, request.generation)
    for name in ("batch_size", "shard_size", "max_pixels", "max_bytes", "readers"):
        if getattr(request, name) < 1:
            raise ValueError(f"{name}={getattr(request, name)} is below 1")
    if request.max_pixels > MOST_PIXELS:
        raise ValueError(f"max_pixels={request.max_pixels} is above {MOST_PIXELS}, where Pillow refuses by itself")
    if request.form not in shard_format.FORMATS:
        raise ValueError(f"form={request.form!r} is neither of {', '.join(shard_format.FORMATS)}")


def _count(counts: Counter[str], row: Mapping[str, Any]) -> None:
    counts["rows"] += 1
    counts["errors"] += row["error"] is not None
    counts["tokens"] += len(row["tokens"])


def _line(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, ensure_ascii=False) + "\n").encode()
