"""One choice for all row blocks: processors and stopping criteria of transformers act on the main rows alone.

The order of a step: the logits edits fold all blocks into the main rows; every processor that transformers made of the
configuration, or that the caller gave, acts on these with the main prompt's tokens; the result goes to every block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteriaList

from .logits import Draw, Fold


class EndedBeams:
    """Which samples of a beam search have ended: their beams can reach nothing better than they have.

    A batch goes on as long as one of its samples does, with all of them. transformers counts this for itself; here are
    the same sums over what each step chose from, by its rules for `early_stopping` and `length_penalty`.
    """

    def __init__(self, config: Any, batch: int, longest: int) -> None:
        beams = config.num_beams
        self.early, self.penalty, self.longest = config.early_stopping, config.length_penalty, longest
        self.running = torch.zeros(batch, beams)
        self.running[:, 1:] = -1e9
        self.best = torch.full((batch, beams), -1e9)
        self.full = torch.zeros(batch, beams, dtype=torch.bool)
        self.open = torch.ones(batch, 1, dtype=torch.bool)
        self.steps = 0
        self.scores: Tensor | None = None

    @property
    def samples(self) -> Bool[Tensor, " sample"]:
        ended = ~self.open[:, 0]
        return ended | self.full.all(1) if self.early is True else ended

    def __call__(self, hits: Bool[Tensor, " candidate"]) -> None:
        """hits: the best candidates of every sample that end here, in their order, as the stopping criteria say."""
        if self.scores is None:
            return
        (batch, beams), hits = self.running.shape, hits.cpu().view(len(self.running), -1)
        sums = self.scores.cpu().float().view(batch, beams, -1) + self.running[..., None]
        sums = sums.flatten(1).topk(hits.shape[1]).values
        self.steps += 1
        finished = hits & (torch.arange(hits.shape[1]) < beams)
        barred = ~finished | ~self.open | (self.full.all(1, keepdim=True) & (self.early is True))
        merged = torch.cat([self.best, (sums / self.steps**self.penalty).masked_fill(barred, -2e9)], 1)
        self.best, order = merged.topk(beams)
        self.full = torch.cat([self.full, finished & ~barred], 1).gather(1, order)
        self.running = (sums + hits * -1e9).topk(beams).values
        length = self.longest if self.early == "never" and self.penalty > 0 else self.steps
        worst = torch.where(self.full, self.best.amin(1, keepdim=True), -1e9)
        self.open &= (self.running[:, :1] / length**self.penalty > worst).any(1, keepdim=True)


class MainCriteria(StoppingCriteriaList):
    """Stopping criteria that see the main rows behind their own prompt; the other blocks end with their main row.

    Args:
        criteria: those of the main rows. blocks: number of row blocks. shift: positions in front of the main prompt.
        scores: what the choices were made from, where transformers' own scores show the drawn token alone.
        beams: counts which samples of a beam search have ended; None counts nothing.
    """

    def __init__(
        self, criteria: Sequence[Any], blocks: int, shift: int, scores: list[Tensor] | None,
        beams: EndedBeams | None = None,
    ) -> None:  # fmt: skip
        super().__init__(criteria)
        self.beams = beams
        self.blocks, self.shift, self.scores = blocks, shift, scores
        self.pads = any(hasattr(one, "eos_token_id") for one in criteria)  # transformers then pads rows that have ended
        self.done: Bool[Tensor, " row"] | None = None
        self.lengths: Int[Tensor, " row"] | None = None

    def __call__(
        self, input_ids: Int[Tensor, "row position"], scores: Sequence[Tensor] | None, **kwargs: Any
    ) -> Bool[Tensor, " row"]:
        ids = input_ids[: input_ids.shape[0] // self.blocks, self.shift :]
        if self.scores is not None and scores is not None:
            scores = tuple(self.scores)
        elif scores is not None:
            scores = tuple(one[: one.shape[0] // self.blocks] for one in scores)
        done = super().__call__(ids, scores, **kwargs)
        if self.beams is not None:
            self.beams(done)
        if self.done is None or self.lengths is None:
            self.done, self.lengths = torch.zeros_like(done), torch.zeros_like(done, dtype=torch.long)
        self.lengths = self.lengths + ~self.done
        self.done = self.done | done if self.pads else self.done
        return done.repeat(self.blocks)

    @property
    def max_length(self) -> int | None:
        found = super().max_length
        return None if found is None else found + self.shift


class Choice(LogitsProcessor):
    """The one processor of a run: fold, then the processors of the main rows, then one draw, for every block.

    Where the processors forbid every token that a method's cut has left in a row, the cut gives way: that row's step
    goes by the model's own logits, under the same processors, which are then called once more.

    Args:
        fold: the logits edits. processors: of the main rows. shift: positions in front of the main prompt.
        draw: draws one token per sample; None leaves that to transformers.
        own: the caller's own processors; `fold.logits` has what stands in front of the first of them.
        scores: where what the draw chooses from is kept; None keeps nothing.
    """

    def __init__(
        self, fold: Fold, processors: Sequence[Any], shift: int, draw: Draw | None, own: Sequence[Any] = (),
        scores: list[Tensor] | None = None,
    ) -> None:  # fmt: skip
        self.fold, self.processors, self.shift, self.draw, self.scores = fold, list(processors), shift, draw, scores
        self.stops: MainCriteria | None = None  # the criteria of the run, where a method asks which samples have ended
        self.blocks = len(fold.arranged.names)
        last = lambda one: any(one is mine for mine in own) or type(one).__name__.endswith("LogitsWarper")
        self.until = next((at for at, one in enumerate(self.processors) if last(one)), len(self.processors))

    def __call__(
        self, input_ids: Int[Tensor, "row position"], scores: Float[Tensor, "row vocab"]
    ) -> Float[Tensor, "row vocab"]:
        rows = scores.shape[0] // self.blocks
        ids = input_ids[:rows, self.shift :]
        if self.stops is not None:
            beams = self.stops.beams
            self.fold.step.ended = self.stops.done if beams is None else beams.samples.to(scores.device)
        mixed = self.fold(ids, scores)
        kept, out = self._processed(ids, mixed)
        if self.fold.arranged.edits:
            lost = (out.isneginf().all(1) & ~mixed.isneginf().all(1))[:, None]
            if bool(lost.any()):
                again = self._processed(ids, scores[:rows])
                kept, out = (torch.where(lost, new, old) for new, old in zip(again, (kept, out), strict=True))
        self.fold.chosen_from(kept, out)
        if self.stops is not None and self.stops.beams is not None:
            self.stops.beams.scores = out
        if self.scores is not None:
            self.scores.append(out)
        if self.draw is not None:
            out = self.draw(ids, out)
        return out.repeat(self.blocks, 1) if self.blocks > 1 else out

    def _processed(
        self, ids: Int[Tensor, "row position"], scores: Float[Tensor, "row vocab"]
    ) -> tuple[Float[Tensor, "row vocab"], Float[Tensor, "row vocab"]]:
        """Scores in front of the caller's own processors and of temperature, and scores behind all of them.

        What a method has cut stays cut where a processor's arithmetic of −∞ gives no number.
        """
        cut = scores.isneginf() if self.fold.arranged.edits and self.processors else None
        scores = kept = scores.clone() if self.processors else scores  # some processors write into what they get
        for at, processor in enumerate(self.processors):
            if at == self.until:
                kept = scores.clone()
            scores = LogitsProcessorList([processor])(ids, scores)  # type: ignore[arg-type]
            if cut is not None:
                scores = scores.masked_fill(cut & ~scores.isfinite(), -math.inf)
        return (scores if self.until == len(self.processors) else kept), scores
