"""Training and evaluating detectors as Prefect flows: the functions of `flows.detection.steps`, each a task.

Importing this module imports Prefect; `--no-prefect` and everything else does without. Deployments name the flows as
`veridical.flows.detectors:train_detector` and `veridical.flows.detectors:evaluate_detectors`.
"""

# no annotations as text here: Prefect hands a served flow on without the names of its module
from dataclasses import fields

from prefect import flow

from .detection import steps
from .detection.request import Detection
from .prefect.tasks import as_task

RUN_NAMES = {"write_texts": "write_texts {part}"}
PLAIN = steps.Steps()
TASKS = steps.Steps(
    **{one.name: as_task(getattr(PLAIN, one.name), None, RUN_NAMES.get(one.name)) for one in fields(PLAIN)}
)


@flow(name="train-detector", persist_result=False)
def train_detector(request: Detection, out: str) -> str:
    """Train a detector and evaluate it beside others."""
    return steps.detection(request, out, TASKS)


@flow(name="evaluate-detectors", persist_result=False)
def evaluate_detectors(request: Detection, out: str) -> str:
    """Evaluate detectors."""
    return steps.detection(request, out, TASKS)
