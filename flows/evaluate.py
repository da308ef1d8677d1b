"""The evaluation as a Prefect flow: the functions of `flows.evaluation.steps`, each a task.

Importing this module imports Prefect; `veridical evaluate --no-prefect` and everything else does without. Deployments
name it as `veridical.flows.evaluate:evaluate`.
"""

# no annotations as text here: Prefect hands a served flow on without the names of its module
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect import flow

from .evaluation import steps
from .evaluation.request import Evaluation
from .files.run_warnings import warn_once
from .prefect import artifacts, flow_runs, runners
from .prefect.tasks import as_task, unless_bad_input

TASKS = steps.Steps(
    as_task(steps.prepare, retry=unless_bad_input),
    as_task(steps.answer, run_name="answer {benchmark} {decoder}", retry=unless_bad_input),
    as_task(steps.score, retry=unless_bad_input),
    as_task(steps.attend, retry=unless_bad_input),
    as_task(steps.report, retry=unless_bad_input),
)


def tasks() -> steps.Steps:
    """The steps as tasks; where the flow has workers, each decoder and benchmark is answered on one of them."""
    if not runners.is_away():
        return TASKS
    task = as_task(runners.with_warnings(steps.answer), run_name="answer {benchmark} {decoder}", retry=unless_bad_input)
    waiting: list[Any] = []

    def answer(*arguments: Any) -> str:
        waiting.append(task.submit(*arguments))
        return ""

    def score(out: str) -> str:
        for one in waiting:
            _, caught = one.result()
            warn_once(out, caught)
        return TASKS.score(out)

    prepare = runners.elsewhere(as_task(runners.with_warnings(steps.prepare), retry=unless_bad_input))
    reading = as_task(runners.with_warnings(steps.attend), retry=unless_bad_input)

    def attend(out: str) -> str:
        folder, caught = reading.submit(out).result()
        warn_once(out, caught)
        return folder

    return steps.Steps(prepare, answer, score, attend, TASKS.report)

DEFAULT = Evaluation()


@flow(name="evaluate", persist_result=False)
def evaluate(request: Evaluation = DEFAULT, out: str = "runs/evaluation") -> str:
    """Answer benchmarks with each decoder of a request in turn, score the answers, write the report."""
    parts = tasks()
    try:
        folder = steps.evaluation(request, out, replace(parts, prepare=flow_runs.announced(parts.prepare)))
        artifacts.publish(Path(folder))
    finally:
        flow_runs.forget(Path(out))
    return folder
