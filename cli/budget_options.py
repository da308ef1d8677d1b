"""`caption --budget 1.2`: the option, and the gate that it chooses for a job or for a few images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .answering import Questioning
from .errors import hush_transformers, notes
from .terminal import echo
from .worker_options import Spread

if TYPE_CHECKING:
    from ..flows.captioning.request import Captioning
    from ..flows.gating.choice import Choice

Budget = Annotated[
    float | None,
    typer.Option(
        "--budget", show_default=False,
        help="The largest time, in times plain decoding's: the decoder acts at as many steps as stay within it. A gate "
        "is chosen for that on the first images.",
    ),
]  # fmt: skip


def refuse_setting(budget: float | None, setting: Path | None) -> None:
    """A certified setting is used as it is.

    Raises:
        ValueError: --budget beside --setting.
    """
    if budget is not None and setting is not None:
        raise ValueError(f"--budget chooses a gate, and {setting} has one decoder as it was certified: leave out one.")


def job(request: Captioning, out: str, budget: float, spread: Spread) -> Captioning:
    """A job's request with its decoder gated: as its folder has it, or as is found out now.

    Raises:
        NoRunner: it is yet to be found out, and the job runs on other workers. And as `budgeted.budgeted`.
    """
    from ..flows.files.progress import progress
    from ..flows.gating import budget as budgets
    from ..flows.gating import budgeted
    from ..flows.prefect.runners import NoRunner

    if (known := budgeted.recorded(request, out, budget)) is not None:
        return known[0]
    if spread.runner != "local":
        raise NoRunner(
            f"--budget is timed in this process, and --runner {spread.runner} works in others: begin the job with "
            "--runner local, stop it when captions appear, and go on with other workers."
        )
    hush_transformers()
    with notes(), progress("budget", budgets.SETTINGS, "settings", passing=True) as advance:
        gated, choice = budgeted.budgeted(request, out, budget, advance=advance)
    _say(choice)
    return gated


def few(images: Sequence[str], request: Questioning, budget: float) -> Questioning:
    """The same for images whose captions are printed; they themselves are what is timed.

    Raises:
        as `budget.fit`.
    """
    from ..flows.gating import budget as budgets
    from ..pipelines.model.spec import load

    budgets.check(decoders := request.decoders or [], budget, request.model.name)
    hush_transformers()
    with notes():
        choice = budgets.fit(
            load(request.model), decoders[0], images[: budgets.images_for(request.batch_size)], budget,
            request.batch_size, request.detectors or (), prompt=request.question, system=request.system,
            seed=request.seed, **request.generation,
        )  # fmt: skip
    _say(choice)
    return replace(request, decoders=[choice.chosen.decoder], choice=choice)


def _say(choice: Choice) -> None:
    echo(f"note: {choice.prediction}", err=True)
    echo(f"note: {choice.evidence}", err=True)
