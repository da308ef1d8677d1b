"""One shard of a captioning job: its images in, its file of rows out. Runs in any process that sees the folder."""

from __future__ import annotations

import hashlib
import math
import time
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from ..evaluation import answer_file
from ..evaluation.request import chain
from ..files import atomic
from . import batch_retry, image_loader, job, shard_format
from .image_loader import Seen
from .images import Picture, plain

if TYPE_CHECKING:
    from ...pipelines.lvlm import LVLM
    from ...pipelines.results import Answer

Key = tuple[int, str]  # place in the plan, decoder
GREY = (224, 224)  # a picture that every model can take


def caption_shard(out: str, shard: int, retry_errors: bool = False) -> str:
    """Caption the images of a shard with every decoder, write its line in the ledger, then its file. Returns the file.

    The file is there whole or not at all; a shard without line or file is made again, with the same batches and seeds,
    and so with the same bytes.

    Args:
        out: folder of a job that `captioning.begin` has prepared. shard: its number, from 0.
        retry_errors: keep the rows of a finished file and ask again only for those with an error.

    Raises:
        OtherSettings: this process has another model, other weights or other versions than the job was begun with.
        ModelFailed: the accelerator is broken, or neither an image nor a grey picture could be asked about.
        DiskFull: no room for the file or the line.
    """
    task = job.Job.read(out)
    lvlm = task.request.load()
    check_worker(out, task.settings_sha256)
    path = task.shard_path(shard)
    told = job.ledger(task, shard).get(shard) if retry_errors else None
    before = shard_format.read(path) if told else []
    spent = dict(zip([(row["id"], row["decoder"]) for row in before], told["seconds"] if told else [], strict=True))
    kept = {(row["id"], row["decoder"]): row for row in before}
    wanted = {
        (place, decoder): picture
        for place, picture in task.pictures(shard)
        for decoder in task.request.decoders
        if kept.get((picture.id, decoder), {"error": ""})["error"] is not None
    }
    answers, seen, halved = _answers(task, lvlm, wanted)
    rows, seconds = [], []
    for place, picture in task.pictures(shard):
        for decoder in task.request.decoders:
            key, answer = (picture.id, decoder), answers.get((place, decoder))
            fresh = (place, decoder) in wanted
            rows.append(_row(task, seen[place], decoder, answers) if fresh else kept[key])
            seconds.append(round(answer.seconds, 4) if answer else 0.0 if fresh else spent[key])
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
    here = job.settings_of(task.request, task.request.load(), plan, listed)
    if told := answer_file.difference(task.settings, here):
        raise answer_file.OtherSettings(f"this process cannot go on with {task.out}: {told}.")


# -- helpers -------------------------------------------------------------------------------------------------------
def _answers(
    task: job.Job, lvlm: LVLM, wanted: Mapping[Key, Any]
) -> tuple[dict[Key, Answer], dict[int, Seen], int]:  # fmt: skip
    """Read what is wanted, ask batch by batch. Gives answers, what was read by place, and halvings."""
    from PIL import Image

    request, limits = task.request, task.request.limits
    places = {place: picture for (place, _), picture in wanted.items()}
    found: dict[Key, Answer] = {}
    asking = {decoder: batch_retry.Careful(partial(_ask, task, lvlm, decoder)) for decoder in request.decoders}
    with ThreadPoolExecutor(request.readers, "reader") as pool:
        look = partial(image_loader.look, limits=limits)
        seen = {one.place: one for one in pool.map(look, places.values(), places.keys())}
        batches = image_loader.batches(list(seen.values()), lvlm, request.batch_size)
        for batch in image_loader.decoded(pool, batches, limits):
            for decoder, ask in asking.items():
                part = [(one, image) for one, image in batch if (one.place, decoder) in wanted]
                for (one, _), answer in zip(part, ask(part), strict=True):
                    found[one.place, decoder] = answer
    for ask in asking.values():
        ask.check((Seen(0, Picture("grey", "")), Image.new("RGB", GREY, "grey")))
    return found, seen, sum(ask.halved for ask in asking.values())


def _ask(task: job.Job, lvlm: LVLM, decoder: str, part: Sequence[tuple[Seen, Any]]) -> list[Answer]:
    """One batch. An image's seed is its place in the plan, wherever and whenever it is asked about."""
    request = task.request
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a method that never acted is in the rows
        return lvlm.answer(
            [image for _, image in part], request.question, chain(decoder, lvlm.name), list(request.detectors),
            system=request.system, batch_size=len(part), errors="row",
            seed=[request.seed + one.place for one, _ in part], **request.generation,
        )  # fmt: skip


def _row(task: job.Job, seen: Seen, decoder: str, answers: Mapping[Key, Answer]) -> shard_format.Row:
    answer = answers.get((seen.place, decoder))
    error = seen.error if answer is None else answer.error
    good = answer if error is None else None
    return {
        "id": seen.picture.id, "path": plain(seen.picture.path), "sha256": seen.sha256, "decoder": decoder,
        "caption": good.text if good else None, "tokens": good.tokens if good else [],
        "risk": {name: list(map(_number, risk)) for name, risk in good.risk.items()} if good else {},
        "acted": good.acted if good else {}, "error": error, "settings": task.settings_sha256[:16],
    }  # fmt: skip


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None  # JSON has neither NaN nor infinity
