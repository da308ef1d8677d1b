"""Pay Attention to Image (PAI).

Liu et al., "Paying More Attention to Image: A Training-Free Method for Alleviating Hallucination in LVLMs", ECCV 2024,
arXiv 2407.21771.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..pipelines.checks import check_at_least, check_integers, check_range
from ..pipelines.engine.declarations import AttentionEdit, Branch, Declaration, LogitsEdit, Step
from .plausibility import cut

if TYPE_CHECKING:
    from ..pipelines.engine.attention import AttentionCall
    from ..pipelines.lvlm import LVLM, Inputs


def boost(
    scores: Float[Tensor, "batch head query key"], strength: Float[Tensor, "batch key"],
    rows: Bool[Tensor, "batch query"],
) -> Float[Tensor, "batch head query key"]:  # fmt: skip
    """z + strength·|z| in these rows: positive scores grow, negative ones move toward 0, masked ones stay."""
    gain = (strength[:, None, :] * rows[..., None])[:, None].to(scores.dtype)  # batch 1 query key
    seen = scores > torch.finfo(scores.dtype).min / 2  # a mask is −inf, or about the least number there is
    return scores + gain * torch.where(seen, scores.abs(), 0.0)


def producing_rows(call: AttentionCall, queries: int) -> Bool[Tensor, "batch query"]:
    """The rows of this pass that produce tokens, whether or not a cache spares the others: the last prompt token's on.

    Only they are edited, so that a run without a cache edits what a run with one has edited before.
    """
    last = torch.zeros_like(call.sequences.image)
    last[:, -1] = True
    return call.sequences.at_queries(last, True, queries).to(call.query.device)


def guide(
    seeing: Float[Tensor, "batch vocab"], blind: Float[Tensor, "batch vocab"], gamma: float, beta: float
) -> Float[Tensor, "batch vocab"]:
    """l + (γ − 1)·(log p − log p′), p = softmax l, and −inf where p(v) < β·max p; in float32.

    But for a constant this is γ·log p − (γ − 1)·log p′, which the released code has: there guidance comes behind a
    repetition penalty, here before it, and at the level of l that weighs as in plain decoding.
    """
    further = seeing.float().log_softmax(1) - blind.float().log_softmax(1)
    return cut(seeing.float() + (gamma - 1) * further, seeing, beta)


@dataclass(frozen=True)
class PAI:
    r"""Raise the newest token's attention to the image, and guide its logits away from the prompt without the image.

    z_j ← z_j + α·|z_j|   for image tokens j, before the softmax, in the rows that produce tokens
    out = γ·log p − (γ − 1)·log p′ (`guide`),   then out[v] = −inf where p(v) < β·max p

    z: (batch, head, query, key) attention scores of every head from layer `skip_first` on; the rows are that of the
    last prompt token and those of new tokens. p, p′: (batch, vocab) with the image, attention raised, and for the same
    prompt without it. The two parts are independent: α = 0 leaves attention alone, γ = 1 leaves logits alone (no
    second branch, no cut).

    Args:
        alpha: strength of the boost, 0 or more. Released commands: 0.2.
        gamma: guidance, 1 or more. Released commands: 1.1.
        beta: plausibility cut of the guidance, 0 to 1; 0 is no cut. Code: 0.1.
        skip_first: layers at the start that keep their attention. Code: 2.

    Raises:
        ValueError: a value outside its range.

    Formulas and values were read in the released code. The paper chooses the layers by an attention-mode prior, which
    that code replaces by layers 2 to 31; its α for each model (0.5 for LLaVA-1.5) is as recalled, not re-read.
    """

    alpha: float = 0.2
    gamma: float = 1.1
    beta: float = 0.1
    skip_first: int = 2

    paper: ClassVar[str] = "arXiv 2407.21771"
    changes: ClassVar[str] = "attention before the softmax, and logits against the prompt without its image"
    cost: ClassVar[str] = "2 forwards per token; 1 with gamma=1"
    differs: ClassVar[str] = (
        "The paper chooses layers by an attention prior, the code takes all from the third on, and so do the defaults. "
        "official() is the same."
    )

    def __post_init__(self) -> None:
        check_at_least("alpha", self.alpha, 0, "strength of the boost")
        check_at_least("gamma", self.gamma, 1, "guidance")
        check_range("beta", self.beta, 0, 1, "plausibility cut of the guidance")
        check_integers("skip_first", (self.skip_first,), "layers that keep their attention")
        check_at_least("skip_first", self.skip_first, 0, "layers that keep their attention")

    @classmethod
    def official(cls) -> PAI:
        """What the released commands run: the same values."""
        return cls()

    def edits(self, lvlm: LVLM, inputs: Inputs) -> Iterator[Declaration]:
        if self.gamma != 1:
            yield Branch("pai", lvlm.image_free(inputs))
        layers = range(self.skip_first, len(lvlm.layers))
        if self.alpha:  # of no layer in a model of few, so that the run says that nothing changed
            yield AttentionEdit(layers, self.edit, on="scores")
        if self.gamma != 1:
            yield LogitsEdit(self.mix)

    def edit(
        self, scores: Float[Tensor, "batch head query key"], call: AttentionCall
    ) -> Float[Tensor, "batch head query key"]:
        return boost(scores, self.alpha * call.image, producing_rows(call, scores.shape[2]))

    def mix(self, logits: Float[Tensor, "batch vocab"], step: Step) -> Float[Tensor, "batch vocab"]:
        return guide(logits, step.branches["pai"], self.gamma, self.beta)
