"""Images that have come into a job's folder since its plan, and how they are taken in."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from . import images as sources
from .images import ImageItem
from .job import PLAN, Job, write_plan


class Grown(UserWarning):
    """The folder of a job holds images that are not in its plan."""


def new_images(job: Job) -> list[ImageItem]:
    """The images of a job's folder that its plan lacks, by id; none for lists and image files, which do not grow."""
    folder = job.request.sources[0]
    if len(job.request.sources) > 1 or not Path(folder).is_dir():
        return []
    known = set(job.planned()["id"].to_pylist())
    with suppress(ValueError):  # it is empty now
        return [item for item in sources.find([folder], job.request.globs).items if item.id not in known]
    return []


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
    return dataclasses.replace(job, images=len(items), plan=(name, write_plan(job.out / name, items)))
