"""SPIN: image-guided head suppression.

Sarkar et al., "Mitigating Hallucinations in Vision-Language Models through Image-Guided Head Suppression", EMNLP 2025,
arXiv 2505.16411.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..pipelines.engine.declarations import AttentionEdit, Changes, Declaration, HeadEdit
from ..pipelines.method import Decoder, layers_of, number, one_of, share
from .attention_sites import producing_rows, shown, text_rows
from .depth import chosen_layers

if TYPE_CHECKING:
    from ..pipelines.engine.call import AttentionCall
    from ..pipelines.model.layout import Inputs, Layout


def head_scores(
    scores: Float[Tensor, "batch head query key"], image: Bool[Tensor, "batch key"]
) -> Float[Tensor, "batch head query"]:
    """Σ of the raw scores over image keys, in float32 or more; masked ones count nothing."""
    wide = torch.promote_types(scores.dtype, torch.float32)
    return torch.where(image[:, None, None, :] & shown(scores), scores, 0.0).sum(-1, dtype=wide)


def kept_heads(sums: Float[Tensor, "batch head query"], keep: float) -> Bool[Tensor, "batch head query"]:
    """The ⌊keep·H⌋ heads with the largest sums; of equals, the lower."""
    count = math.floor(keep * sums.shape[1] + 1e-9)
    order = sums.argsort(dim=1, descending=True, stable=True)
    return torch.zeros_like(sums, dtype=torch.bool).scatter(1, order[:, :count], True)


def shrink(
    heads: Float[Tensor, "batch query head head_dim"], kept: Bool[Tensor, "batch head query"],
    rows: Bool[Tensor, "batch query"], factor: float,
) -> Float[Tensor, "batch query head head_dim"]:  # fmt: skip
    """Outputs of the heads that are not kept, times `factor`, in these rows."""
    left = kept.transpose(1, 2) | ~rows[..., None]
    return torch.where(left[..., None], heads, factor * heads)


@dataclass(frozen=True)
class SPIN(Decoder):
    r"""Shrink the outputs of the heads that score the image least, for each token anew.

    S_h = Σ_{j ∈ image} z_hj;   the ⌊keep·H⌋ heads with the largest S stay, A_h ← factor·A_h for the others

    z: (batch, head, query, key) attention scores before the softmax; A: head outputs before the output projection; H:
    query heads; in `layers`. `queries`: rows that produce tokens ("last"), or all after the last image token ("text").

    Raises:
        ValueError: a value outside its range, or a layer that the model does not have.

    Formula and values are the released code's, for CHAIR (POPE: keep 0.8, factor 0.1); of the paper the abstract alone
    was read. It chooses for each text query token, the code at the prompt for the last row only. The code's batches at
    the prompt get each other's masks, without an image range it sums over all columns, and without a factor it removes
    heads; none of this is reproduced. A raw sum is not attention: a head with small scores may see the image alone.
    A sample without an image is left alone.
    """

    keep: float = share(0.95, "share of heads that stay", "1 is plain decoding. README of the code: 0.95; POPE 0.8.")
    factor: float = number(0.08, "of the other heads' outputs", "1 is plain decoding. README: 0.08; POPE 0.1.")
    layers: Sequence[int] | None = layers_of("layers that are edited", "By default all. README: all; MMHal 0 to 19.")
    queries: Literal["last", "text"] = one_of(("last", "text"), "rows that are edited", "Code: last. Abstract: text.")

    inside = ("factor",)
    neutral = {"factor": 1}
    faint = {"keep": 0.5, "factor": 1.0000001}
    released = {}  # its README's settings for CHAIR

    @property
    def is_neutral(self) -> bool:
        """Whether every head stays, or the others are left as they are."""
        return self.keep == 1 or self.factor == 1

    def edits(self, lvlm: Layout, inputs: Inputs) -> Iterator[Declaration]:
        layers = chosen_layers(self, lvlm, range)
        kept: dict[int, Bool[Tensor, "batch head query"]] = {}
        rows: Changes = "producing" if self.queries == "last" else "after_image"
        # behind the edits of methods before it
        yield AttentionEdit(layers, partial(self.rank, kept), on="scores", changes="producing")
        yield HeadEdit(layers, partial(self.edit, kept), changes=rows)

    def rank(self, kept: dict[int, Tensor], scores: Tensor, call: AttentionCall) -> Tensor:
        kept[call.layer] = kept_heads(head_scores(scores, call.image), self.keep)
        return scores

    def edit(self, kept: dict[int, Tensor], heads: Tensor, call: AttentionCall) -> Tensor:
        rows = (producing_rows if self.queries == "last" else text_rows)(call, heads.shape[1])
        rows = rows & call.sequences.image.any(1, keepdim=True).to(heads.device)
        return shrink(heads, kept.pop(call.layer), rows, self.factor)
