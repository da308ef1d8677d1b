"""The captioning job as a Prefect flow: the functions of `flows.captioning.run`, each shard a task.

Importing this module imports Prefect; `veridical caption --out … --no-prefect` does without. Deployments name it as
`veridical.flows.caption:overnight`. What a shard has written is on disk and in the ledger, so Prefect keeps no
results: a run that is started again asks the ledger what is left.
"""

# no annotations as text here: Prefect hands a served flow on without the names of its module
from collections.abc import Iterator, Sequence
from typing import Any

from prefect import flow

from .captioning import run as captioning
from .captioning.request import Captioning
from .captioning.watch import UNWATCHED, Watch
from .files.run_warnings import warn_once
from .prefect import artifacts, runners
from .prefect.tasks import as_task, if_files_may_return

TASKS = captioning.Steps(
    as_task(captioning.begin, retry=if_files_may_return),
    as_task(captioning.caption_shard, "shard", "shard {shard}", if_files_may_return),
    as_task(captioning.finish, retry=if_files_may_return),
)


def tasks() -> captioning.Steps:
    """The steps as tasks; where the flow runs on workers, so do all that load a model, and shards side by side."""
    if not runners.is_away():
        return TASKS
    begin = runners.elsewhere(as_task(runners.with_warnings(captioning.begin), retry=if_files_may_return))
    shard = as_task(runners.with_warnings(captioning.caption_shard), "shard", "shard {shard}", if_files_may_return)
    return captioning.Steps(begin, shard, TASKS.finish, _side_by_side)


def _side_by_side(shard: Any, out: str, numbers: Sequence[int], retry_errors: bool) -> Iterator[tuple[int, str]]:
    for place, (path, caught) in runners.spread(shard, [(out, number, retry_errors) for number in numbers]):
        warn_once(out, caught)
        yield numbers[place], path


@flow(name="caption", persist_result=False)
def overnight(
    request: Captioning, out: str, retry_errors: bool = False, watch: Watch = UNWATCHED, add: bool = False
) -> str:  # fmt: skip
    """Caption a folder, a list, a Parquet file or image files. Arguments as `captioning.captioning`."""
    with artifacts.progressing():
        return captioning.captioning(request, out, retry_errors, tasks(), watch, add)
