"""Steps as Prefect tasks. Importing this module imports Prefect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from . import artifacts

RETRY_SECONDS = 2


def as_task(
    step: Callable[..., Any], name: str | None = None, run_name: str | None = None,
    retry: Callable[[Exception], bool] | None = None,
) -> Any:  # fmt: skip
    """A step as a task whose result Prefect does not keep, and whose progress bars it shows.

    Args:
        name: of the task; None is the step's. run_name: of each run, with the step's arguments in braces.
        retry: whether the step is tried once more after this error; None is never.
    """

    def condition(task: Any, run: Any, state: Any) -> bool:
        try:
            state.result()
        except Exception as error:
            return retry is not None and retry(error)
        return False

    return task(
        name=name, retries=int(retry is not None), retry_delay_seconds=RETRY_SECONDS, retry_condition_fn=condition,
        cache_policy=NO_CACHE, persist_result=False, task_run_name=run_name,
    )(artifacts.watched(step))  # fmt: skip


def unless_bad_input(error: Exception) -> bool:
    """Bad input stays bad; a full disk or a lost GPU may come back."""
    from ...pipelines.model.load import CannotLoad

    return not isinstance(error, ValueError | LookupError | CannotLoad)


def if_files_may_return(error: Exception) -> bool:
    """A file system may come back; a full disk, bad input and a broken accelerator will not in two seconds."""
    from ..files.atomic import DiskFull

    return isinstance(error, OSError) and not isinstance(error, DiskFull | FileNotFoundError)
