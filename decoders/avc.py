"""Attentional Vision Calibration (AVC, also AvisC).

Woo et al., "Don't Miss the Forest for the Trees", Findings of ACL 2025, arXiv 2405.17820.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..pipelines.engine.declarations import Branch, Declaration, LogitsEdit, Step
from ..pipelines.method import number, one_of, ruled, share
from .contrast import Contrast, contrast
from .image_tokens import blank_branch, prompt_attention

if TYPE_CHECKING:
    from ..pipelines.model.layout import Inputs, Layout

BLANKS = ("zeros", "ones", "noise", "mask")


def choose_layers(masses: Float[Tensor, "batch layer"], gamma: float) -> Bool[Tensor, "batch layer"]:
    """The #{c < γ} + 1 layers with most image attention, at most all; c: cumulated shares, largest first (Eq. 5)."""
    share = masses.double() / masses.double().sum(1, keepdim=True).clamp(min=1e-300)
    order = share.argsort(dim=1, descending=True, stable=True)
    wanted = (share.gather(1, order).cumsum(1) < gamma).sum(1, keepdim=True) + 1
    rank = torch.arange(masses.shape[1], device=masses.device).expand_as(order)
    return torch.zeros_like(order, dtype=torch.bool).scatter(1, order, rank < wanted)


def blind_tokens(
    attention: Float[Tensor, "batch image"], real: Bool[Tensor, "batch image"], lam: float
) -> Bool[Tensor, "batch image"]:
    """a ≥ μ + λσ over a sample's own image tokens, σ with n − 1, in float32 (Eq. 7)."""
    a, count = attention.float() * real, real.sum(1, keepdim=True)
    mean = a.sum(1, keepdim=True) / count.clamp(min=1)
    variance = ((a - mean).square() * real).sum(1, keepdim=True) / (count - 1).clamp(min=1)
    return (a >= mean + lam * variance.sqrt()) & real


def find_blind(
    attention: Float[Tensor, "layer batch image"], real: Bool[Tensor, "batch image"], gamma: float, lam: float
) -> Bool[Tensor, "batch image"]:
    """Blind tokens by their attention averaged over the chosen layers."""
    a = (attention.float() * real).transpose(0, 1)  # layer batch image -> batch layer image
    chosen = choose_layers(a.sum(2), gamma)[..., None]
    return blind_tokens((a * chosen).sum(1) / chosen.sum(1), real, lam)


@dataclass(frozen=True)
class AVC(Contrast):
    r"""Push the choice away from what is likely for the few image tokens alone that soak up attention.

    z = (1 + α)·l − α·l′,   then z[v] = −inf where p(v) < β·max p

    l, l′: (batch, vocab) logits for the whole image and for its blind tokens alone; every other image embedding is
    blanked (`blank`). Blind tokens are found once, at the last prompt row: `choose_layers` by `gamma`, then
    `blind_tokens` by `lam` (Eq. 5–7). α, β: `alpha`, `beta`. Raises ValueError for a value outside its range.

    μ and σ are a sample's own; the released code's are a batch's. Its mask variant was not released: ours hides the
    tokens from every row of every layer. A sample whose l′ has a NaN keeps l (code). Code, and we, say a ≥ μ + λσ.
    """

    alpha: float = number(2.5, "strength of the contrast", "0 leaves l. Paper: 2.5 LLaVA-1.5, 3 InstructBLIP.")
    beta: float = share(0.1, "plausibility cut", "0 is no cut. Paper: 0.1.")
    gamma: float = share(0.5, "share of image attention in the chosen layers", "0 is one layer. Paper: 0.5.")
    lam: float = ruled(1.0, "deviations above the mean of a blind token", "a number", "Large: none is. Paper: 1.")
    blank: Literal["zeros", "ones", "noise", "mask"] = one_of(
        BLANKS, "what stands in for the other image tokens", "noise: normal, seeded; mask: no attention. Paper: zeros."
    )

    against = "the blind image tokens"
    neutral = {"alpha": 0, "beta": 0}
    faint = {"alpha": 1e-7}
    released = {"alpha": 1.0}  # its POPE and MME scripts; those for AMBER and LLaVA-Bench have 2.5
    by_model = {"instructblip-vicuna-7b": {"alpha": 3.0}}  # Sec. 4.1

    def edits(self, lvlm: Layout, inputs: Inputs) -> Iterator[Declaration]:
        attention, real = prompt_attention(lvlm, inputs)
        yield Branch(self.opened, inputs)
        blanked = real & ~find_blind(attention, real, self.gamma, self.lam)
        yield from blank_branch(lvlm, self.opened, blanked, self.blank)
        yield LogitsEdit(self.mix)

    def mixed(
        self, logits: Float[Tensor, "batch vocab"], other: Float[Tensor, "batch vocab"], step: Step
    ) -> Float[Tensor, "batch vocab"]:
        other = torch.where(other.isnan().any(1, keepdim=True), logits, other)
        return contrast(logits, other, self.alpha)
