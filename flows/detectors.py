"""Training and judging detectors as Prefect flows: the functions of `flows.detection.steps`, each a task.

Importing this module imports Prefect; `--no-prefect` and everything else does without. Deployments name the flows as
`veridical.flows.detectors:train_detector` and `veridical.flows.detectors:evaluate_detectors`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from .detection import steps


def _as_task(step: Callable[..., str]) -> Callable[..., str]:
    name = "write_texts {part}" if step is steps.write_texts else None
    return task(cache_policy=NO_CACHE, persist_result=False, task_run_name=name)(step)


TASKS = steps.Steps(**{one.name: _as_task(one.default) for one in fields(steps.Steps)})  # type: ignore[arg-type]


@flow(name="train-detector", persist_result=False)
def train_detector(out: str, request: dict[str, Any]) -> str:
    """Train a detector and judge it beside others. Arguments as `detection.Request`."""
    return steps.detection(out, TASKS, **request)


@flow(name="evaluate-detectors", persist_result=False)
def evaluate_detectors(out: str, request: dict[str, Any]) -> str:
    """Judge detectors. Arguments as `detection.Request`."""
    return steps.detection(out, TASKS, **request)
