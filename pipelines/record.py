"""What detectors get to see: the readings of every produced token, and how sure the model was of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .declarations import Step
from .postponed import STEPS, Postponed

VALUES = 2**20  # of logits that are kept until they are summed up; at least those of one step


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
    share = logs.exp()
    best = share.topk(2, dim=-1).values
    return logs, torch.special.entr(share).sum(-1), best[..., 0] - best[..., 1]


def by_token(latest: Tensor) -> Tensor:
    """(layer, sample, token, ...) -> (sample, token, layer, ...)."""
    return latest.movedim(0, 2)


class Recorder:
    """Collects a record while tokens are being chosen, a few steps at a time: many small operations cost more than few.

    later: where readings of attention wait.
    """

    def __init__(self, names: Iterable[str], later: Postponed) -> None:
        self.later = later
        self.parts: dict[str, dict[int, list[Tensor]]] = {name: {} for name in names}  # (row, token, ...) by layer
        self.sure: list[tuple[Tensor, Tensor, Tensor]] = []  # log-probability, entropy, margin: (sample, token) each
        self.logits: list[Tensor] = []  # (sample, vocab) of the steps that are not in `sure`
        self.device: torch.device | None = None

    def __call__(self, step: Step, logits: Tensor) -> None:
        if self.logits and len(self.logits) >= min(STEPS, VALUES // self.logits[0].numel()):
            assert step.ids is not None
            self._settle(step.ids[:, -len(self.logits) :])
        self.device = logits.device
        self.logits.append(step.branches["main"])
        for name in self.parts:
            for layer, value in step.readings.pop(name, {}).items():
                self._add(name, layer, value)
        if (step.index + 1) % STEPS == 0:
            self._collect()

    def _settle(self, chosen: Tensor) -> None:
        """How sure the model was at the steps whose tokens these are: (sample, token)."""
        logs, entropy, margin = sureness(torch.stack(self.logits, 1))
        self.sure.append((logs.gather(2, chosen.to(logs.device)[..., None])[..., 0], entropy, margin))
        self.logits.clear()

    def _collect(self) -> None:
        for name, layer, value in self.later.read():
            self._add(name, layer, value)

    def _add(self, name: str, layer: int, value: Tensor) -> None:
        self.parts[name].setdefault(layer, []).append(value.to(self.device))

    def record(self, ids: Tensor, mask: Tensor, prompt: Tensor) -> Record:
        """The record of the finished run. ids, mask: (sample, token)."""
        self._settle(ids[:, -len(self.logits) :])
        self._collect()
        joined = lambda parts: torch.stack([torch.cat(parts[layer], 1) for layer in sorted(parts)], 2)
        readings = {name: joined(parts) for name, parts in self.parts.items()}
        chosen, entropy, margin = (torch.cat(values, 1) for values in zip(*self.sure, strict=True))
        return Record(ids, mask, chosen, entropy, margin, prompt, readings)
