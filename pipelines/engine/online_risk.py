"""A detector's risk of the token that is being chosen, at each step of a run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .declarations import Branch, Step
from .record import Record, by_token, confidence
from .rows import came_from


class RunningRisk:
    """Shows a detector the record so far at every step and keeps the risk of the newest token.

    The token of the step is not chosen yet: the likeliest stands in for it. Rows are the main rows, beams included;
    what was read of a beam follows it when beams change places.

    Args:
        detector: what rates; it sees the whole record so far, as at the end of a run.
        names: its readings, reading's own name -> name under which this run reads it.
        prompt: (sample,) number of prompt tokens.
    """

    def __init__(self, detector: Any, names: dict[str, str], prompt: Int[Tensor, " sample"]) -> None:
        self.detector, self.names, self.prompt = detector, names, prompt
        self.ids: Tensor | None = None  # row position, prompt included, at the last step
        self.pending: Tensor | None = None  # row vocab, log-probabilities of the last step
        self.columns: dict[str, Tensor] = {}  # row token, without the step at hand
        self.readings: dict[str, Tensor] = {}  # row token ..., with it
        self.risks: Tensor | None = None  # row token

    def __call__(self, step: Step) -> Float[Tensor, "row token"]:
        """Risks of all tokens so far as each was rated at its own step, the one that is being chosen last."""
        if step.ids is None:
            raise ValueError("a running risk needs the tokens so far, and this step has none")
        logs, entropy, margin = confidence(step.branches["main"])
        best, token = logs.max(1, keepdim=True)
        new = step.ids[:, step.ids.shape[1] - step.index :]
        if self.ids is not None and self.pending is not None:
            origin = came_from(self.ids, step.ids[:, :-1], self.prompt.shape[0])
            self._reorder(origin)
            self._add("log_probability", self.pending[origin].gather(1, step.ids[:, -1:]))
        self.ids, self.pending = step.ids, logs
        for own, name in self.names.items():
            value = by_token(step.latest(name))
            before = self.readings.get(own)
            self.readings[own] = value if before is None else torch.cat([before, value], 1)
        record = Record(
            torch.cat([new, token], 1), new.new_ones(new.shape[0], new.shape[1] + 1, dtype=torch.bool),
            self._with("log_probability", best), self._add("entropy", entropy[:, None]),
            self._add("margin", margin[:, None]),
            self.prompt.repeat_interleave(step.ids.shape[0] // self.prompt.shape[0]), self.readings,
        )  # fmt: skip
        risk = self.detector.score(record)[:, -1:].float()
        self.risks = risk if self.risks is None else torch.cat([self.risks, risk.to(self.risks.device)], 1)
        return self.risks

    def _with(self, name: str, value: Float[Tensor, "row one"]) -> Float[Tensor, "row token"]:
        before = self.columns.get(name)
        return value if before is None else torch.cat([before, value], 1)

    def _add(self, name: str, value: Float[Tensor, "row one"]) -> Float[Tensor, "row token"]:
        self.columns[name] = self._with(name, value)
        return self.columns[name]

    def _reorder(self, origin: Int[Tensor, " row"]) -> None:
        if torch.equal(origin, torch.arange(len(origin), device=origin.device)):
            return
        follow = lambda value: value[_every_block(origin, value.shape[0]).to(value.device)]
        self.columns = {name: follow(value) for name, value in self.columns.items()}
        self.readings = {name: follow(value) for name, value in self.readings.items()}
        self.risks = None if self.risks is None else follow(self.risks)


def _every_block(origin: Int[Tensor, " row"], rows: int) -> Int[Tensor, " block_row"]:
    """The same for a reading of several row blocks."""
    count = origin.shape[0]
    starts = torch.arange(0, rows, count, device=origin.device)
    return (starts[:, None] + origin[None]).flatten()


def prefixed(declared: Iterable[Any], prefix: str) -> list[Any]:
    """Readings and branches under names that nothing else in the run has."""
    declared = list(declared)
    branches = {one.name for one in declared if isinstance(one, Branch)}
    out = []
    for one in declared:
        renamed = replace(one, name=prefix + one.name)
        if getattr(one, "branch", None) in branches:
            renamed = replace(renamed, branch=prefix + one.branch)
        out.append(renamed)
    return out
