"""`veridical schedule`: an evaluation that runs by itself and fails when it gets worse."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from .. import options as o
from .. import worker_options as r
from ..errors import hush_transformers, notes
from ..option_checks import cron_line
from . import evaluate as e

if TYPE_CHECKING:
    from ...flows.evaluation.request import Evaluation

app = typer.Typer(rich_markup_mode="rich", help="Run an evaluation again and again, and fail when it gets worse.")

_SCHEDULE = "Schedule"
_OURS = ("runner", "workers", "cluster", "gpus_per_worker", "prefect", "form")  # of `evaluate`, but not of a schedule
OVERLAP = {"cancel": "CANCEL_NEW", "queue": "ENQUEUE"}


def _option(*names: str, **settings: Any) -> Any:
    return typer.Option(*names, rich_help_panel=_SCHEDULE, **settings)


def _and_those_of_evaluate(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that takes `evaluate` in **options the options of `veridical evaluate`."""
    own, theirs = inspect.signature(command).parameters, inspect.signature(e.evaluate).parameters
    hints = {**get_type_hints(e.evaluate, include_extras=True), **get_type_hints(command, include_extras=True)}
    kept = [p for name, p in theirs.items() if name not in own and name not in _OURS]
    mine = [p for p in own.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    both = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[p.name]) for p in [*mine, *kept]]

    def called(**options: Any) -> None:
        command(**options)

    called.__doc__, called.__name__ = command.__doc__, command.__name__
    called.__signature__ = inspect.Signature(both)  # type: ignore[attr-defined]
    called.__annotations__ = {p.name: p.annotation for p in both}
    return called


@app.command(
    "evaluate",
    epilog=o.worked(
        "# a server, once, in another terminal", "prefect server start",
        "export PREFECT_API_URL=http://127.0.0.1:4200/api",
        "# every night at three", 'veridical schedule evaluate --cron "0 3 * * *" -d greedy -d vcd --out runs/nightly',
        "# now, once; no server needed", "veridical schedule evaluate --once -d greedy -d vcd --out runs/nightly",
    ),
)  # fmt: skip
@_and_those_of_evaluate
def evaluate(
    out: Annotated[Path, _option("--out", help="The folder for the runs, a folder each, and their history.")],
    cron: Annotated[
        str | None, _option(
            "--cron", help='The times of the runs, such as "0 3 * * *".', show_default=False, callback=cron_line,
        )
    ] = None,
    interval: Annotated[
        float | None, _option(
            "--interval", min=1.0, help="The time between runs in seconds, instead of --cron.", show_default=False,
        )
    ] = None,
    timezone: Annotated[str, _option("--timezone", help='The time zone of --cron, such as "Europe/Paris".')] = "UTC",
    once: Annotated[bool, _option("--once", help="Run once and now, without a schedule.")] = False,
    name: Annotated[
        str | None, _option("--name", help="The name of the deployment.", show_default="the folder's")
    ] = None,
    overlap: Annotated[
        str, _option("--overlap", help='A run that is due while another is at work: "cancel" it or "queue" it.')
    ] = "cancel",
    gpu: Annotated[
        str | None,
        _option("--gpu", help="Prefect's concurrency limit of runs on the GPU; created with 1 place if missing.",
                show_default="veridical-gpu-HOST, or none without a GPU"),
    ] = None,
    fresh: Annotated[bool, _option("--fresh", help="Answer everything again, also what is known.")] = False,
    reports: Annotated[
        str | None,
        _option("--reports", help="The address under which --out is served, for the link.", show_default=False),
    ] = None,
    prefect: r.Prefect = None,
    **options: Any,
) -> None:  # fmt: skip
    """Evaluate on a schedule; a run fails when a headline figure is worse than in the last good run, beyond the noise.

    Stays in the foreground and starts each run as a process. Takes the options of `veridical evaluate` too. With
    --once it exits with 1 if the run is worse.
    """
    if (cron is not None) + (interval is not None) + once != 1:
        raise ValueError("say when: one of --cron, --interval and --once.")
    if overlap not in OVERLAP:
        raise ValueError(f"--overlap {overlap} is neither of {', '.join(OVERLAP)}.")
    if prefect is False and not once:
        raise ValueError("--no-prefect goes with --once: the schedule is Prefect's.")
    with notes():
        request = e.request(options)
    settings = {"request": _absolute(request), "out": str(out.resolve()), "fresh": fresh, "reports": reports}
    if once:
        _once(settings, gpu, r.under_prefect(prefect))
    else:
        from ...flows.prefect import serve

        gpu = gpu or serve.gpu_limit(request.model.device)
        serve.serve(settings, gpu, name or out.name, cron, interval, timezone, OVERLAP[overlap])


def _absolute(request: Evaluation) -> Evaluation:
    """The request with absolute paths: a run starts in another folder."""
    path = lambda name: str(Path(name).resolve()) if name is not None and Path(name).exists() else name
    source = replace(request.source, coco=path(request.source.coco), synonyms=path(request.source.synonyms))
    return replace(request, model=replace(request.model, name=path(request.model.name)), source=source)


@app.command()
def accept(out: Annotated[Path, typer.Argument(help="The folder of a schedule's runs.", show_default=False)]) -> None:
    """Take the latest run as good although it was worse: later runs are compared with it."""
    from ...flows.evaluation import history

    typer.echo(f"{history.accept(out)} is what later runs are compared with.")


def _once(settings: dict[str, Any], gpu: str | None, prefect: bool) -> None:
    from ...flows.evaluation import history, regression, steps
    from ..render.results import results

    hush_transformers()
    out = settings["out"]
    with notes():
        if not prefect:
            if settings["fresh"] or settings["reports"]:
                raise ValueError("--fresh and --reports are about what Prefect keeps: add --prefect.")
            run = history.run_name(history.now(), str(os.getpid()))
            checked = history.run(out, run, settings["request"], steps.LOGGED)
            results(Path(out) / run)
            try:
                history.refuse(checked)
            except regression.Regression as error:
                raise typer.Exit(_report(error)) from None
            return
        from ...flows.prefect.runners import one_server
        from ...flows.scheduled import scheduled

        try:
            with one_server():
                folder = scheduled(**settings, gpu=gpu)
            results(Path(folder))
        except regression.Regression as error:
            raise typer.Exit(_report(error)) from None


def _report(error: Exception) -> int:
    typer.echo(f"Error: {error}", err=True)
    return 1
