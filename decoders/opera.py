"""OPERA: over-trust penalty and retrospection-allocation.

Huang et al., "OPERA: Alleviating Hallucination in Multi-Modal Large Language Models via Over-Trust Penalty and
Retrospection-Allocation", CVPR 2024, arXiv 2311.17911.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..pipelines.engine.declarations import Again, Declaration, LogitsEdit, Step
from ..pipelines.engine.lookahead import Lookahead, last_rows, twin, without_cache
from ..pipelines.method import Decoder, count, number, one_of
from .retrospection import Choice, Sample, most_frequent, origins

if TYPE_CHECKING:
    from ..pipelines.engine.call import AttentionCall
    from ..pipelines.model.layout import Inputs, Layout

FACTOR = 1e-7  # in front of every product
LARGEST = 80.0  # a product's logarithm at most, so that float32 holds it
IMPOSSIBLE = -999.0  # the released code's score of a token that is no candidate


def columns(window: Float[Tensor, "*any row row"], scale: float, half: bool = False) -> Float[Tensor, "*any row"]:
    """c_j = 1e-7·Π_{i ≥ j} σ·A[i, j]: how much all that follows new token j attends to it. In log space.

    half: as the released code keeps it, in float16, without a largest value.
    """
    logs = (scale * window.float()).log()
    below = torch.ones_like(window, dtype=torch.bool).tril()
    sums = torch.where(below, logs, 0.0).sum(-2)
    return (sums + math.log(FACTOR)).exp().half().float() if half else FACTOR * sums.clamp(max=LARGEST).exp()


def penalty(
    rows: Float[Tensor, "*any query key"], image: Bool[Tensor, "... key"], new: int, scale: float, first_tokens: int,
    half: bool = False,
) -> tuple[Float[Tensor, "*any"], Int[Tensor, "*any"]]:  # fmt: skip
    """ρ and column of a text of `new` tokens, from its newest rows of attention to all that stands before.

    ρ = −Σ_{j ∈ image} of the newest row up to `first_tokens` tokens, then max_j c_j; the column is the first such j.
    """
    queries = rows.shape[-2]
    c = columns(rows[..., -queries:], scale, half)
    reward = -(rows[..., -1, :] * image).sum(-1)
    return (reward if new <= first_tokens else c.amax(-1)), c.argmax(-1) + new - queries


@dataclass(frozen=True)
class OPERA(Decoder):
    r"""Try the best few tokens of every beam, penalise over-trust in one new token, and go back when it lasts.

    z[c] = l[c] − α·ρ(c) for the N best tokens c of l, −inf elsewhere; then log softmax over what is left
    c_j = 1e-7·Π_{i ≥ j} σ·A[i, j],   ρ = max_j c_j, but −(attention to the image) for up to `first_tokens` new tokens

    A: attention among the new tokens after c was appended: last layer, largest of the heads, each row divided by its
    sum over all positions; of the newest `window` tokens. α, σ, N: `weight`, `scale`, `candidates`.

    A beam votes for the column j that most of its candidates have as their largest. When the beams' most frequent vote
    s is `first_tokens` or more, and every beam's text has voted for s more than `threshold` times, the sample goes back
    to step s + 1 and chooses there anew, without the pairs of beam and token that were selected; after `retries`
    returns to step s, after as many nowhere. Each sample decides alone. `acted` counts the `rollbacks`.

    Raises:
        ValueError: a value outside its range; when decoding starts, several beams with a single candidate, or beside
            what cannot go back (a gate, a second OPERA, a streamer).

    The paper decodes with num_beams=5; with one beam the method runs greedily, and in sampling it draws anew from where
    it went back. `mode="official"`: products in float16; votes belong to places among the beams, not to texts; the
    step that is chosen anew takes all tokens without a penalty, rejected ones only as unlikely as the least likely; and
    rejections of later steps, of other texts, stay. Not reproduced of that code: samples of a batch that decide for
    each other, one position for all under padding, errors taken for "go on", and a ranking of finished texts by length
    with the prompt. Values are the code's; of the paper, which was not opened, only these are recalled. Candidates are
    tried in the plain model, whatever other methods edit, and as slowly as HELPD's where no cache can follow. A
    return costs one plain step for each token that stays.
    """

    scale: float = number(50.0, "scale of attention to new tokens", "Code: 50.")
    candidates: int = count(5, "tokens tried per beam and step", "Several beams need 2. Code: 5.", low=1)
    weight: float = number(1.0, "weight of the penalty", "0 is plain decoding. Code: 1.")
    threshold: int = count(15, "votes for a token that are not too many yet", "Code: 15.", low=2)
    first_tokens: int = count(10, "new tokens with a reward for attention to the image", "Also the first s. Code: 10.")
    retries: int | None = count(None, "returns to one step at most", "0 never goes back. By default as `candidates`.")
    window: int = count(512, "rows of attention at most", "Code: all since the prompt.", low=1)
    mode: Literal["paper", "official"] = one_of(("paper", "official"), "whose rules")

    ahead = ("weight",)
    neutral = {"weight": 0}
    released = {"mode": "official"}

    @property
    def returns(self) -> int:
        """How often one step may be returned to."""
        return self.candidates if self.retries is None else self.retries

    @property
    def starts_over(self) -> bool:
        return self.returns > 0

    def edits(self, lvlm: Layout, inputs: Inputs) -> Iterator[Declaration]:
        yield LogitsEdit(_Search(self, twin(lvlm), inputs))


class _Search:
    """The scores of every step of a run, which may start over while this remembers."""

    def __init__(self, opera: OPERA, lvlm: Layout, inputs: Inputs) -> None:
        self.opera, self.lvlm, self.inputs, self.half = opera, lvlm, inputs, opera.mode == "official"
        self.ahead = Lookahead(lvlm, inputs, opera.window)
        self.samples = [Sample(opera.mode) for _ in inputs["input_ids"]]
        self.before: Int[Tensor, "row new"] | None = None

    def __call__(self, logits: Float[Tensor, "row vocab"], step: Step) -> Float[Tensor, "row vocab"]:
        if step.ids is None:
            raise ValueError("OPERA needs the tokens so far, and this step has none")
        at, samples = step.index, len(self.samples)
        beams = len(logits) // samples
        if beams > 1 and self.opera.candidates == 1 and not self.half:
            raise ValueError(
                f"OPERA with candidates=1 leaves {beams} beams one token each to go on with, too few to choose among: "
                "use candidates=2 or more, num_beams=1, or mode='official'"
            )
        new = step.ids[:, step.ids.shape[1] - at :]
        moved = origins(self.before if at else None, new, samples)
        for sample, origin, own in zip(self.samples, moved, new.chunk(samples), strict=True):
            sample.follow(at, origin, own[:, -1] if at else origin)
        self.before = new
        live = [row for row, sample in enumerate(self.samples) if at >= len(sample.script)]
        chosen = self.choices(logits, new, at, beams) if live else []
        back = torch.zeros(samples, dtype=torch.bool)
        ended = step.ended.view(samples, -1).all(1).tolist() if step.ended is not None else [False] * samples
        for row, sample in enumerate(self.samples):
            choice = chosen[row] if row in live else sample.script[at]
            place = self.place(sample, choice, at) if row in live and not ended[row] else None
            if place is None:
                sample.add(at, choice)
            else:
                sample.go_back(place)
                back[row] = True
        if bool(back.any()):
            raise Again(back)
        rows = zip(self.samples, logits.chunk(samples), strict=True)
        return torch.cat([sample.script[at].spread(own) for sample, own in rows])

    def place(self, sample: Sample, choice: Choice, at: int) -> int | None:
        """Where a sample returns to; nowhere from the step that it has just chosen anew."""
        opera = self.opera
        if at == sample.anew or not opera.returns:
            return None
        return sample.place(choice.votes, opera.first_tokens, opera.threshold, opera.returns)

    def choices(
        self, logits: Float[Tensor, "row vocab"], new: Int[Tensor, "row new"], at: int, beams: int
    ) -> list[Choice]:
        """Every sample's scores at this step, of the best tokens of every beam and their penalties."""
        samples, vocabulary = len(self.samples), logits.shape[1]
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        barred = torch.cat([sample.barred(at, beams, vocabulary) for sample in self.samples]).to(logits.device)
        open_ = logits if self.half else logits.masked_fill(barred, -math.inf)
        best = open_.topk(min(self.opera.candidates, vocabulary), dim=1)
        rho, column = self.judged(new, best.indices)
        z = best.values - self.opera.weight * rho.to(logits)
        rest = z.new_full((len(z), 1), IMPOSSIBLE if self.half else -math.inf)
        others = vocabulary - z.shape[1]
        level = torch.logaddexp(z.logsumexp(1, keepdim=True), rest + (math.log(others) if others else -math.inf))
        parts = zip(best.indices.chunk(samples), (z - level).chunk(samples), (rest - level).chunk(samples),
                    most_frequent(column).chunk(samples), strict=True)  # fmt: skip
        out = [Choice(*part) for part in parts]
        for row, sample in enumerate(self.samples):
            if self.half and sample.anew == at and sample.kept is not None:
                own = slice(row * beams, (row + 1) * beams)
                out[row] = self.any_token(logits[own], barred[own], sample.kept)
        return out

    def any_token(
        self, logits: Float[Tensor, "beam vocab"], barred: Bool[Tensor, "beam vocab"], votes: Int[Tensor, " beam"]
    ) -> Choice:
        """The released code's step chosen anew: all tokens, the rejected ones as unlikely as the least likely."""
        least = logits.masked_fill(logits.isneginf(), math.inf).amin(1, keepdim=True)
        scores = torch.where(barred, torch.minimum(logits, least), logits).log_softmax(1)
        every = torch.arange(logits.shape[1], device=logits.device).expand_as(logits)
        return Choice(every, scores, scores.new_full((len(scores), 1), -math.inf), votes)

    def judged(
        self, new: Int[Tensor, "row new"], tried: Int[Tensor, "row candidate"]
    ) -> tuple[Float[Tensor, "row candidate"], Int[Tensor, "row candidate"]]:
        """ρ and column of every candidate, in one cached pass or, where no cache can follow, in one for each."""
        found, opera, length = self.ahead(new, tried), self.opera, new.shape[1] + 1
        if found is not None:
            rows, image = found
            return penalty(rows, image[:, None], length, opera.scale, opera.first_tokens, self.half)
        both = without_cache(self.lvlm, self.inputs, new, tried, partial(self.newest, length))
        return both[..., 0], both[..., 1].long()

    def newest(self, new: int, call: AttentionCall) -> Float[Tensor, "batch two"]:
        """ρ and column of each row, whose last `new` positions are the text."""
        rows = last_rows(min(new, self.opera.window), call)
        rho, column = penalty(rows, call.image, new, self.opera.scale, self.opera.first_tokens, self.half)
        return torch.stack([rho.double(), column.double()], -1)
