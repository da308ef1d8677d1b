"""The decoding half of HELPD: Vision-enhanced Penalty decoding (VEP), as far as it is specified.

Yuan et al., "HELPD: Mitigating Hallucination of Layouts by Hierarchical Feedback Learning with Vision-enhanced Penalty
Decoding", EMNLP 2024, arXiv 2409.20429; built on Huang et al., "OPERA", CVPR 2024, arXiv 2311.17911.
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

from ..pipelines.engine.declarations import Declaration, LogitsEdit, Step
from ..pipelines.engine.lookahead import Lookahead, last_rows, twin, without_cache
from ..pipelines.method import Decoder, count, number, one_of

if TYPE_CHECKING:
    from ..pipelines.engine.call import AttentionCall
    from ..pipelines.model.layout import Inputs, Layout

FACTOR = 1e-7  # OPERA's, in front of every product
FIRST_TOKENS = 10  # as long as the text has no more tokens, OPERA rewards attention to the image instead
LARGEST = 80.0  # a product's logarithm at most, so that float32 holds it


def text_penalty(
    window: Float[Tensor, "*any row row"], scale: float = 50.0, factor: float = FACTOR
) -> Float[Tensor, "*any"]:
    """φ = max_j factor·Π_{i ≥ j} scale·w[i, j]: over-trust in one earlier token by all that follow. In log space."""
    logs = (scale * window.float()).log()
    below = torch.ones_like(window, dtype=torch.bool).tril()
    products = torch.where(below, logs, 0.0).sum(-2).clamp(max=LARGEST).exp()
    return factor * products.amax(-1)


def vision_reward(
    window: Float[Tensor, "*any row image"], scale: float = 100.0, factor: float = FACTOR
) -> Float[Tensor, "*any"]:
    """ψ = Σ_k factor·Π_i scale·w[i, k]: image tokens that all rows of the window attend to. In log space."""
    return factor * (scale * window.float()).log().sum(-2).clamp(max=LARGEST).exp().sum(-1)


@dataclass(frozen=True)
class HELPD(Decoder):
    r"""Try each of the best few tokens; prefer those after which attention is less on the text and more on the image.

    z[c] = l[c] − weight·ρ(c) for the `candidates` most probable c, −inf elsewhere;   ρ = φ − vision_weight·ψ

    φ, ψ: `text_penalty` by `scale` and `vision_reward` by `vision_scale` of the last `window` rows of attention to
    earlier new tokens and to the image, after c was appended: last layer, largest of the heads, each row divided by its
    sum. `first_tokens="opera"`: up to 10 new tokens ρ = −(newest row's attention to the image); "vep": ρ throughout.

    Raises:
        ValueError: a value outside its range.

    Known from two summaries of the paper and from OPERA's code: the repository has no VEP, the paper could not be
    read, and β, window, the scale of ψ and the number of candidates are not stated there. Left out: HELPD's training,
    which most of its published gains include, and OPERA's rollback, which rewrites history. OPERA runs with 5 beams:
    pass num_beams=5. Candidates are tried in the plain model, whatever other methods edit: in one more pass per step,
    over the candidates alone, with a cache of their own. Slow where that cannot follow: prompt and text are read anew
    when another method has chosen a token that was not tried, and each candidate is a pass over prompt and text where a
    layer's sliding window is shorter than those, or the attention takes no mask (flash).
    """

    weight: float = number(1.0, "weight of the penalty", "0 is plain decoding. OPERA: 1.")
    vision_weight: float = number(
        1.0, "weight of the reward for attention to the image", "β; 0 is OPERA's penalty. Not known; 1 is ours."
    )
    candidates: int = count(5, "tokens tried per step", "OPERA: 5.", low=1)
    scale: float = number(50.0, "scale of attention to new tokens", "OPERA: 50.")
    vision_scale: float = number(
        100.0, "scale of attention to the image", "Not known; 100 is ours, after a file name in the repository."
    )
    window: int = count(10, "rows at most", "Not known; 10 is ours (OPERA: 512).", low=1)
    first_tokens: Literal["opera", "vep"] = one_of(("opera", "vep"), "whose rule for the first tokens")

    ahead = ("weight",)
    neutral = {"weight": 0}
    released = {"vision_weight": 0.0, "window": 512}  # its scripts run OPERA's penalty: no reward, all rows

    def edits(self, lvlm: Layout, inputs: Inputs) -> Iterator[Declaration]:
        other = twin(lvlm)
        yield LogitsEdit(partial(self.rescore, other, inputs, Lookahead(other, inputs, self.window)))

    def rescore(
        self, lvlm: Layout, inputs: Inputs, ahead: Lookahead, logits: Float[Tensor, "row vocab"], step: Step
    ) -> Float[Tensor, "row vocab"]:
        best = logits.topk(min(self.candidates, logits.shape[1]), dim=1)
        if step.ids is None:
            raise ValueError("HELPD needs the tokens so far, and this step has none")
        new = step.ids[:, step.ids.shape[1] - step.index :]
        found = ahead(new, best.indices)
        rho = self.uncached(lvlm, inputs, new, best.indices) if found is None else self.judge(*found, new.shape[1] + 1)
        return torch.full_like(logits, -math.inf).scatter(1, best.indices, best.values - self.weight * rho.to(logits))

    def judge(
        self, rows: Float[Tensor, "row candidate query key"], image: Bool[Tensor, "row key"], new: int
    ) -> Float[Tensor, "row candidate"]:
        """ρ of every candidate from the newest rows of attention, of texts of `new` tokens."""
        text, image_rows = rows[..., -rows.shape[2] :], rows * image[:, None, None]
        return self.penalty(text.flatten(0, 1), image_rows.flatten(0, 1), new).view(rows.shape[:2])

    def uncached(
        self, lvlm: Layout, inputs: Inputs, new: Int[Tensor, "row new"], tried: Int[Tensor, "row candidate"]
    ) -> Float[Tensor, "row candidate"]:
        """ρ of every candidate, each from a pass over prompt and whole text."""
        return without_cache(lvlm, inputs, new, tried, partial(self.newest, new.shape[1] + 1))

    def newest(self, new: int, call: AttentionCall) -> Float[Tensor, " batch"]:
        """ρ of each row, whose last `new` positions are the text."""
        rows = last_rows(min(new, self.window), call)
        return self.penalty(rows[..., -rows.shape[1] :], rows * call.image[:, None, :], new)

    def penalty(
        self, text: Float[Tensor, "batch row row"], image: Float[Tensor, "batch row key"], new: int
    ) -> Float[Tensor, " batch"]:
        """ρ of a window of attention to new tokens and to the image, of a text of `new` tokens."""
        if self.first_tokens == "opera" and new <= FIRST_TOKENS:
            return -image[:, -1].sum(-1)
        reward = vision_reward(image, self.vision_scale) if self.vision_weight else 0.0
        return text_penalty(text, self.scale) - self.vision_weight * reward
