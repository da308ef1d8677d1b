"""Small evaluations for tests: a request from fields of its three parts, by name."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from veridical.flows.benchmarks.base import Source
from veridical.flows.evaluation import steps
from veridical.flows.evaluation.request import Evaluation
from veridical.pipelines.model.spec import ModelSpec


def request(model: str = "embedded", **named: Any) -> Evaluation:
    """A request; each field goes where it belongs: to the model, to the source, or to the request itself."""
    part = lambda cls: {f.name: named.pop(f.name) for f in fields(cls) if f.name in named and f.name != "name"}
    source, spec = Source(**part(Source)), ModelSpec(model, **part(ModelSpec))
    return Evaluation(spec, source=source, **named)


def evaluate(out: str | Path, parts: steps.Steps | None = None, **named: Any) -> Path:
    """The folder of an evaluation that ran in this process, without Prefect."""
    return Path(steps.evaluation(request(**named), str(out), parts or steps.Steps()))
