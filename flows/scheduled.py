"""The evaluation on a schedule: known answers are reused, and the run fails when a figure is worse than in the last
good run.

Importing this module imports Prefect. Deployments name it as `veridical.flows.scheduled:scheduled`.
"""

# no annotations as text here: Prefect hands a served flow on without the names of its module
import dataclasses
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from prefect import flow, runtime
from prefect.cache_policies import CachePolicy
from prefect.context import FlowRunContext, TaskRunContext
from prefect.events import emit_event

from . import evaluate
from .evaluation import answer_file, history, regression, steps
from .evaluation.request import MANIFEST, Evaluation
from .files import atomic
from .prefect import artifacts, cache_key
from .prefect.tasks import as_task, unless_bad_input

EVENT = "veridical.regression"


@dataclasses.dataclass
class SameAnswers(CachePolicy):
    """Two tasks have the same answers if all that `keys.answers_key` names is the same, whatever their folders."""

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **kwargs: Any
    ) -> str:
        return f"veridical-answers-{cache_key.answers_key(inputs['out'], inputs['benchmark'], inputs['decoder'])}"


def _answers(out: str, benchmark: str, decoder: str) -> dict[str, Any]:
    """The file of answers, its SHA-256, and its number of errors: all that Prefect keeps of them."""
    path = Path(steps.answer(out, benchmark, decoder)).resolve()
    errors = sum(row["error"] is not None for row in answer_file.read_rows(path))
    return {"path": str(path), "sha256": atomic.digest(path), "errors": errors}


ANSWERS = as_task(_answers, "answers", "answers {benchmark} {decoder}", unless_bad_input).with_options(
    cache_policy=SameAnswers(), persist_result=True
)


def answer(out: str, benchmark: str, decoder: str, fresh: bool = False) -> str:
    """The answers in this run's folder: generated, or copied from the run that generated them. Returns the file.

    An earlier file that is gone, that has changed, or that holds errors does not count.

    Args:
        fresh: generate them in any case.
    """
    path = answer_file.answers_path(out, benchmark, decoder)
    known = ANSWERS.with_options(refresh_cache=fresh)(out, benchmark, decoder)
    source = Path(known["path"])
    if source == path.resolve():
        return str(path)
    if known["errors"] or atomic.digest(source) != known["sha256"]:
        return answer(out, benchmark, decoder, fresh=True)
    settings = atomic.read_json(Path(out) / MANIFEST)["settings"][benchmark][decoder]
    atomic.write_json(answer_file.settings_path(path), settings)
    atomic.write(path, source.read_bytes())
    return str(path)


@contextmanager
def slot(name: str | None) -> Iterator[None]:
    """Wait for a place under one of Prefect's global concurrency limits, and keep it; None needs none.

    Raises:
        ValueError: there is no such limit.
    """
    if name is None:
        yield
        return
    from prefect.client.orchestration import get_client
    from prefect.concurrency.sync import concurrency
    from prefect.exceptions import ObjectNotFound

    try:
        with get_client(sync_client=True) as client:
            client.read_global_concurrency_limit_by_name(name)
    except ObjectNotFound:
        raise ValueError(
            f"Prefect has no global concurrency limit {name!r}; make it with `prefect gcl create {name} --limit 1`."
        ) from None
    with concurrency(name, strict=True, raise_on_lease_renewal_failure=False):
        yield


def emit(run: Path, checked: regression.Checked) -> None:
    """Emit Prefect's event `veridical.regression`, for automations; Prefect adds the flow run and its deployment."""
    emit_event(
        EVENT, {"prefect.resource.id": f"veridical.evaluation.{run.parent.name}", "prefect.resource.name": str(run)},
        payload={"run": str(run), "against": checked.baseline, "worse": checked.reasons},
    )  # fmt: skip


@flow(name="scheduled evaluation", persist_result=False)
def scheduled(
    request: Evaluation, out: str = "runs/scheduled", gpu: str | None = None, fresh: bool = False,
    reports: str | None = None,
) -> str:  # fmt: skip
    """Evaluate into a new folder, publish the report, compare with the last good run. Returns the folder.

    Args:
        request: of the evaluation. out: where the runs of this schedule are.
        gpu: a global concurrency limit of Prefect's, a place of which is kept while the model is at work.
        fresh: answer everything again. reports: see `artifacts.publish`.

    Raises:
        Regression: a headline figure is worse than in the last good run, beyond its paired interval.
    """
    in_prefect = FlowRunContext.get() is not None
    name = _name()
    parts = steps.Steps()
    if in_prefect:
        parts = dataclasses.replace(evaluate.TASKS, answer=partial(answer, fresh=fresh))
    with slot(gpu if in_prefect else None):
        checked = history.run(out, name, request, parts)
    run = Path(out) / name
    artifacts.publish(run, checked, reports)
    if in_prefect and not checked.good:
        emit(run, checked)
    history.refuse(checked)
    return str(run)


def _name() -> str:
    """The folder of this flow run, the same when it is tried again."""
    due = runtime.flow_run.scheduled_start_time or history.now()
    return history.run_name(due, str(runtime.flow_run.id or os.getpid())[:8])
