"""What detectors get to see: the readings of every produced token, and how sure the model was of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .declarations import Step


@dataclass
class Record:
    """The readings of a run, one entry per produced token.

    readings: name -> (sample, token, layer, ...); a reading of every row block has blocks × samples in front.
    ids, mask: (sample, token), the tokens and which of them are real. log_probability, entropy, margin: (sample,
    token), of the model's own next-token distribution before any contrast, cut or temperature; nats.
    prompt: (sample,) number of prompt tokens.
    """

    ids: Tensor
    mask: Tensor
    log_probability: Tensor
    entropy: Tensor
    margin: Tensor
    prompt: Tensor
    readings: dict[str, Tensor] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.readings:
            raise KeyError(f"no reading {name!r} in this record; there are: {', '.join(self.readings) or 'none'}")
        return self.readings[name]


def sureness(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(log-probabilities, entropy, margin) of logits (..., vocab); margin is the best minus the second probability."""
    logs = logits.float().log_softmax(-1)
    best = logs.topk(2, dim=-1).values.exp()
    entropy = -torch.where(logs > -torch.inf, logs.exp() * logs, 0.0).sum(-1)
    return logs, entropy, best[..., 0] - best[..., 1]


def by_token(latest: Tensor) -> Tensor:
    """(layer, sample, token, ...) -> (sample, token, layer, ...)."""
    return latest.movedim(0, 2)


class Recorder:
    """Collects a record while tokens are being chosen, one step at a time; keeps nothing of vocabulary size."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = list(names)
        self.steps: dict[str, list[Tensor]] = {name: [] for name in self.names}
        self.log_probabilities: list[Tensor] = []
        self.entropies: list[Tensor] = []
        self.margins: list[Tensor] = []
        self.pending: Tensor | None = None

    def __call__(self, step: Step, logits: Tensor) -> None:
        if self.pending is not None and step.ids is not None:
            self._settle(step.ids[:, -1])
        self.pending, entropy, margin = sureness(step.branches["main"])
        self.entropies.append(entropy)
        self.margins.append(margin)
        for name in self.names:
            self.steps[name].append(by_token(step.latest(name)).to(logits.device))

    def _settle(self, token: Tensor) -> None:
        if self.pending is not None:
            self.log_probabilities.append(self.pending.gather(1, token[:, None])[:, 0])

    def record(self, ids: Tensor, mask: Tensor, prompt: Tensor) -> Record:
        """The record of the finished run. ids, mask: (sample, token)."""
        if len(self.log_probabilities) < ids.shape[1]:
            self._settle(ids[:, -1])
        count = ids.shape[1]
        stacked = lambda values: torch.stack(values[:count], dim=1)
        readings = {name: torch.cat(values[:count], dim=1) for name, values in self.steps.items()}
        return Record(
            ids, mask, stacked(self.log_probabilities), stacked(self.entropies), stacked(self.margins), prompt, readings
        )
