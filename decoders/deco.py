"""Dynamic Correction Decoding with preceding-layer knowledge (DeCo).

Wang et al., "MLLM Can See? Dynamic Correction Decoding for Hallucination Mitigation", ICLR 2025, arXiv 2410.11779.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..pipelines.engine.declarations import Declaration, LogitsEdit, Reading, Step
from ..pipelines.method import Decoder, count, layers_of, number, share
from .depth import chosen_layers
from .early_logits import last_position

if TYPE_CHECKING:
    from ..pipelines.model.layout import Inputs, Layout


def candidates(logits: Float[Tensor, "batch vocab"], top_p: float, top_k: int) -> Bool[Tensor, "batch vocab"]:
    """Of the k most probable tokens, the fewest whose probabilities reach top_p together, at least one."""
    best = logits.float().softmax(1).topk(min(top_k, logits.shape[1]), dim=1)
    kept = torch.ones_like(best.indices, dtype=torch.bool)
    if top_p < 1:  # sums of all may round to 1 before the last
        kept[:, 1:] = best.values.cumsum(1)[:, :-1] < top_p
    return torch.zeros_like(logits, dtype=torch.bool).scatter(1, best.indices, kept)


def correct(
    logits: Float[Tensor, "batch vocab"], early: Float[Tensor, "layer batch vocab"],
    allowed: Bool[Tensor, "batch vocab"], alpha: float,
) -> Float[Tensor, "batch vocab"]:  # fmt: skip
    """l + α·m·l_A on the candidates, −inf elsewhere.

    m = max_{j, v ∈ candidates} q_j(v), A the layer where it is reached, q_j = softmax l_j; chosen for each row.
    """
    early = early.float()
    highest = early.softmax(-1).masked_fill(~allowed, 0.0).amax(-1)  # layer batch
    most, layer = highest.max(0)
    anchor = early[layer, torch.arange(len(layer), device=early.device)]
    return (logits + alpha * most[:, None] * anchor).masked_fill(~allowed, -math.inf)


def default_layers(count: int) -> range:
    """Outputs of layers 20 to 28 of 32, counted from 1; in proportion in other models, and never the last."""
    first, last = round(count * 20 / 32), min(round(count * 28 / 32), count - 1)
    return range(max(0, min(first, last) - 1), max(1, last))


@dataclass(frozen=True)
class DeCo(Decoder):
    r"""Add the logits of the preceding layer that gives one of the last layer's candidates the highest probability.

    C: of the `top_k` most probable tokens, the fewest that reach `top_p` together (last layer)
    z = l + α·m·l_A on C, −inf elsewhere;   m = max_{j ∈ J, v ∈ C} q_j(v), A the layer of that maximum

    l: (batch, vocab); l_j = H(norm(h_j)), q_j = softmax l_j, h_j: (batch, hidden), last position, output of block j.
    α: `alpha`; J: `layers`.

    Raises:
        ValueError: a value outside its range, or a layer that the model does not have.

    Formula and values were read in the released code, for greedy decoding and one sample; here each sample chooses its
    own layer. That code's table of arguments shows α = 0.5, its scripts 0.6; the paper's own value was not re-read.
    """

    alpha: float = number(0.6, "strength", "0 is plain decoding, without the candidates' cut. Released scripts: 0.6.")
    top_p: float = share(0.9, "probability that the candidates reach", "Code: 0.9.", low=1e-6)
    top_k: int = count(20, "most candidates", "Code: 20.", low=1)
    layers: Sequence[int] | None = layers_of(
        "blocks whose output is read", "By default 19 to 27 of 32 in proportion. Code: 20 to 28, counted from 1."
    )

    early = ("alpha",)
    raises = True
    neutral = {"alpha": 0}
    released = {}  # the CHAIR script

    def edits(self, lvlm: Layout, inputs: Inputs) -> Iterator[Declaration]:
        layers = chosen_layers(self, lvlm, default_layers)
        if layers:
            yield Reading("deco", layers, keep=last_position, of="block")
            yield LogitsEdit(partial(self.mix, lvlm))

    def mix(self, lvlm: Layout, logits: Float[Tensor, "batch vocab"], step: Step) -> Float[Tensor, "batch vocab"]:
        early = lvlm.unembed(step.latest("deco")).to(logits.device)
        return correct(logits, early, candidates(logits, self.top_p, self.top_k), self.alpha)
