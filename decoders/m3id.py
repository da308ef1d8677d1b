"""Multi-Modal Mutual-Information Decoding (M3ID).

Favero et al., "Multi-Modal Hallucination Control by Visual Information Grounding", CVPR 2024, arXiv 2403.14003.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ..pipelines.checks import check_at_least, check_range
from ..pipelines.engine.declarations import Branch, Declaration, LogitsEdit, Step
from .plausibility import cut

if TYPE_CHECKING:
    from ..pipelines.lvlm import LVLM, Inputs


def weight(step: int, lam: float) -> float:
    """(1 − e^{−λt}) / e^{−λt} = e^{λt} − 1 for the token number t = step + 1."""
    return math.expm1(lam * (step + 1))


def amplify(
    seeing: Float[Tensor, "batch vocab"], blind: Float[Tensor, "batch vocab"], strength: float
) -> Float[Tensor, "batch vocab"]:
    """log p + w·(log p − log p_blind), p = softmax l, in float32."""
    log_p = seeing.float().log_softmax(1)
    return log_p + strength * (log_p - blind.float().log_softmax(1))


@dataclass(frozen=True)
class M3ID:
    r"""Amplify what the image adds to the language prior, the more so the longer the text.

    z = log p + w_t·(log p − log p′),   w_t = (1 − e^{−λt})/e^{−λt},   then z[v] = −inf where p(v) < β·max p

    l: (batch, vocab) logits, p = softmax l; p′: for the same prompt without its image; t counts new tokens from 1.

    Args:
        lam: forgetting rate λ, 0 or more; 0 leaves l. Paper: 0.02.
        beta: plausibility cut, 0 to 1; 0 is no cut. 0.1 in AvisC's re-implementation.
        gate: amplify only where max p is below it, 0 to 1; 1 is always. Paper, as recalled: 0.3, and no cut.

    Raises:
        ValueError: a value outside its range.

    No code of the authors is known. The defaults are those with which the comparisons of AvisC were run (read in its
    code: λ = 0.02, t from 1, cut at 0.1, no gate). It too goes on from log-probabilities, which a repetition penalty
    behind it takes otherwise than logits. The paper's gate is as recalled, not re-read: `M3ID(beta=0,
    gate=0.3)`. The image-free prompt is the same text with the image tokens deleted, positions renumbered.
    """

    lam: float = 0.02
    beta: float = 0.1
    gate: float = 1.0

    paper: ClassVar[str] = "arXiv 2403.14003"
    changes: ClassVar[str] = "logits, against the prompt without its image"
    cost: ClassVar[str] = "2 forwards per token"
    differs: ClassVar[str] = (
        "No code of the authors is known; the defaults are those with which AvisC's code compares. official() is the "
        "same."
    )

    def __post_init__(self) -> None:
        check_at_least("lam", self.lam, 0, "forgetting rate")
        check_range("beta", self.beta, 0, 1, "plausibility cut")
        check_range("gate", self.gate, 0, 1, "largest probability from which on nothing is amplified")

    @classmethod
    def official(cls) -> M3ID:
        """The same: what AvisC's code runs under this name."""
        return cls()

    def edits(self, lvlm: LVLM, inputs: Inputs) -> Iterator[Declaration]:
        if self.lam == 0 and self.beta == 0:
            return
        yield Branch("m3id", lvlm.image_free(inputs))
        yield LogitsEdit(self.mix)

    def mix(self, logits: Float[Tensor, "batch vocab"], step: Step) -> Float[Tensor, "batch vocab"]:
        mixed = amplify(logits, step.branches["m3id"], weight(step.index, self.lam))
        if self.gate < 1:
            unsure = logits.float().softmax(1).amax(1, keepdim=True) < self.gate
            mixed = torch.where(unsure, mixed, logits.float().log_softmax(1))
        return cut(mixed, logits, self.beta)
