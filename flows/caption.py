"""The captioning job as a Prefect flow: the functions of `flows.captioning.run`, each shard a task.

Importing this module imports Prefect; `veridical caption --out … --no-prefect` does without. Deployments name it as
`veridical.flows.caption:overnight`. What a shard has written is on disk and in the ledger, so Prefect keeps no
results: a run that is started again asks the ledger what is left.
"""

# no annotations as text here: Prefect hands a served flow on without the names of its module
import dataclasses
import warnings
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any

from prefect import flow

from .captioning import run as captioning
from .captioning.request import Captioning
from .captioning.watch import UNWATCHED, Watch
from .files.run_warnings import warn_once
from .prefect import artifacts, flow_runs, runners, telemetry
from .prefect.tasks import as_task, if_files_may_return

TASKS = captioning.Steps(
    as_task(captioning.begin, retry=if_files_may_return),
    as_task(captioning.caption_shard, "shard", "shard {shard}", if_files_may_return),
    as_task(captioning.report.attend, retry=if_files_may_return),
    as_task(captioning.finish, retry=if_files_may_return),
)


def tasks() -> captioning.Steps:
    """The steps as tasks; where the flow runs on workers, so do all that load a model, and shards side by side."""
    if not runners.is_away():
        return TASKS
    begin = runners.elsewhere(as_task(runners.with_warnings(captioning.begin), retry=if_files_may_return))
    shard = as_task(runners.with_warnings(captioning.caption_shard), "shard", "shard {shard}", if_files_may_return)
    attend = as_task(runners.with_warnings(captioning.report.attend), retry=if_files_may_return)
    return captioning.Steps(begin, shard, partial(_on_a_worker, attend), TASKS.finish, _side_by_side)


def _on_a_worker(step: Any, out: str) -> str:
    path, caught = step.submit(out).result()
    warn_once(out, caught)
    return path


def _side_by_side(shard: Any, out: str, numbers: Sequence[int], retry_errors: bool) -> Iterator[tuple[int, str]]:
    for place, (path, caught) in runners.spread(shard, [(out, number, retry_errors) for number in numbers]):
        warn_once(out, caught)
        yield numbers[place], path


@dataclasses.dataclass
class _Seen:
    """How far the body of a flow came. run: its flow run; away: whether on workers; path: of summary.json."""

    run: dict[str, Any] | None = None
    away: bool = False
    path: str | None = None


_SEEN: ContextVar[_Seen | None] = ContextVar("seen", default=None)


def _seen() -> _Seen:
    """A function of its own, for the body of the flow goes to workers with what it names, and no variable does."""
    return _SEEN.get() or _Seen()


@flow(name="caption", persist_result=False)
def overnight(
    request: Captioning, out: str, retry_errors: bool = False, watch: Watch = UNWATCHED, add: bool = False
) -> str:  # fmt: skip
    """Caption a folder, a list, a Parquet file or image files. Arguments as `captioning.captioning`."""
    seen = _seen()
    seen.run, seen.away = telemetry.current(), runners.is_away()
    steps = tasks()
    steps = dataclasses.replace(steps, begin=flow_runs.announced(steps.begin))
    try:
        with artifacts.progressing():
            seen.path = captioning.captioning(request, out, retry_errors, steps, watch, add)
    finally:
        flow_runs.forget(Path(out))
    return seen.path


def run(
    flow: Any, request: Captioning, out: str, retry_errors: bool, watch: Watch, add: bool, needed: bool
) -> str:  # fmt: skip
    """`overnight` in this process, whether or not Prefect's server stays: captions count, and what it misses is named.

    A flow that stops because the server is gone goes on without Prefect, but for the one whose workers are Prefect's.

    Args:
        flow: `overnight`, perhaps with a runner. needed: fail, rather than go without, if it cannot even begin.
    """
    seen = _Seen()
    token = _SEEN.set(seen)
    try:
        flow(request, out, retry_errors, watch, add)
    except Exception as error:
        stuck = seen.path is None and (seen.away or (seen.run is None and needed))
        if stuck or not telemetry.is_outage(error):
            raise
        why = f"{type(error).__name__}: {error}".partition("\n")[0]
        if seen.path is None:
            warnings.warn(f"Prefect cannot be reached ({why}); the job goes on without", telemetry.TelemetryLost, 2)
            seen.path = captioning.captioning(request, out, retry_errors, watch=watch, add=add)
        _note_end(Path(out), seen.run)
    else:
        if seen.run is not None and not telemetry.is_reachable(seen.run["api"]):
            _note_end(Path(out), seen.run)
    finally:
        _SEEN.reset(token)
    return str(seen.path)


def _note_end(out: Path, ended: dict[str, Any] | None) -> None:
    """Say that Prefect does not know of the end of a run, and keep it for the next command on the folder."""
    if ended is None:
        return
    flow_runs.note(out, ended, ended=True)
    telemetry.give_up(ended["api"])
    text = (
        f"Prefect at {ended['api']} may not know that the flow run {ended['name']} has finished, and lacks the end of "
        "its progress; the same command tells it once it is back"
    )
    warnings.warn(text, telemetry.TelemetryLost, stacklevel=3)
