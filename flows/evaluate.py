"""The evaluation as a Prefect flow: the functions of `flows.evaluation.steps`, each a task.

Importing this module imports Prefect; `veridical evaluate --no-prefect` and everything else does without. Deployments
name it as `veridical.flows.evaluate:evaluate`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from .evaluation import steps
from .prefect import artifacts, runners


def worth_trying_again(task: Any, run: Any, state: Any) -> bool:
    """Bad input stays bad; a full disk or a lost GPU may come back."""
    from ..pipelines.model.load import CannotLoad

    try:
        state.result()
    except (ValueError, LookupError, CannotLoad):
        return False
    except Exception:
        return True
    return False


def as_task(step: Callable[..., Any], name: str | None = None) -> Any:
    """A step as a task that Prefect tries twice and whose result it does not keep; its bars are shown in Prefect."""
    return task(
        retries=1, retry_delay_seconds=2, retry_condition_fn=worth_trying_again, cache_policy=NO_CACHE,
        persist_result=False, task_run_name=name,
    )(artifacts.watched(step))  # fmt: skip


TASKS = steps.Steps(
    as_task(steps.prepare), as_task(steps.answer, "answer {benchmark} {decoder}"), as_task(steps.score),
    as_task(steps.report),
)  # fmt: skip


def tasks() -> steps.Steps:
    """The steps as tasks; where the flow runs on workers, every decoder and benchmark is asked on one of them."""
    if not runners.is_away():
        return TASKS
    waiting: list[Any] = []

    def answer(*arguments: Any) -> str:
        waiting.append(TASKS.answer.submit(*arguments))  # type: ignore[attr-defined]
        return ""

    def score(out: str) -> str:
        for one in waiting:
            one.result()
        return TASKS.score(out)

    prepare = runners.elsewhere(as_task(runners.with_warnings(steps.prepare)))
    return steps.Steps(prepare, answer, score, TASKS.report)


@flow(name="evaluate", persist_result=False)
def evaluate(
    model: str = "embedded", decoders: list[str] = ["greedy"], detectors: list[str] = [],  # noqa: B006 - never changed
    benchmarks: list[str] = ["pope", "chair"], limit: int = 500, seed: int = 0,  # noqa: B006
    out: str = "runs/evaluation", batch_size: int = 16, coco: str | None = None, split: str | None = None,
    synonyms: str | None = None, device: str = "auto", dtype: str = "auto", revision: str | None = None,
    generation: dict[str, Any] | None = None, protocol: dict[str, Any] | None = None,
    quantization: str | None = None, attention: str | None = None,
) -> str:  # fmt: skip
    """Ask a model with each decoder in turn, score the answers, write the report. Arguments as `steps.evaluation`."""
    folder = steps.evaluation(
        model, decoders, detectors, benchmarks, limit, seed, out, batch_size, coco, split, synonyms, device, dtype,
        revision, generation, protocol, tasks(), quantization, attention,
    )  # fmt: skip
    artifacts.publish(Path(folder))
    return folder
