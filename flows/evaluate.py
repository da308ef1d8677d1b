"""The evaluation as a Prefect flow: the functions of `flows.steps`, each a task.

Importing this module imports Prefect; `veridical evaluate --no-prefect` and everything else does without. Deployments
name it as `veridical.flows.evaluate:evaluate`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from . import steps


def _worth_trying_again(task: Any, run: Any, state: Any) -> bool:
    """Bad input stays bad; a full disk or a lost GPU may come back."""
    from ..pipelines.load import CannotLoad

    try:
        state.result()
    except (ValueError, LookupError, CannotLoad):
        return False
    except Exception:
        return True
    return False


def _as_task(step: Callable[..., str]) -> Callable[..., str]:
    name = "answer {benchmark} {decoder}" if step is steps.answer else None
    return task(
        retries=1, retry_delay_seconds=2, retry_condition_fn=_worth_trying_again, cache_policy=NO_CACHE,
        persist_result=False, task_run_name=name,
    )(step)  # fmt: skip


TASKS = steps.Steps(*(_as_task(step) for step in (steps.prepare, steps.answer, steps.score, steps.report)))


@flow(name="evaluate", persist_result=False)
def evaluate(
    model: str = "embedded", decoders: list[str] = ["greedy"], detectors: list[str] = [],  # noqa: B006 - never changed
    benchmarks: list[str] = ["pope", "chair"], limit: int = 500, seed: int = 0,  # noqa: B006
    out: str = "runs/evaluation", batch_size: int = 16, coco: str | None = None, split: str | None = None,
    synonyms: str | None = None, device: str = "auto", dtype: str = "auto", revision: str | None = None,
    generation: dict[str, Any] | None = None,
) -> str:  # fmt: skip
    """Ask a model with each decoder in turn, score the answers, write the report. Arguments as `steps.evaluation`."""
    return steps.evaluation(
        model, decoders, detectors, benchmarks, limit, seed, out, batch_size, coco, split, synonyms, device, dtype,
        revision, generation, TASKS,
    )  # fmt: skip
