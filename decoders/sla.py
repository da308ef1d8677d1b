"""Self-Logits Augmentation (SLA), one half of VISTA.

Li et al., "The Hidden Life of Tokens: Reducing Hallucination of Large Vision-Language Models via Visual Information
Steering", ICML 2025, arXiv 2502.03628.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from ..pipelines.engine.declarations import Declaration, LogitsEdit, Reading, Step
from ..pipelines.method import Decoder, flag, share
from .early_logits import Window, last_position, mean_logits, window_blocks, window_field

if TYPE_CHECKING:
    from ..pipelines.model.layout import Inputs, Layout


@dataclass(frozen=True)
class SLA(Decoder):
    r"""Mix the final logits with those read from the last few layers before it.

    õ = (1 − γ)·o + γ·mean_{l ∈ W} H(h_l),   W = the `window` blocks below the last   (Eq. 7–8)

    o: (batch, vocab) logits before temperature; h_l: (batch, hidden), last position, output of block l; H: the head,
    after the final norm with `final_norm`. γ: `gamma`.

    Raises:
        ValueError: gamma outside 0 to 1, or a window that is empty, too long, or reaches the last block.

    The paper does not say whether h_l is normalised; the released code does not, nor do we by default, so that the
    early logits have another scale than o. The code averages six blocks where the paper says five.
    """

    gamma: float = share(0.3, "share of the early logits", "0 is plain decoding. Paper: 0.3.")
    window: Window = window_field()
    final_norm: bool = flag(False, "apply the final norm before the head")

    mixes = ("gamma",)
    neutral = {"gamma": 0}
    faint = {"gamma": 1e-7}
    released = {"window": (-7, -2)}  # six blocks, 25 to 30 of 32, counted from the end

    def edits(self, lvlm: Layout, inputs: Inputs) -> Iterator[Declaration]:
        blocks = window_blocks(self.window, len(lvlm.layers))
        yield Reading("sla", blocks, keep=last_position, of="block")
        yield LogitsEdit(partial(self.mix, lvlm))

    def mix(self, lvlm: Layout, logits: Float[Tensor, "batch vocab"], step: Step) -> Float[Tensor, "batch vocab"]:
        early = mean_logits(lvlm, step.latest("sla"), self.final_norm).to(logits.device, logits.dtype)
        mixed = (1 - self.gamma) * logits + self.gamma * early
        return torch.where(logits.isneginf(), logits, mixed)  # ruled out by another method: 0·−∞ is no number
