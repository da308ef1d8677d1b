"""What detectors rate: the readings of every produced token, and the model's confidence in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from .declarations import Step
from .deferred_readings import STEPS, DeferredReadings

VALUES = 2**20  # of logits that are kept until a confidence is worked out; at least those of one step
TOGETHER = 16  # steps whose logits are summed up at once


@dataclass
class Record:
    """The readings of a run, one entry per produced token.

    readings: name -> (sample, token, layer, ...), of a total (sample, 1, layer, ...); a reading of every row block has
    blocks × samples in front.
    ids, mask: the tokens and which of them are real. log_probability, entropy, margin: of the model's own next-token
    distribution before any contrast, cut or temperature; nats. prompt: number of prompt tokens.
    """

    ids: Int[Tensor, "sample token"]
    mask: Bool[Tensor, "sample token"]
    log_probability: Float[Tensor, "sample token"]
    entropy: Float[Tensor, "sample token"]
    margin: Float[Tensor, "sample token"]
    prompt: Int[Tensor, " sample"]
    readings: dict[str, Tensor] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.readings:
            raise KeyError(f"no reading {name!r} in this record; there are: {', '.join(self.readings) or 'none'}")
        return self.readings[name]


class Recorded(Record):
    """The record of a run, in which the model's confidence is worked out when a detector reads it."""

    def __init__(
        self, ids: Int[Tensor, "sample token"], mask: Bool[Tensor, "sample token"], prompt: Int[Tensor, " sample"],
        readings: dict[str, Tensor], confidence: Callable[[], tuple[Tensor, Tensor, Tensor]],
    ) -> None:  # fmt: skip
        self.ids, self.mask, self.prompt, self.readings, self._compute = ids, mask, prompt, readings, confidence

    @cached_property
    def _confidence(self) -> tuple[Tensor, Tensor, Tensor]:
        return self._compute()

    @cached_property
    def log_probability(self) -> Float[Tensor, "sample token"]:  # type: ignore[override]
        return self._confidence[0]

    @cached_property
    def entropy(self) -> Float[Tensor, "sample token"]:  # type: ignore[override]
        return self._confidence[1]

    @cached_property
    def margin(self) -> Float[Tensor, "sample token"]:  # type: ignore[override]
        return self._confidence[2]


def confidence(
    logits: Float[Tensor, "*rows vocab"],
) -> tuple[Float[Tensor, "*rows vocab"], Float[Tensor, "*rows"], Float[Tensor, "*rows"]]:
    """(log-probabilities, entropy, margin) of logits; the margin is the largest minus the second probability."""
    logs = logits.float().log_softmax(-1)
    share = logs.exp()
    entropy = -logs.clamp(min=torch.finfo(logs.dtype).min).mul_(share).sum(-1)  # a forbidden token adds 0, not NaN
    best, which = share.max(-1, keepdim=True)
    second = share.scatter_(-1, which, -1).amax(-1)  # with `entr` and `topk` all this takes nearly three times as long
    return logs, entropy, best[..., 0] - second


def real(ids: Int[Tensor, "row token"], ends: Sequence[int]) -> Bool[Tensor, "row token"]:
    """Which tokens come no later than the first end token."""
    ended = torch.isin(ids, torch.tensor(tuple(ends), device=ids.device)) if ends else torch.zeros_like(ids).bool()
    return ended.cumsum(1) - ended.long() == 0


def by_token(latest: Shaped[Tensor, "layer row token ..."]) -> Shaped[Tensor, "row token layer ..."]:
    """A reading with its layers behind its tokens."""
    return latest.movedim(0, 2)


class Recorder:
    """Collects a record while tokens are being chosen, a few steps at a time: many small operations cost more than few.

    names: of the readings. deferred: its deferred readings. ends: tokens that end a text. totals: names of
    those readings that are totals over it.
    """

    def __init__(
        self, names: Iterable[str], deferred: DeferredReadings, ends: Sequence[int] = (), totals: Iterable[str] = ()
    ) -> None:
        self.deferred, self.ends, self.totals = deferred, ends, frozenset(totals)
        self.parts: dict[str, dict[int, list[Tensor]]] = {name: {} for name in names}  # (row, token, ...) by layer
        self.settled: list[tuple[Tensor, Tensor, Tensor]] = []  # log-probability, entropy, margin: sample token
        self.logits: list[Tensor] = []  # sample vocab, of the steps that are not settled
        self.device: torch.device | None = None
        self.step = Step()

    def restart(self) -> None:
        """Forget the steps so far: the run starts over."""
        self.parts = {name: {} for name in self.parts}
        self.settled.clear()
        self.logits.clear()
        self.deferred.restart()

    def __call__(self, step: Step, logits: Float[Tensor, "sample vocab"]) -> None:
        if self.logits and len(self.logits) >= VALUES // self.logits[0].numel():
            assert step.ids is not None
            self._settle(step.ids)
        self.device, self.step = logits.device, step
        self.logits.append(step.branches["main"])
        for name in self.parts:
            for layer, value in step.readings.pop(name, {}).items():
                if name in self.totals:
                    now = self._so_far(step)[:, -1:].repeat(len(value) // len(logits), 1)
                    value = value * now.to(value).view(-1, *[1] * (value.dim() - 1))
                self._add(name, layer, value)
        if (step.index + 1) % STEPS == 0:
            self._collect(self._so_far(step) if self.totals else None)

    def rows_leave(self) -> None:
        """Work out what is deferred: the next passes have fewer rows."""
        self._collect(self._so_far(self.step) if self.totals else None)
        self.deferred.rows_leave()

    def _so_far(self, step: Step) -> Bool[Tensor, "sample token"]:
        """Which tokens are real, the one that is being chosen, whatever it becomes, as the last."""
        assert step.ids is not None
        new = step.ids[:, step.ids.shape[1] - step.index :]
        return real(torch.cat([new, new.new_zeros(len(new), 1)], 1), self.ends)

    def _settle(self, ids: Int[Tensor, "sample position"]) -> None:
        """The confidence at the steps whose logits are kept. ids: their tokens at the end."""
        chosen = ids[:, ids.shape[1] - len(self.logits) :]
        for first in range(0, len(self.logits), TOGETHER):
            logs, entropy, margin = confidence(torch.stack(self.logits[first : first + TOGETHER], 1))
            these = chosen[:, first : first + TOGETHER, None].to(logs.device)
            self.settled.append((logs.gather(2, these)[..., 0], entropy, margin))
        self.logits.clear()

    def _collect(self, mask: Bool[Tensor, "sample token"] | None) -> None:
        for name, layer, value in self.deferred.read(mask):
            self._add(name, layer, value)

    def _add(self, name: str, layer: int, value: Shaped[Tensor, "row token ..."]) -> None:
        parts = self.parts[name].setdefault(layer, [])
        if parts and name in self.totals:
            parts[0] = parts[0] + value.to(parts[0].device)
        else:
            parts.append(value.to(self.device))

    def record(
        self, ids: Int[Tensor, "sample token"], mask: Bool[Tensor, "sample token"], prompt: Int[Tensor, " sample"]
    ) -> Record:
        """The record of the finished run."""

        def settled() -> tuple[Tensor, Tensor, Tensor]:
            self._settle(ids)
            chosen, entropy, margin = (torch.cat(values, 1) for values in zip(*self.settled, strict=True))
            return chosen, entropy, margin

        self._collect(mask)
        joined = lambda parts: torch.stack([torch.cat(parts[layer], 1) for layer in sorted(parts)], 2)
        return Recorded(ids, mask, prompt, {name: joined(parts) for name, parts in self.parts.items()}, settled)
