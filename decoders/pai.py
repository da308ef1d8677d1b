"""Pay Attention to Image (PAI).

Liu et al., "Paying More Attention to Image: A Training-Free Method for Alleviating Hallucination in LVLMs", ECCV 2024,
arXiv 2407.21771.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from ..pipelines.engine.declarations import AttentionEdit, Declaration
from ..pipelines.method import count, number, share
from .attention_sites import producing_rows
from .guidance import Guidance, boost, guide

if TYPE_CHECKING:
    from ..pipelines.engine.call import AttentionCall
    from ..pipelines.model.layout import Inputs, Layout

__all__ = ["PAI", "boost", "guide", "producing_rows"]


@dataclass(frozen=True)
class PAI(Guidance):
    r"""Raise the newest token's attention to the image, and guide its logits away from the prompt without the image.

    z_j ← z_j + α·|z_j|   for image tokens j, before the softmax, in the rows that produce tokens
    out = γ·log p − (γ − 1)·log p′ (`guide`),   then out[v] = −inf where p(v) < β·max p

    z: (batch, head, query, key) attention scores of every head from layer `skip_first` on; the rows are that of the
    last prompt token and those of new tokens. p, p′: (batch, vocab) with the image, attention raised, and for the same
    prompt without it. α, γ, β: `alpha`, `gamma`, `beta`. The two parts are independent.

    Raises:
        ValueError: a value outside its range.

    Formulas and values were read in the released code. The paper chooses the layers by an attention-mode prior, which
    that code replaces by layers 2 to 31; its α for each model (0.5 for LLaVA-1.5) is as recalled, not re-read.
    """

    alpha: float = number(0.2, "strength of the boost", "0 leaves attention alone. Released commands: 0.2.")
    gamma: float = number(1.1, "guidance", "1 leaves logits alone. Released commands: 1.1.", low=1)
    beta: float = share(0.1, "plausibility cut of the guidance", "0 is no cut. Code: 0.1.")
    skip_first: int = count(2, "layers that keep their attention", "Code: 2.")

    inside = ("alpha",)
    neutral = {"alpha": 0, "gamma": 1}
    faint = {"alpha": 1e-7, "gamma": 1.0000001, "beta": 0}
    released = {}  # the released commands

    def boosts(self, lvlm: Layout, inputs: Inputs) -> Iterator[Declaration]:
        if self.alpha:  # of no layer in a model of few, so that the run says that nothing changed
            yield AttentionEdit(range(self.skip_first, len(lvlm.layers)), self.edit, on="scores", changes="producing")

    def edit(
        self, scores: Float[Tensor, "batch head query key"], call: AttentionCall
    ) -> Float[Tensor, "batch head query key"]:
        return boost(scores, self.alpha * call.image, producing_rows(call, scores.shape[2]))
