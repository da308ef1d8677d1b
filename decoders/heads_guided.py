"""Heads-guided attention.

Jiang et al., "Devils in Middle Layers of Large Vision-Language Models: Interpreting, Detecting and Mitigating Object
Hallucinations via Attention Lens", CVPR 2025, arXiv 2411.16724.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..pipelines.engine.declarations import AttentionEdit, Declaration
from ..pipelines.method import Decoder, layers_of, number
from .attention_sites import producing_rows, shown
from .depth import chosen_layers, scaled_layers

if TYPE_CHECKING:
    from ..pipelines.engine.call import AttentionCall
    from ..pipelines.model.layout import Inputs, Layout


def raise_by_mean(
    scores: Float[Tensor, "batch head query key"], image: Bool[Tensor, "batch key"],
    rows: Bool[Tensor, "batch query"], alpha: float,
) -> Float[Tensor, "batch head query key"]:  # fmt: skip
    """z + α·mean over heads of |z|, at image keys in these rows; masked scores stay. The mean is in float32 or more."""
    wide = torch.promote_types(scores.dtype, torch.float32)
    size = torch.where(shown(scores), scores.abs(), 0.0).mean(1, keepdim=True, dtype=wide)
    where = image[:, None, None, :] & rows[:, None, :, None] & shown(scores)
    return torch.where(where, (scores + alpha * size).to(scores.dtype), scores)


@dataclass(frozen=True)
class HeadsGuided(Decoder):
    r"""Raise the newest token's attention to each image token by what all heads together give it.

    z_hj ← z_hj + α·(1/H)·Σ_h′ |z_h′j|   for image tokens j, before the softmax, in the rows that produce tokens (Eq. 6)

    z: (batch, head, query, key) attention scores in `layers`; H: number of query heads; α: `alpha`. What is added is
    the same for all heads, where PAI adds a head's own |z|.

    Raises:
        ValueError: a value outside its range, or a layer that the model does not have.

    The paper has layers 5 to 18 of 32 and of 40; for other depths they are scaled, which is ours. The released code's
    README leaves the last of them out, against paper and script; it gives a whole batch one range of image columns and
    shapes keys by the number of query heads, neither of which is reproduced. By the authors' own captions, part of the
    gain in CHAIR is repetition: report length, recall and repetition beside it.
    """

    alpha: float = number(0.5, "strength of the boost", "0 is plain decoding. Paper: 0.5; 0.55 for Shikra.")
    layers: Sequence[int] | None = layers_of(
        "layers that are edited", "By default 5 to 18 of 32. Paper: 5 to 18; Shikra 3 to 13, MiniGPT-4 3 to 14."
    )

    inside = ("alpha",)
    neutral = {"alpha": 0}
    faint = {"alpha": 1e-7}
    released = {}  # its script agrees with the paper

    def edits(self, lvlm: Layout, inputs: Inputs) -> Iterator[Declaration]:
        layers = chosen_layers(self, lvlm, partial(scaled_layers, 5, 18))
        yield AttentionEdit(layers, self.edit, on="scores", changes="producing")

    def edit(
        self, scores: Float[Tensor, "batch head query key"], call: AttentionCall
    ) -> Float[Tensor, "batch head query key"]:
        return raise_by_mean(scores, call.image, producing_rows(call, scores.shape[2]), self.alpha)
