"""Checks the files of a captioning job against each other, and removes what is damaged, so that the job can go on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ..files import atomic
from ..files.lock import locked
from . import images as sources
from . import shard_format
from .images import ImageItem
from .job import JOB, LEDGER, PLAN, SHARDS, SUMMARY, Damaged, Job, ledger, remaining, write_plan


@dataclass
class Verification:
    """What was found. faults: a sentence each. repaired: what was done. missing: number of shards to be made."""

    shards: int = 0
    missing: int = 0
    finished: bool = False
    faults: list[str] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)


def verify(out: str, repair: bool = False) -> Verification:
    """Read every file of a job again and compare it with what the others say of it.

    Args:
        repair: remove damaged lines and files; the command that began the job makes them again.

    Raises:
        FileNotFoundError: the folder holds no job. InUse: a process works in it, whose files are unfinished.
    """
    folder, found = Path(out), Verification()
    if not (folder / JOB).is_file():
        raise FileNotFoundError(f"no file {folder / JOB}; is {folder} the folder of `veridical caption … --out`?")
    with locked(folder):
        _ledger_lines(folder, found, repair)
        try:
            job = Job.read(out)
        except Damaged as error:
            found.faults.append(f"{error}")
            return found
        _plan(job, found, repair)
        _shards(job, found, repair)
        _merged(job, found, repair)
    return found


# -- helpers -------------------------------------------------------------------------------------------------------
def _ledger_lines(folder: Path, found: Verification, repair: bool) -> None:
    path = folder / LEDGER
    good, bad = atomic.lines(path)
    if bad:
        found.faults.append(f"{LEDGER}: {_numbers('line', bad)} damaged")
        if repair:
            atomic.rewrite(path, good)
            found.repaired.append(f"{len(bad)} lines of {LEDGER} were removed")


def _plan(job: Job, found: Verification, repair: bool) -> None:
    """The plan is made again where the shards, or the images as they are now, give the same bytes."""
    name, sha256 = job.plan or (PLAN, job.settings["plan_sha256"])
    path = job.out / name
    if (plan := atomic.digest(path)) == sha256:
        return
    what = f"{name} is {'missing' if plan is None else 'not the one that the job was begun with'}"
    if not repair:
        found.faults.append(f"{what}; --repair makes it again from the shards or the images, if it can")
        return
    again = path.with_name(f".{name}.partial")  # which the next run sweeps away
    for items in _planned(job):
        if write_plan(again, items) == sha256:
            os.replace(again, path)
            found.faults.append(what)
            found.repaired.append(f"{name} was made again")
            return
    again.unlink(missing_ok=True)
    found.faults.append(
        f"{what}; neither the shards nor the images as they are now make it again: restore it from a backup, or choose "
        "another --out"
    )


def _planned(job: Job) -> Iterator[list[ImageItem]]:
    """What the plan may have held: the rows of all shards; what the source holds now."""
    done, first = ledger(job), job.request.decoders[0]
    if len(done) == job.shards:
        rows = [row for shard in done for row in shard_format.read(job.shard_path(shard)) if row["decoder"] == first]
        yield [ImageItem(row["id"], row["path"]) for row in rows]
    with suppress(OSError, ValueError):
        items = sources.find(job.request.sources, job.request.globs).items
        if len(items) == job.images:
            yield items


def _shards(job: Job, found: Verification, repair: bool) -> None:
    done = ledger(job)
    left = remaining(job, done)
    found.shards, found.missing = job.shards, len(left)
    bad = [number for number in left if job.shard_path(number).exists()]
    strange = sorted(set((job.out / SHARDS).glob("*")) - {job.shard_path(number) for number in range(job.shards)})
    if bad:
        found.faults.append(f"{SHARDS}: {_numbers('shard', bad)} not as the ledger says")
    if strange:
        found.faults.append(f"{SHARDS}: {len(strange)} files belong to no shard, such as {strange[0].name}")
    if repair:
        for path in [*map(job.shard_path, bad), *strange]:
            path.unlink()
        if bad or strange:
            found.repaired.append(f"{len(bad) + len(strange)} files of {SHARDS} were removed")


def _merged(job: Job, found: Verification, repair: bool) -> None:
    path = job.out / SUMMARY
    if not path.is_file():
        return
    try:
        agrees = atomic.read_json(path)["captions"]["sha256"] == atomic.digest(job.captions_path)
    except (ValueError, KeyError, TypeError):
        agrees = False
    found.finished = agrees and not found.missing
    if not found.finished:
        merged = job.captions_path.name
        found.faults.append(f"{SUMMARY}: it says that the job is finished, and shards or {merged} differ")
        if repair:
            path.unlink()
            found.repaired.append(f"{SUMMARY} was removed; the job writes it and {job.captions_path.name} again")


def _numbers(kind: str, numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:5])) + (", …" if len(numbers) > 5 else "")
    return f"{kind} {shown} is" if len(numbers) == 1 else f"{kind}s {shown} ({len(numbers)}) are"
