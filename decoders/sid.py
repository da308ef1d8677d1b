"""Self-Introspective Decoding (SID).

Huo et al., "Self-Introspective Decoding: Alleviating Hallucinations for Large Vision-Language Models", ICLR 2025,
arXiv 2408.02032.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..pipelines.engine.declarations import AttentionEdit, Branch, Declaration, LogitsEdit
from ..pipelines.method import count, number, share, share_or_count
from .attention_sites import shown
from .contrast import Contrast
from .image_tokens import least_attended

if TYPE_CHECKING:
    from ..pipelines.engine.call import AttentionCall
    from ..pipelines.model.layout import Inputs, Layout


def hide(
    scores: Float[Tensor, "batch head query key"], hidden: Bool[Tensor, "batch query key"],
    own: Bool[Tensor, "query key"],
) -> Float[Tensor, "batch head query key"]:  # fmt: skip
    """No attention to hidden keys, but for a row's own key where nothing else would be left to it."""
    left = (shown(scores[:, 0]) & ~hidden).any(2, keepdim=True)
    return scores.masked_fill((hidden & (left | ~own))[:, None], torch.finfo(scores.dtype).min)


@dataclass(frozen=True)
class SID(Contrast):
    r"""Push the choice away from what is likely where only the least attended image tokens stay visible.

    z = (1 + α)·l − α·l′,   then z[v] = −inf where p(v) < β·max p

    l, l′: (batch, vocab) logits for the prompt, and for the same prompt in a branch in which layers from `layer` on
    attend, of the image, only to the r tokens with the least attention: that of the branch's newest row in the layer
    below, mean over heads, taken anew for each token. Rows of the prompt share the choice of its last row. Nothing is
    removed: positions and cache stay, and stored keys are not revisited. r: `keep`. α, β: `alpha`, `beta`.

    Raises:
        ValueError: a value outside its range.

    The paper's text could not be read: layer and share are the paper's as others quote them, α and β the released
    code's, which masks from layer 2 on and keeps 100 tokens. Decoding greedily, as its evaluation does, it takes the
    largest contrast before the cut, so that `official()` has β = 0; sampling cuts, `official(beta=0.1)`. The code takes
    the first sample's choice for a whole batch and unmasks padding; neither is reproduced. A row of an image that
    nothing stands before keeps its own key where no kept token precedes it.
    """

    alpha: float = number(0.5, "strength of the contrast", "0 leaves l. Code: 0.5 in effect.")
    beta: float = share(0.1, "plausibility cut", "0 is no cut. Code: 0.1, and in effect none in greedy decoding.")
    layer: int = count(3, "first layer with hidden image tokens, from 0", "Paper: 3; 5 for InstructBLIP. Code: 2.", 1)
    keep: float = share_or_count(
        0.1, "image tokens that stay visible",
        "1.0 is all of them, 1 a single one. Paper: 0.1. Code: 100 (POPE) or 50 (CHAIR) of 576.",
    )  # fmt: skip

    against = "the least attended image tokens"
    neutral = {"alpha": 0, "beta": 0}
    faint = {"alpha": 1e-7}
    released = {"beta": 0, "layer": 2, "keep": 100}
    by_model = {"instructblip-vicuna-7b": {"layer": 5}}

    def edits(self, lvlm: Layout, inputs: Inputs) -> Iterator[Declaration]:
        layers = range(self.layer, len(lvlm.layers))
        visible: dict[str, Bool[Tensor, "batch query key"]] = {}
        yield Branch(self.opened, inputs)
        if layers:
            yield AttentionEdit([self.layer - 1], partial(self.choose, visible), branch=self.opened)
            yield AttentionEdit(layers, partial(self.edit, visible), on="scores", branch=self.opened)
        yield LogitsEdit(self.mix)

    def choose(self, visible: dict[str, Tensor], probabilities: Tensor, call: AttentionCall) -> Tensor:
        attention = probabilities.mean(1, dtype=torch.promote_types(probabilities.dtype, torch.float32))
        prompt = call.sequences.prompt(attention.shape[1]).stop
        if prompt:  # its rows share the last one's choice
            attention = torch.cat([attention[:, prompt - 1 : prompt].expand(-1, prompt, -1), attention[:, prompt:]], 1)
        visible["tokens"] = call.sequences.by_position(least_attended(attention, call.image, self.keep))
        return probabilities

    def edit(self, visible: dict[str, Tensor], scores: Tensor, call: AttentionCall) -> Tensor:
        where, (queries, keys) = call.sequences, scores.shape[2:]
        hidden = call.image[:, None] & ~where.by_key(visible["tokens"].to(scores.device), keys)
        return hide(scores, hidden, where.own_key(queries, keys).to(scores.device))
