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

from ...pipelines.model import spec
from ..evaluation.request import chain
from ..files import atomic
from ..files.lock import locked
from ..files.progress import progress
from ..files.run_warnings import begin_run
from ..gating import choice as budgets
from . import growth, report, settings, shard_format
from . import images as sources
from .exports import flat_columns
from .job import (
    ERRORS,
    JOB,
    PLAN,
    SHARDS,
    SUMMARY,
    TIMINGS,
    VERSION,
    Damaged,
    Job,
    ledger,
    plan_length,
    refuse_other,
    refuse_other_request,
    remaining,
    sha256_of,
    write_plan,
)
from .request import Captioning
from .shard import caption_shard
from .watch import UNWATCHED, Watch, watching


class LeftOut(UserWarning):
    """A folder holds files that are not in the plan: no images, or left out by globs."""


def begin(request: Captioning, out: str, add: bool = False) -> str:
    """Check all that can be checked before the first caption, write the plan and job.json. Returns the folder.

    The plan is made once: a job that goes on keeps its images, whatever has come into the folder since.

    Args:
        add: take in the images that have come into the folder or list since.

    Raises:
        UnknownName, ValueError, OSError: a name that does not exist, a setting out of range, nothing to caption.
        OtherSettings: the folder holds a job with other settings.
        CannotLoad, UnsupportedModel: as `load`.
    """
    folder = Path(out)
    begin_run(folder)
    request.check()
    there = _begun(folder)
    if there is not None:
        refuse_other_request(there, request)
    _check_methods(request)
    atomic.sweep(folder)
    atomic.sweep(folder / SHARDS)
    list_sha256 = sources.fingerprint(request.sources) if there is None else growth.list_sha256(there, add)
    known = shard_format.known_settings(folder / SHARDS) if there is None else None
    if there is not None:
        images, plan_sha256 = there.images, there.settings["plan_sha256"]
    elif known is not None and (folder / PLAN).exists():  # job.json is damaged or lost, and shards are there
        images, plan_sha256 = plan_length(folder / PLAN), str(atomic.digest(folder / PLAN))
    else:
        found = sources.find(request.sources, request.globs)
        if found.ignored:
            warnings.warn(sources.note(found.ignored), LeftOut, stacklevel=2)
        if found.unchosen:
            warnings.warn(f"{found.unchosen} images are left out by {request.globs}", LeftOut, stacklevel=2)
        images, plan_sha256 = len(found.items), write_plan(folder / PLAN, found.items)
    now = settings.settings_of(request, spec.load(request.model), plan_sha256, list_sha256)
    if known is not None and known != sha256_of(now)[:16]:
        raise Damaged(
            f"{folder / JOB} is damaged or lost, and this command on this machine did not make the shards of {out}: "
            "start the command that began the job, or choose another --out"
        )
    if there is None:
        Job(folder, request, now, sha256_of(now), images).write()
        return out
    refuse_other(there, settings.difference(there, now))
    new = growth.new_images(there)
    if new and not add:
        warnings.warn(growth.note(there, new), growth.Grown, stacklevel=2)
    job = growth.extended(there, new) if new and add else there
    if there.version == VERSION:  # rows of an earlier version name the settings that it recorded
        job = dataclasses.replace(job, request=request, settings=now, settings_sha256=sha256_of(now))
    if job.version == VERSION or job is not there:
        job.write()
    return out


def finish(out: str) -> str:
    """Merge the shards into one file, and write errors.jsonl, timings.jsonl, report.html and, last, summary.json.

    Returns the path of the last.

    Raises:
        ValueError: a shard is missing, or its rows are not one for each planned image and decoder, in order.
    """
    job = Job.read(out)
    done = ledger(job)
    atomic.sweep(job.out / SHARDS)  # of a worker that was killed while it wrote; another has made its shard
    counts = {name: Counter[str]() for name in job.request.decoders}
    errors = job.out / ERRORS
    rows_of = lambda: (row for shard in done for row in shard_format.read(job.shard_path(shard)))
    flat = flat_columns(job.request, rows_of()) if job.request.form == "csv" else []
    sample = report.Sample(job.images, len(job.request.decoders))
    with (
        shard_format.merging(job.captions_path, flat) as add, atomic.replacing(errors) as bad,
        atomic.replacing(job.out / TIMINGS) as timed,
    ):  # fmt: skip
        for shard in range(job.shards):
            if shard not in done:
                raise ValueError(f"shard {shard} of {out} is missing; start the same command again")
            rows = shard_format.read(job.shard_path(shard))
            planned = [(item.id, name) for _, item in job.items(shard) for name in job.request.decoders]
            if [(row["id"], row["decoder"]) for row in rows] != planned:
                raise ValueError(f"{job.shard_path(shard)} has not one row per planned image and decoder; delete it")
            add(rows)
            sample.add(rows)
            for row, seconds in zip(rows, done[shard]["seconds"], strict=True):
                _count(counts[row["decoder"]], row)
                key = {name: row[name] for name in ("id", "decoder")}
                timed.write(_line({**key, "seconds": seconds}))
                if row["error"] is not None:
                    bad.write(_line({**key, "path": row["path"], "error": row["error"]}))
    paid = _paid(job, counts)
    attention = report.read_attention(job.out / report.ATTENTION)
    report.write(job, sample.rows, counts, attention, str(paid.get("sentence", "")))
    path = job.out / SUMMARY
    atomic.write_json(path, {
        "images": job.images, "shards": job.shards, "settings_sha256": job.settings_sha256,
        "captions": {"file": job.captions_path.name, "sha256": atomic.digest(job.captions_path)},
        "decoders": {
            name: {key: counted[key] for key in ("rows", "errors", "tokens")} for name, counted in counts.items()
        },
        **({"budget": paid} if paid else {}),
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
    """The four steps, plain or as tasks of a flow; each: how `shard` is called for every number."""

    begin: Callable[..., str] = begin
    shard: Callable[..., str] = caption_shard
    attend: Callable[..., str] = report.attend
    finish: Callable[..., str] = finish
    each: Callable[..., Iterator[tuple[int, str]]] = in_turn


def captioning(
    request: Captioning, out: str, retry_errors: bool = False, steps: Steps = Steps(), watch: Watch = UNWATCHED,
    add: bool = False,
) -> str:  # fmt: skip
    """Caption a folder, a list, a Parquet file or image files. Returns the path of summary.json.

    Run again with the same request it goes on where it was stopped, also by SIGKILL, and ends in the same bytes.

    Args:
        out: folder of the job.
        retry_errors: caption again what has an error; all other rows stay.
        watch: log, figures and limits of the run, which decide no caption.
        add: take in the images that have come into the folder or list since the plan; they stand behind the others.

    Raises:
        InUse: another process works on the folder. OtherSettings: the folder holds another job.
        DiskFull, ModelFailed, JobStopped: stopped; the same command goes on.
    """
    watch.check()
    sources.check_names([*request.sources, out])
    with locked(Path(out)):
        steps.begin(request, out, add)
        run_shards(out, retry_errors, steps, watch)
        if request.attention_maps:
            steps.attend(out)
        return steps.finish(out)


def run_shards(out: str, retry_errors: bool, steps: Steps, watch: Watch = UNWATCHED) -> None:
    """Make the shards that remain, under a progress bar with images/s, time left and errors."""
    job = Job.read(out)
    done = ledger(job)
    left = remaining(job, done, retry_errors)
    if left:
        (job.out / SUMMARY).unlink(missing_ok=True)  # it is there when all is finished, and only then
    size = {n: job.size(n) for n in range(job.shards)}
    bad = sum(line["errors"] for line in done.values()) - sum(done[n]["errors"] for n in left if n in done)
    there = job.images - sum(size[n] for n in left)
    with (
        watching(watch, job.images, there, bad) as watched,
        progress("captions", job.images, "images", there, errors=bad) as advance,
    ):
        for number, path in steps.each(steps.shard, out, left, retry_errors):
            errors = shard_format.errors(Path(path))
            advance(size[number], errors)
            watched.advance(number, size[number], size[number] * len(job.request.decoders), errors)


# -- helpers -------------------------------------------------------------------------------------------------------
def _begun(folder: Path) -> Job | None:
    """The job that a folder holds; None without one, or where job.json has to be written again."""
    try:
        return Job.read(folder) if (folder / JOB).exists() else None
    except Damaged:
        return None


def _check_methods(request: Captioning) -> None:
    """Refuse methods that do not exist, and what a procedure cannot do."""
    from ...pipelines.chain import split
    from ...pipelines.registry import DETECTORS

    detectors = DETECTORS.make_all(list(request.detectors))
    for name in request.decoders:
        if (procedure := split(chain(name, request.model.name))[0]) is not None:
            procedure.check([request.question], detectors, request.generation)


def _count(counts: Counter[str], row: Mapping[str, Any]) -> None:
    counts["rows"] += 1
    counts["errors"] += row["error"] is not None
    counts["tokens"] += len(row["tokens"])
    steps, acted = budgets.steps_of(row["acted"])
    counts["steps"] += int(steps)
    counts["acted"] += int(acted)


def _paid(job: Job, counts: Mapping[str, Counter[str]]) -> dict[str, Any]:
    """Of a job with a budget of time: the budget, what was predicted, and the share of steps that was paid for."""
    try:
        found = budgets.read(job.out)
    except ValueError:  # it is damaged, and the captions are there
        return {}
    if found is None or (found[0].chosen.decoder,) != job.request.decoders:
        return {}
    counted = counts[found[0].chosen.decoder]
    return found[0].of_job(counted["steps"], counted["acted"])


def _line(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, ensure_ascii=False) + "\n").encode()
