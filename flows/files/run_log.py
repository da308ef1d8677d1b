"""The record of a run without Prefect: a line for each step in run.jsonl, in the run's own folder."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from . import atomic

RUN_LOG = "run.jsonl"


def logged(step: Callable[..., str], folder: int = 0) -> Callable[..., str]:
    """A step that adds its name, arguments, start, seconds and end to the log of its folder.

    A step that fails before there is a folder leaves none behind.

    folder: the place of the folder among the step's arguments; those behind it are in the log.
    """

    @wraps(step)
    def with_a_line(*arguments: Any) -> str:
        out, began = Path(arguments[folder]), time.perf_counter()
        line = {
            "step": step.__name__, "of": [str(one) for one in arguments[folder + 1 :]],
            "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }  # fmt: skip
        error: str | None = None
        try:
            return step(*arguments)
        except BaseException as failure:
            error = f"{type(failure).__name__}: {failure}"
            raise
        finally:
            if out.is_dir():
                seconds = round(time.perf_counter() - began, 3)
                state = "completed" if error is None else "failed"
                atomic.append(out / RUN_LOG, {**line, "seconds": seconds, "state": state, "error": error})

    return with_a_line
