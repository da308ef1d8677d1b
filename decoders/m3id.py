"""Multi-Modal Mutual-Information Decoding (M3ID).

Favero et al., "Multi-Modal Hallucination Control by Visual Information Grounding", CVPR 2024, arXiv 2403.14003.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from ..pipelines.engine.declarations import Step
from ..pipelines.method import NO_IMAGE, number, share
from .contrast import Contrast
from .plausibility import cut

if TYPE_CHECKING:
    from ..pipelines.model.layout import Inputs, Layout


def weight(step: int, lam: float) -> float:
    """(1 − e^{−λt}) / e^{−λt} = e^{λt} − 1 for the token number t = step + 1."""
    return math.expm1(lam * (step + 1))


def amplify(
    with_image: Float[Tensor, "batch vocab"], without_image: Float[Tensor, "batch vocab"], strength: float
) -> Float[Tensor, "batch vocab"]:
    """log p + w·(log p − log p′), p = softmax l, in float32."""
    log_p = with_image.float().log_softmax(1)
    return log_p + strength * (log_p - without_image.float().log_softmax(1))


@dataclass(frozen=True)
class M3ID(Contrast):
    r"""Amplify what the image adds to the language prior, the more so the longer the text.

    z = log p + w_t·(log p − log p′),   w_t = (1 − e^{−λt})/e^{−λt},   then z[v] = −inf where p(v) < β·max p

    l: (batch, vocab) logits, p = softmax l; p′: for the same prompt without its image; t counts new tokens from 1.
    λ, β: `lam`, `beta`. Where max p is `gate` or more, z = log p.

    Raises:
        ValueError: a value outside its range.

    No code of the authors is known. The defaults are those with which the comparisons of AvisC were run (read in its
    code: λ = 0.02, t from 1, cut at 0.1, no gate). It too goes on from log-probabilities, which a repetition penalty
    behind it takes otherwise than logits. The paper's gate is as recalled, not re-read: `M3ID(beta=0,
    gate=0.3)`. The image-free prompt is the same text with the image tokens deleted, positions renumbered.
    """

    lam: float = number(0.02, "forgetting rate", "0 leaves l. Paper: 0.02.")
    beta: float = share(0.1, "plausibility cut", "0 is no cut. AvisC's re-implementation: 0.1.")
    gate: float = share(
        1.0, "largest probability from which on nothing is amplified", "1 is always. Paper, as recalled: 0.3, no cut."
    )

    against = NO_IMAGE
    weighs = ("lam",)
    neutral = {"lam": 0, "beta": 0}
    faint = {"lam": 1e-7}
    released = {}  # what AvisC's code runs under this name

    def branch(self, lvlm: Layout, inputs: Inputs) -> Inputs:
        return lvlm.image_free(inputs)

    @property
    def spares(self) -> bool:
        return self.gate < 1

    def mix(self, logits: Float[Tensor, "batch vocab"], step: Step) -> Float[Tensor, "batch vocab"]:
        if not self.spares:
            return super().mix(logits, step)
        unsure = logits.float().softmax(1).amax(1) < self.gate
        plain = logits.float().log_softmax(1)
        step.wanted = unsure if step.wanted is None else step.wanted & unsure
        if not bool(step.wanted.any()):
            return cut(plain, logits, self.beta)
        z = self.mixed(logits, step.branches[self.opened], step)
        return cut(torch.where(unsure[:, None], z, plain), logits, self.beta)

    def mixed(
        self, logits: Float[Tensor, "batch vocab"], other: Float[Tensor, "batch vocab"], step: Step
    ) -> Float[Tensor, "batch vocab"]:
        return amplify(logits, other, weight(step.index, self.lam))
