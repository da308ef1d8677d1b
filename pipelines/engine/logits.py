"""Logits processors of a run: fold the logits edits over the main rows, and draw one token for every branch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from ..results import Acted

if TYPE_CHECKING:
    from .hooks import Plan
    from .run import Arrangement


class Fold(LogitsProcessor):
    """Split the rows into branches, fold the logits edits over the main block, give every block the result."""

    def __init__(
        self, made: Arrangement, plan: Plan, beams: int, methods: int, ends: Sequence[int], keep: bool,
        observe: Callable | None = None,
    ) -> None:  # fmt: skip
        self.made, self.plan, self.step, self.ends = made, plan, plan.step, tuple(ends)
        self.batch, self.beams, self.keep, self.observe = made.batch, beams, keep, observe
        self.logits: list[Tensor] = []
        self.broken = torch.zeros(made.batch, dtype=torch.bool)
        self.done: Tensor | None = None
        zeros = lambda: [torch.zeros(made.batch) for _ in range(methods)]
        self.steps, self.acts, self.flips, self.kls = torch.zeros(made.batch), zeros(), zeros(), zeros()

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        blocks = len(self.made.names)
        step = self.step
        step.index += 1
        every = dict(zip(self.made.names, scores.chunk(blocks), strict=True))
        step.branches = every
        step.ids = input_ids[: input_ids.shape[0] // blocks]
        alive = self._alive(step.ids)
        logits = step.branches["main"]
        moved = {method: flags[: logits.shape[0]].to(logits.device) for method, flags in self.plan.changed.items()}
        forbidden = torch.isneginf(logits)  # by processors that ran before, such as min_new_tokens
        for edit, method in self.made.edits:
            mine = self.made.own.get(method, {})
            step.branches, step.method = {**every, **{name: every[key] for name, key in mine.items()}}, method
            before, logits = logits, edit.apply(logits, step).masked_fill(forbidden, -math.inf)
            moved[method] = moved.get(method, False) | (before != logits).any(1)
            self._measure(method, before, logits, alive)
        for method, flags in moved.items():
            self.acts[method] += self._by_item(flags & alive, any_beam=True)
        self.steps += self._by_item(alive, any_beam=True)
        self.plan.changed.clear()
        self.broken |= self._by_item(~logits.amax(1).isfinite() & alive, any_beam=True).bool()
        if self.keep:
            self.logits.append(logits.float())
        if self.observe is not None:
            self.observe(step, logits)
        if self.beams > 1 and self.made.edits:  # beams add log-probabilities: the mixed ones, normalised
            logits = logits.log_softmax(1)
        return logits.repeat(blocks, 1)

    def _alive(self, ids: Tensor) -> Tensor:
        """(row,) bool: rows that have not ended before this step."""
        if self.done is None:
            self.done = torch.zeros(ids.shape[0], dtype=torch.bool, device=ids.device)
        elif self.ends and self.beams == 1:
            self.done = self.done | torch.isin(ids[:, -1], torch.tensor(self.ends, device=ids.device))
        return ~self.done

    def _measure(self, method: int, before: Tensor, after: Tensor, alive: Tensor) -> None:
        flipped = (before.argmax(1) != after.argmax(1)) & alive
        log_after, log_before = after.float().log_softmax(1), before.float().log_softmax(1)
        terms = torch.where(log_after > -math.inf, log_after.exp() * (log_after - log_before), 0.0)
        kl = torch.where(alive, terms.nan_to_num(0.0, posinf=0.0).sum(1), 0.0)
        self.flips[method] += self._by_item(flipped, any_beam=True)
        self.kls[method] += self._by_item(kl, any_beam=False)

    def _by_item(self, values: Tensor, any_beam: bool) -> Tensor:
        grouped = values.reshape(self.batch, -1).float()
        return (grouped.amax(1) if any_beam else grouped.mean(1)).cpu()

    def acted(self, method: int) -> Acted:
        return Acted(
            self.steps, self.acts[method], self.flips[method], self.kls[method] / self.steps.clamp(min=1)
        )


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
        seeds = [seed + row for row in range(batch)] if isinstance(seed, int) else list(seed)
        if len(seeds) != batch:
            raise ValueError(f"{len(seeds)} seeds for {batch} samples; give one number, or one for each sample")
        self.blocks = blocks
        self.generators = [torch.Generator().manual_seed(one) for one in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        main = scores.chunk(self.blocks)[0]
        share = torch.stack([torch.rand((), generator=g, dtype=torch.float64) for g in self.generators])
        order = main.sort(dim=1, descending=True)
        total = order.values.double().softmax(1).cumsum(1)
        rank = torch.searchsorted(total, share[:, None].to(main.device) * total[:, -1:], right=True)
        token = order.indices.gather(1, rank.clamp(max=main.shape[1] - 1))
        chosen = torch.full_like(main, -math.inf).scatter(1, token, 0.0)
        return chosen.repeat(self.blocks, 1)
