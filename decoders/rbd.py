"""Re-Balancing Contrastive Decoding (RBD): our reading of its abstract.

Liang, Yu et al., "Mitigating Hallucination in Visual-Language Models via Re-Balancing Contrastive Decoding",
PRCV 2024, arXiv 2409.06485.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..pipelines.engine.declarations import Branch, Declaration, LogitsEdit, Step
from ..pipelines.method import count, number, seed, share
from .contrast import Contrast
from .diffusion import STEPS, diffused
from .image_tokens import blank_branch, prompt_attention
from .plausibility import cut

if TYPE_CHECKING:
    from ..pipelines.model.layout import Inputs, Layout


def rebalance(
    logits: Float[Tensor, "batch vocab"], with_tokens: Float[Tensor, "batch vocab"],
    noised: Float[Tensor, "batch vocab"], visual: float, textual: float,
) -> Float[Tensor, "batch vocab"]:  # fmt: skip
    """l + visual·(l_vis − l) + textual·(l − l_txt); a token that l rules out stays out."""
    mixed = (1 - visual + textual) * logits + visual * with_tokens - textual * noised
    return torch.where(logits.isneginf(), logits, mixed)


def significant(
    attention: Float[Tensor, "batch image"], real: Bool[Tensor, "batch image"], keep: float
) -> Bool[Tensor, "batch image"]:
    """The ⌈keep·N⌉ of a sample's N image tokens with most attention; of equals, the earlier."""
    order = attention.float().masked_fill(~real, -math.inf).argsort(dim=1, descending=True, stable=True)
    wanted = (keep * real.sum(1, keepdim=True).double() - 1e-9).ceil()
    rank = torch.arange(real.shape[1], device=real.device).expand_as(order)
    return torch.zeros_like(real).scatter(1, order, rank < wanted) & real


@dataclass(frozen=True)
class RBD(Contrast):
    r"""Our reading of an abstract: toward the significant image tokens, away from a noised image.

    z = l + visual·(l_vis − l) + textual·(l − l_txt),   then z[v] = −inf where p(v) < β·max p

    l: (batch, vocab) logits for the image. l_txt: for the diffused image (VCD's schedule, `noise_step`, `seed`). l_vis:
    for the image in which only the ⌈keep·N⌉ image tokens with most attention keep their embeddings; the others are
    zeros, positions unchanged. Attention is the mean over all layers and heads of the last prompt row, taken once. β:
    `beta`.

    Raises:
        ValueError: a value outside its range.

    The paper's method section could not be read and no code was released: the formula, the choice of tokens and every
    default are ours. The abstract says only that there is a textual branch with a noised image and a visual branch
    with selected significant tokens, both combined with the base prediction. Nothing that this class yields is a
    result of that paper.
    """

    visual: float = number(0.5, "weight of the significant tokens", "0 leaves that branch out.")
    textual: float = number(1.0, "weight of the contrast with the noised image", "0 leaves that branch out.")
    beta: float = share(0.1, "plausibility cut", "0 is no cut.")
    keep: float = share(0.5, "share of image tokens that keep their embeddings", low=1e-6)
    noise_step: int = count(500, "diffusion step of the noise, counted from 0", high=STEPS - 1)
    seed: int = seed()

    against = "a noised image and significant tokens"
    weighs = ("visual", "textual")
    neutral = {"visual": 0, "textual": 0, "beta": 0}
    faint = {"visual": 1e-7, "textual": 1e-7}
    released = {}  # no code was released

    def edits(self, lvlm: Layout, inputs: Inputs) -> Iterator[Declaration]:
        if self.textual:
            yield Branch("rbd_textual", diffused(inputs, self.noise_step, self.seed))
        if self.visual:
            attention, real = prompt_attention(lvlm, inputs)
            yield Branch("rbd_visual", inputs)
            blanked = real & ~significant(attention.mean(0), real, self.keep)
            yield from blank_branch(lvlm, "rbd_visual", blanked, "zeros")
        yield LogitsEdit(self.mix)

    def mix(self, logits: Float[Tensor, "batch vocab"], step: Step) -> Float[Tensor, "batch vocab"]:
        with_tokens = step.branches["rbd_visual"] if self.visual else logits
        noised = step.branches["rbd_textual"] if self.textual else logits
        return cut(rebalance(logits, with_tokens, noised, self.visual, self.textual), logits, self.beta)
