"""Re-Balancing Contrastive Decoding (RBD): our reading of its abstract.

Liang, Yu et al., "Mitigating Hallucination in Visual-Language Models via Re-Balancing Contrastive Decoding",
PRCV 2024, arXiv 2409.06485.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..pipelines.checks import check_at_least, check_integers, check_range, check_seed
from ..pipelines.engine.declarations import Branch, Declaration, LogitsEdit, Reading, Step
from ..pipelines.engine.run import prefill
from .avc import blank_branch, image_tokens, last_row
from .plausibility import cut
from .vcd import STEPS, diffused

if TYPE_CHECKING:
    from ..pipelines.lvlm import LVLM, Inputs


def rebalance(
    logits: Float[Tensor, "batch vocab"], seeing: Float[Tensor, "batch vocab"], reading: Float[Tensor, "batch vocab"],
    visual: float, textual: float,
) -> Float[Tensor, "batch vocab"]:  # fmt: skip
    """l + visual·(l_vis − l) + textual·(l − l_txt); a token that l rules out stays out."""
    mixed = (1 - visual + textual) * logits + visual * seeing - textual * reading
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
class RBD:
    r"""Our reading of an abstract: toward the significant image tokens, away from what a noised picture says.

    z = l + visual·(l_vis − l) + textual·(l − l_txt),   then z[v] = −inf where p(v) < β·max p

    l: (batch, vocab) logits for the picture. l_txt: for the diffused picture (VCD's schedule). l_vis: for the picture
    in which only the ⌈keep·N⌉ image tokens with most attention keep their embeddings; the others are zeros, positions
    unchanged. Attention is the mean over all layers and heads of the last prompt row, taken once.

    Args:
        visual: weight of the significant tokens, 0 or more; 0 leaves that branch out.
        textual: weight of the contrast with the noised picture, 0 or more; 0 leaves that branch out.
        beta: plausibility cut, 0 to 1; 0 is no cut.
        keep: share of image tokens that keep their embeddings, above 0 to 1.
        noise_step: diffusion step of the noise, 0 to 999.
        seed: of the noise.

    Raises:
        ValueError: a value outside its range.

    The paper's method section could not be read and no code was released: the formula, the choice of tokens and every
    default are ours. The abstract says only that there is a textual branch with a noised image and a visual branch
    with selected significant tokens, both combined with the base prediction. Nothing that this class yields is a
    result of that paper.
    """

    visual: float = 0.5
    textual: float = 1.0
    beta: float = 0.1
    keep: float = 0.5
    noise_step: int = 500
    seed: int = 0

    paper: ClassVar[str] = "arXiv 2409.06485 (our reading of its abstract)"
    changes: ClassVar[str] = "logits, with a noised picture and one of significant tokens"
    cost: ClassVar[str] = "3 forwards per token, 1 extra prefill"
    differs: ClassVar[str] = (
        "No code was released, and the paper's method could not be read: formula and defaults are ours. official() is "
        "the same."
    )

    def __post_init__(self) -> None:
        check_at_least("visual", self.visual, 0, "weight of the significant tokens")
        check_at_least("textual", self.textual, 0, "weight of the contrast with the noised picture")
        check_range("beta", self.beta, 0, 1, "plausibility cut")
        check_range("keep", self.keep, 1e-6, 1, "share of image tokens that keep their embeddings")
        check_range("noise_step", self.noise_step, 0, STEPS - 1, "diffusion step of the noise, counted from 0")
        check_integers("noise_step", (self.noise_step,), "diffusion step of the noise")
        object.__setattr__(self, "seed", check_seed("seed", self.seed, "of the noise"))

    @classmethod
    def official(cls) -> RBD:
        """The same: no code was released."""
        return cls()

    def edits(self, lvlm: LVLM, inputs: Inputs) -> Iterator[Declaration]:
        if self.visual == 0 and self.textual == 0 and self.beta == 0:
            return
        if self.textual:
            yield Branch("rbd_textual", diffused(inputs, self.noise_step, self.seed))
        if self.visual:
            image = lvlm.image_mask(inputs["input_ids"])
            looking = Reading("rbd", range(len(lvlm.layers)), keep=last_row)
            attention = prefill(lvlm, inputs, [looking]).latest("rbd").mean(0).to(image.device)
            seen, real = image_tokens(attention, image)
            yield Branch("rbd_visual", inputs)
            yield from blank_branch(lvlm, "rbd_visual", real & ~significant(seen, real, self.keep), "zeros")
        yield LogitsEdit(self.mix)

    def mix(self, logits: Float[Tensor, "batch vocab"], step: Step) -> Float[Tensor, "batch vocab"]:
        seeing = step.branches["rbd_visual"] if self.visual else logits
        reading = step.branches["rbd_textual"] if self.textual else logits
        return cut(rebalance(logits, seeing, reading, self.visual, self.textual), logits, self.beta)
