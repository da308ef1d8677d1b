"""One shard of a captioning job: its images in, its file of rows out. Runs in any process that sees the folder."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..evaluation import answer_file
from ..evaluation.request import chain
from ..files import atomic
from ..files.run_warnings import once_per_run
from . import image_loader, job, settings, shard_format
from .batch_retry import BatchRetry
from .image_loader import EncodedImage, Limits
from .images import ImageItem, plain
from .watch import JobStopped, sign_of_life

if TYPE_CHECKING:
    from ...pipelines.lvlm import LVLM
    from ...pipelines.results import Answer

Key = tuple[int, str]  # place in the plan, decoder
GREY = (224, 224)  # an image that every model can take


def caption_shard(out: str, shard: int, retry_errors: bool = False) -> str:
    """Caption the images of a shard with every decoder, write its line in the ledger, then its file. Returns the file.

    The file is there whole or not at all; a shard without line or file is made again, with the same batches and seeds,
    and so with the same bytes.

    Args:
        out: folder of a job that `captioning.begin` has prepared. shard: its number, from 0.
        retry_errors: keep the rows of a finished file and caption again only those with an error.

    Raises:
        OtherSettings: this process has another model, other weights or other versions than the job was begun with.
        ModelFailed: the accelerator is broken, or the model fails on every image and on a grey one.
        JobStopped: the folder of the images is gone.
        DiskFull: no room for the file or the line.
    """
    task = job.Job.read(out)
    lvlm = task.load()
    check_worker(out, task.settings_sha256)
    path, items = task.shard_path(shard), task.items(shard)
    line = job.ledger(task, shard).get(shard) if retry_errors else None
    before = shard_format.read(path) if line else []
    spent = dict(zip([(row["id"], row["decoder"]) for row in before], line["seconds"] if line else [], strict=True))
    kept = {(row["id"], row["decoder"]): row for row in before}
    wanted = {
        (place, decoder): item
        for place, item in items
        for decoder in task.request.decoders
        if kept.get((item.id, decoder), {"error": ""})["error"] is not None
    }
    answers, files, halved = _answers(task, lvlm, wanted)
    rows, seconds = [], []
    for place, item in items:
        for decoder in task.request.decoders:
            key, answer = (item.id, decoder), answers.get((place, decoder))
            fresh = (place, decoder) in wanted
            rows.append(_row(task, files[place], decoder, answer) if fresh else kept[key])
            seconds.append(round(answer.seconds, 4) if answer else 0.0 if fresh else spent[key])
    settings.check_probes(task, lvlm)  # a process stays for hours, and reads a detector's folder again when it changes
    content = shard_format.encode(rows, task.request.form)
    atomic.append(task.out / job.LEDGER, {
        "shard": shard, "file": path.name, "sha256": hashlib.sha256(content).hexdigest(), "rows": len(rows),
        "errors": sum(row["error"] is not None for row in rows), "halved": halved, "seconds": seconds,
        "written": round(time.time(), 3),
    })  # fmt: skip
    atomic.write(path, content)
    return str(path)


@lru_cache(maxsize=16)
def check_worker(out: str, settings_sha256: str) -> None:
    """Refuse to add to a job what another model or other versions make; once per process and settings.

    Raises:
        OtherSettings: says what differs.
    """
    task = job.Job.read(out)
    plan, listed = task.settings["plan_sha256"], task.settings["list_sha256"]
    here = settings.settings_of(task.request, task.load(), plan, listed)
    if different := settings.difference(task, here):
        raise answer_file.OtherSettings(f"this process cannot go on with {task.out}: {different}.")


# -- helpers -------------------------------------------------------------------------------------------------------
def _answers(
    task: job.Job, lvlm: LVLM, wanted: Mapping[Key, ImageItem]
) -> tuple[dict[Key, Answer], dict[int, EncodedImage], int]:  # fmt: skip
    """Read and caption what is wanted, batch by batch. Gives answers, files by place, and halvings."""
    from PIL import Image

    request = task.request
    limits = Limits(request.max_pixels, request.max_bytes)
    places = {place: item for (place, _), item in wanted.items()}
    found: dict[Key, Answer] = {}
    retries = {decoder: BatchRetry(partial(_answer_batch, task, lvlm, decoder)) for decoder in request.decoders}
    with ThreadPoolExecutor(request.readers, "reader") as pool:
        read = partial(image_loader.read, limits=limits)
        files = {one.place: one for one in pool.map(read, places.values(), places.keys())}
        _refuse_lost_source(request.sources, list(files.values()))
        most = None if task.version == 1 else image_loader.BUDGET // 2  # batches of an earlier version had no limit
        batches = image_loader.batches(list(files.values()), lvlm, request.batch_size, most)
        for batch in image_loader.decoded(pool, batches, limits):
            for decoder, answer in retries.items():
                part = [(one, image) for one, image in batch if (one.place, decoder) in wanted]
                for (one, _), answered in zip(part, answer(part), strict=True):
                    found[one.place, decoder] = answered
                sign_of_life()
    for answer in retries.values():
        answer.check((EncodedImage(0, ImageItem("grey", "")), Image.new("RGB", GREY, "grey")))
    return found, files, sum(answer.halved for answer in retries.values())


def _refuse_lost_source(sources: Sequence[str], files: Sequence[EncodedImage]) -> None:
    """Stop where the folder of the images is gone or empty: a million error rows would say nothing else."""
    folder = Path(sources[0])
    below = [one for one in files if one.item.path.startswith(os.path.join(os.path.abspath(folder), ""))]
    if len(sources) > 1 or not below or any(os.path.lexists(one.item.path) for one in below):
        return
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        raise JobStopped(
            f"{plain(str(folder))} is empty or gone, and with it every image of a shard: is its disk mounted? What was "
            "finished is kept; the same command goes on"
        )


def _answer_batch(
    task: job.Job, lvlm: LVLM, decoder: str, part: Sequence[tuple[EncodedImage, Any]]
) -> list[Answer]:
    """One batch. An image's seed is its place in the plan, in whichever batch and run it is captioned."""
    request = task.request
    with once_per_run(task.out):
        return lvlm.answer(
            [image for _, image in part], request.question, chain(decoder, lvlm.name), list(request.detectors),
            system=request.system, batch_size=len(part), errors="row",
            seed=[request.seed + one.place for one, _ in part], **request.generation,
        )  # fmt: skip


def _row(task: job.Job, file: EncodedImage, decoder: str, answer: Answer | None) -> shard_format.Row:
    error = file.error if answer is None else answer.error
    good = answer if error is None else None
    return {
        "id": file.item.id, "path": plain(file.item.path), "sha256": file.sha256, "decoder": decoder,
        "caption": good.text if good else None, "tokens": good.tokens if good else [],
        "risk": {name: list(map(_number, risk)) for name, risk in good.risk.items()} if good else {},
        "acted": good.acted if good else {}, "error": error, "settings": task.settings_sha256[:16],
    }  # fmt: skip


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None  # JSON has neither NaN nor infinity
