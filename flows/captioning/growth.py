"""Images that have come into a job's folder or list since its plan, and how they are taken in."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ..evaluation import answer_file
from . import images as sources
from .images import ImageItem
from .job import PLAN, Job, write_plan


class Grown(UserWarning):
    """The folder or list of a job holds images that are not in its plan."""


def new_images(job: Job) -> list[ImageItem]:
    """The images of a job's folder or changed list that its plan lacks, by id; none for image files."""
    source = job.request.sources[0]
    grows = Path(source).is_dir() or sources.fingerprint(job.request.sources) != job.listed
    if len(job.request.sources) > 1 or not grows:
        return []
    known = set(job.planned()["id"].to_pylist())
    with suppress(ValueError, FileNotFoundError):  # it is empty or gone now
        return [item for item in sources.find([source], job.request.globs).items if item.id not in known]
    return []


def list_sha256(job: Job, add: bool) -> str | None:
    """What stands in a job's settings for its list. With `add` a list may have changed, but for what was planned.

    Raises:
        OtherSettings: it has changed without `add`, or lines that were planned are gone.
    """
    planned, source = job.settings.get("list_sha256"), job.request.sources[0]
    if sources.fingerprint(job.request.sources) == job.listed:
        return str(planned) if planned is not None else None
    if not add:
        raise answer_file.OtherSettings(
            f"{source} has changed since {job.out} was planned: --add takes in its new lines; or choose another --out."
        )
    table = job.planned()
    there = set(sources.find([source]).items)
    gone = [
        name
        for name, path in zip(table["id"].to_pylist(), map(os.fsdecode, table["path"].to_pylist()), strict=True)
        if ImageItem(name, path) not in there
    ]
    if gone:
        raise answer_file.OtherSettings(
            f"{len(gone)} of {len(table)} planned images are not in {source} any more, such as {gone[0]}: put their "
            "lines back, or choose another --out."
        )
    return str(planned)


def note(job: Job, new: Sequence[ImageItem]) -> str:
    """One line on them."""
    folder = sources.plain(job.request.sources[0])
    return f"{len(new)} images have come into {folder} since the job was planned; --add captions them too"


def extended(job: Job, new: Sequence[ImageItem]) -> Job:
    """The job with these images behind the others, whose places and seeds stay. Its new plan is on disk.

    The shard that was the last is made again if there was room in it.
    """
    table = job.planned()
    old = zip(table["id"].to_pylist(), map(os.fsdecode, table["path"].to_pylist()), strict=True)
    items = [*(ImageItem(*one) for one in old), *new]
    name = f"{PLAN.removesuffix('.parquet')}-{len(items)}.parquet"
    plan = name, write_plan(job.out / name, items)
    return dataclasses.replace(job, images=len(items), plan=plan, list_sha256=sources.fingerprint(job.request.sources))
