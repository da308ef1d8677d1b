"""A captioning job within a budget of time: its decoder gated as it was found on the job's first images.

The choice is made once, before the job begins, and kept in budget.json beside its job.json: a second timing could
choose another gate, and so another text. The job itself knows the gated decoder alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...pipelines.model import spec
from ..captioning import images as sources
from ..captioning.batch_retry import BatchRetry
from ..captioning.image_loader import BUDGET, EncodedImage, Limits, batches, decode, decoded_bytes, read
from ..captioning.job import JOB, Damaged, Job
from ..captioning.request import Captioning
from ..evaluation import answer_file
from ..files.lock import locked
from . import budget as budgets
from . import choice as choices
from .budget import Bench, Clock
from .choice import Choice

if TYPE_CHECKING:
    from ...pipelines.lvlm import LVLM
    from ...pipelines.results import Answer


def budgeted(
    request: Captioning, out: str | Path, budget: float, clock: Clock | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> tuple[Captioning, Choice]:  # fmt: skip
    """The request of a job with its one decoder gated, and the choice; from the folder if it holds one.

    The job's first images that can be read are captioned to find out, as `budget.fit`, in batches as the job has them.

    Args:
        out: folder of the job. budget: times plain decoding's time, above 1. clock: seconds.
        advance: called when a setting was timed.

    Raises:
        ValueError, UnknownName: as `budget.check`; no image can be used. NothingFits: no gate is cheap enough.
        OtherSettings: the folder holds a job with another budget or decoder, or with none. InUse: as `locked`.
    """
    known = recorded(request, out, budget)
    if known is not None:
        return known
    with locked(Path(out)):
        choice = _found(request, budget, clock or time.perf_counter, advance)
        choices.write(Path(out), choice, _chosen_for(request, budget))
    return replace(request, decoders=(choice.chosen.decoder,)), choice


def recorded(request: Captioning, out: str | Path, budget: float) -> tuple[Captioning, Choice] | None:
    """The same from the folder alone; None where it is yet to be found out. Neither model nor images are needed.

    Raises:
        as `budgeted`.
    """
    request.check()
    decoder = budgets.check(request.decoders, budget, request.model.name)
    folder = Path(out)
    found = choices.read(folder)
    if (folder / JOB).exists():
        begun = _decoders(folder)
        if found is None or begun not in (None, (found[0].chosen.decoder,)):
            without = f"the decoders {', '.join(begun or ('of its job.json',))}"
            raise answer_file.OtherSettings(
                f"{out} was begun without a budget, with {without}: leave --budget out, or choose another --out."
            )
        there = {"budget": found[0].budget, "decoder": found[0].decoder}
        if different := answer_file.difference(there, {"budget": budget, "decoder": decoder}):
            raise answer_file.OtherSettings(
                f"{out} was begun with other settings: {different}. A budget is chosen once: choose another --out, or "
                "delete it."
            )
    elif found is not None and answer_file.difference(found[1], _chosen_for(request, budget)):
        return None  # of a job that never began
    if found is None:
        return None
    return replace(request, decoders=(found[0].chosen.decoder,)), found[0]


# -- helpers -------------------------------------------------------------------------------------------------------
def _chosen_for(request: Captioning, budget: float) -> dict[str, Any]:
    return {"budget": budget, **request.decisive()}


def _decoders(folder: Path) -> tuple[str, ...] | None:
    """Those of a begun job; None where job.json has to be written again."""
    try:
        return Job.read(folder).request.decoders
    except Damaged:
        return None


def _found(request: Captioning, budget: float, clock: Clock, advance: Callable[[int], None]) -> Choice:
    """Read the first images and time settings on them."""
    lvlm = spec.load(request.model)
    limits = Limits(request.max_pixels, request.max_bytes)
    items = sources.find(request.sources, request.globs).items
    wanted = budgets.images_for(min(request.batch_size, request.shard_size))
    usable: list[tuple[EncodedImage, Any]] = []
    skipped, weight = 0, 0
    for file, image in _read(items, limits):
        skipped += image is None
        usable += [] if image is None else [(file, image)]
        weight += decoded_bytes(file)
        if len(usable) == wanted or weight > BUDGET:  # of memory
            break
    decoded = {file.place: image for file, image in usable}
    grouped = batches([file for file, _ in usable], lvlm, request.batch_size, BUDGET // 2)
    shown = [[(one.place, decoded[one.place]) for one in batch] for batch in grouped]
    bench = Bench(partial(_answers, request, lvlm), shown, request.detectors, clock, advance)
    return budgets.choose(bench, request.decoders[0], budget, skipped)


def _read(items: Sequence[sources.ImageItem], limits: Limits) -> Iterator[tuple[EncodedImage, Any]]:
    for place, item in enumerate(items):
        file = read(item, place, limits)
        yield file, None if file.error is not None else decode(file, limits)


def _answers(
    request: Captioning, lvlm: LVLM, decoders: Sequence[str], detectors: Sequence[str], batch: Sequence[Any]
) -> list[Answer]:  # fmt: skip
    """One batch as the job has it: seeds by place in the plan, and halves where a batch fails."""

    def answer(part: Sequence[tuple[int, Any]]) -> list[Answer]:
        return lvlm.answer(
            [image for _, image in part], request.question, list(decoders), list(detectors), system=request.system,
            batch_size=len(part), errors="row", seed=[request.seed + place for place, _ in part], **request.generation,
        )  # fmt: skip

    return BatchRetry(answer)(batch)
