"""The logits of a run: fold the logits edits over the main rows, force given tokens, draw one token per sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import LogitsProcessor

from ..checks import seeds_of
from ..prefill.late import LateBranch
from ..results import Acted
from .declarations import Again
from .plan import Plan
from .rows import Arrangement


class BranchLogits(Mapping[str, Tensor]):
    """Logits of the branches as one method names them; those of a branch that is read late are computed when asked for.

    every: of the run's row blocks. late: what reads the others. own: the method's names -> names in the run.
    """

    def __init__(
        self, every: Mapping[str, Tensor], late: Mapping[str, Callable[[], Tensor]], own: Mapping[str, str]
    ) -> None:
        self.every, self.late, self.own = every, late, own

    def __getitem__(self, name: str) -> Float[Tensor, "row vocab"]:
        key = self.own.get(name, name)
        return self.late[key]() if key in self.late else self.every[key]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self.every, *self.late, *self.own]))

    def __len__(self) -> int:
        return len({*self.every, *self.late, *self.own})


class Fold:
    """Split the rows into branches and fold the logits edits over the main block.

    Args:
        arranged: the rows of the run. plan: what acts inside its passes. beams: per sample. methods: their number.
        keep: keep the logits of every step. observe: called with the step and the main rows' logits.
    """

    def __init__(
        self, arranged: Arrangement, plan: Plan, beams: int, methods: int, keep: bool = False,
        observe: Callable | None = None,
    ) -> None:  # fmt: skip
        self.arranged, self.plan, self.step = arranged, plan, plan.step
        self.batch, self.beams, self.keep, self.observe = arranged.batch, beams, keep, observe
        self.logits: list[Tensor] = []
        empty: Callable[[], list[list[Tensor]]] = lambda: [[] for _ in range(methods)]  # a tensor per step of a method
        self.acts, self.flips, self.kls = empty(), empty(), empty()
        self.bad: list[Tensor] = []
        self.shared: list[Tensor] = []  # of each step: the rows in which several tokens have the highest score
        self.path: Tensor | None = None
        self.real = torch.zeros(arranged.batch, 0, dtype=torch.bool)
        self.restarts: dict[int, Float[Tensor, " sample"]] = {}  # of methods whose runs can start over
        self.late: Mapping[str, LateBranch] = {}

    def __call__(
        self, ids: Int[Tensor, "row position"], scores: Float[Tensor, "rows vocab"]
    ) -> Float[Tensor, "row vocab"]:
        """The main rows' logits after every edit. ids: the main rows' tokens; scores: of all blocks."""
        self.plan.check()
        step = self.step
        step.index += 1
        every = dict(zip(self.arranged.names, scores.chunk(len(self.arranged.names)), strict=True))
        step.branches, step.ids = every, ids
        on_request = {name: partial(self._late, branch) for name, branch in self.late.items()}
        logits = every["main"]
        moved = {method: flags[: logits.shape[0]].to(logits.device) for method, flags in self.plan.changed.items()}
        forbidden = torch.isneginf(logits)  # by the model itself
        still = torch.zeros(logits.shape[0], device=logits.device)
        flips, kls = ([still] * len(self.acts) for _ in range(2))
        for edit, method in self.arranged.edits:
            mine = self.arranged.own.get(method, {})
            step.branches, step.method, step.wanted = BranchLogits(every, on_request, mine), method, None
            try:
                before, logits = logits, edit.apply(logits, step).masked_fill(forbidden, -math.inf)
            except Again as again:
                again.method = method
                raise
            moved[method] = moved.get(method, False) | (before != logits).any(1)
            flips[method] = flips[method] + (before.argmax(1) != logits.argmax(1))
            kls[method] = kls[method] + divergence(before, logits)
        for method in range(len(self.acts)):
            self.acts[method].append(moved.get(method, still).float())
            self.flips[method].append(flips[method])
            self.kls[method].append(kls[method])
        self.plan.changed.clear()
        if self.observe is not None:
            self.observe(step, logits)
        if self.beams > 1 and self.arranged.edits:  # beams add log-probabilities: the mixed ones, normalised
            logits = logits.log_softmax(1)
        return logits

    def _late(self, branch: LateBranch) -> Float[Tensor, "row vocab"]:
        """Logits of a branch that is read late, in the rows that are wanted and go on."""
        step = self.step
        assert step.ids is not None
        wanted = step.wanted
        if step.ended is not None and bool(step.ended.any()):
            wanted = ~step.ended if wanted is None else wanted & ~step.ended.to(wanted.device)
        return branch.logits(step.ids[:, step.ids.shape[1] - step.index :], wanted)

    def chosen_from(self, logits: Float[Tensor, "row vocab"], scores: Float[Tensor, "row vocab"]) -> None:
        """Keep what belongs to a run's record. scores: behind every processor; logits: see `Choice`."""
        highest = scores.amax(1)
        self.bad.append(~highest.isfinite())
        self.shared.append((scores == highest[:, None]).sum(1) > 1)
        if self.keep:
            self.logits.append(logits.float().clone())

    def finish(self, lengths: Int[Tensor, " sample"] | None, beams: Int[Tensor, "sample step"] | None = None) -> None:
        """Which tokens were returned. lengths: their number; with beams instead the row that each was chosen in."""
        steps = len(self.bad)
        if beams is None:
            rows = torch.arange(self.batch)
            count = torch.full_like(rows, steps) if lengths is None else lengths.cpu()
            self.path = rows[:, None].expand(-1, steps)
            self.real = torch.arange(steps) < count[:, None]
        else:
            self.path, self.real = beams.cpu().long().clamp(min=0), (beams >= 0).cpu()

    @property
    def broken(self) -> Bool[Tensor, " sample"]:
        """Samples with a step at which no number was left to choose by."""
        if not self.bad:
            return torch.zeros(self.batch, dtype=torch.bool)
        bad = torch.stack(self.bad, 1).cpu().unflatten(0, (self.batch, -1)).any(1)  # sample step
        return (bad[:, : self.real.shape[1]] & self.real).any(1)

    @property
    def tied(self) -> Int[Tensor, " sample"]:
        """Steps of each sample at which several tokens had the highest score."""
        if not self.shared:
            return torch.zeros(self.batch, dtype=torch.long)
        shared = torch.stack(self.shared, 1).cpu()
        return (shared[:, : self.real.shape[1]] & self.real).sum(1)

    def acted(self, method: int) -> Acted:
        steps = self.real.sum(1).float()
        acts, flips, kls = (self._along(values[method]) for values in (self.acts, self.flips, self.kls))
        return Acted(steps, acts, flips, kls / steps.clamp(min=1), self.restarts.get(method))

    def _along(self, values: Sequence[Float[Tensor, " row"]]) -> Float[Tensor, " sample"]:
        """The sum along each returned text of what its steps have, in their order, which fixes the last digit."""
        total = torch.zeros(self.batch)
        if not values or self.path is None:
            return total
        table = torch.stack(list(values)).cpu().float()  # step row
        for step in (table[torch.arange(self.path.shape[1]), self.path] * self.real).unbind(1):
            total = total + step
        return total


def divergence(before: Float[Tensor, "row vocab"], after: Float[Tensor, "row vocab"]) -> Float[Tensor, " row"]:
    """KL(after ‖ before) in nats; a token that is cut after adds nothing."""
    log_after, log_before = after.float().log_softmax(1), before.float().log_softmax(1)
    terms = torch.where(log_after > -math.inf, log_after.exp() * (log_after - log_before), 0.0)
    return terms.nan_to_num(0.0, posinf=0.0).sum(1)


class MainRows:
    """A streamer that hands the main rows' tokens on and leaves the branches' away."""

    def __init__(self, streamer: Any, batch: int) -> None:
        self.streamer, self.batch = streamer, batch

    def put(self, value: Tensor) -> None:
        self.streamer.put(value[: self.batch])

    def end(self) -> None:
        self.streamer.end()


class Draw(LogitsProcessor):
    """Draw one token per sample, the same in every branch, from a generator of the sample's own.

    A sample's tokens depend on its seed alone, not on what else is in the batch.
    """

    def __init__(self, blocks: int, batch: int, seed: int | Sequence[int] | None) -> None:
        if seed is None:
            seed = int(torch.randint(2**31, (1,)))
        self.blocks = blocks
        self.generators = [torch.Generator().manual_seed(one) for one in seeds_of(seed, batch, "sample")]

    def __call__(
        self, input_ids: Int[Tensor, "row position"], scores: Float[Tensor, "row vocab"]
    ) -> Float[Tensor, "row vocab"]:
        main = scores.chunk(self.blocks)[0]
        share = torch.stack([torch.rand((), generator=g, dtype=torch.float64) for g in self.generators])
        order = main.sort(dim=1, descending=True)
        total = order.values.double().softmax(1).cumsum(1)
        rank = torch.searchsorted(total, share[:, None].to(main.device) * total[:, -1:], right=True)
        token = order.indices.gather(1, rank.clamp(max=main.shape[1] - 1))
        chosen = torch.full_like(main, -math.inf).scatter(1, token, 0.0)
        return chosen.repeat(self.blocks, 1)


class Forced(LogitsProcessor):
    """Leaves one token possible as long as a row's given beginning lasts; branches follow their row.

    Steps are counted, so that it serves one run, whatever the prompts' lengths are.

    Args:
        beginnings: one per main row, of any lengths.
    """

    def __init__(self, beginnings: Sequence[Sequence[int]]) -> None:
        self.beginnings, self.step = [list(one) for one in beginnings], -1

    def __call__(
        self, input_ids: Int[Tensor, "row position"], scores: Float[Tensor, "row vocab"]
    ) -> Float[Tensor, "row vocab"]:
        self.step += 1
        held = [row for row, one in enumerate(self.beginnings) if self.step < len(one)]
        if not held:
            return scores
        blocks, size = scores.shape[0] // len(self.beginnings), len(self.beginnings)
        rows = torch.tensor([block * size + row for block in range(blocks) for row in held], device=scores.device)
        tokens = torch.tensor([self.beginnings[row][self.step] for row in held] * blocks, device=scores.device)
        out = scores.clone()
        out[rows] = -torch.inf
        out[rows, tokens] = 0.0
        return out
