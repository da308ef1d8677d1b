"""SPIN: image-guided head suppression.

Sarkar et al., "Mitigating Hallucinations in Vision-Language Models through Image-Guided Head Suppression", EMNLP 2025,
arXiv 2505.16411.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..pipelines.checks import by_layer
from ..pipelines.engine.declarations import AttentionEdit, Changes, Declaration, HeadEdit
from ..pipelines.method import Decoder, layers_of, number, one_of, pairs_of, share
from ..pipelines.model.output_weights import CannotBake, scaled_heads
from .attention_sites import producing_rows, shown, text_rows
from .depth import chosen_layers

if TYPE_CHECKING:
    from ..pipelines.engine.call import AttentionCall
    from ..pipelines.model.layout import Inputs, Layout


ROWS: Mapping[str, Changes] = {"last": "producing", "text": "after_image", "all": "every"}


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
    query heads; in `layers`. `queries`: rows that produce tokens ("last"), all after the last image token ("text"), or
    the whole prompt too ("all"). With `heads`, pairs of a layer and a query head, these are shrunk and none is chosen;
    with queries="all" beside it weights can carry that (`veridical bake`).

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
    queries: Literal["last", "text", "all"] = one_of(
        ("last", "text", "all"), "rows that are edited", "Code: last. Abstract: text. all: the whole prompt too."
    )
    heads: tuple[tuple[int, int], ...] | None = pairs_of(
        "heads that are shrunk whatever they score", "By default they are chosen for each token, as in the paper."
    )

    inside = ("factor",)
    neutral = {"factor": 1}
    faint = {"keep": 0.5, "factor": 1.0000001}
    released = {}  # its README's settings for CHAIR

    @property
    def is_neutral(self) -> bool:
        """Whether every head stays, or the others are left as they are."""
        return self.factor == 1 or (self.keep == 1 and self.heads is None)

    def edits(self, lvlm: Layout, inputs: Inputs) -> Iterator[Declaration]:
        if self.heads is not None:
            fixed = by_layer(self.heads, len(lvlm.layers), lvlm.heads, "SPIN")
            yield HeadEdit(sorted(fixed), partial(self.edit_fixed, fixed), changes=ROWS[self.queries])
            return
        layers = chosen_layers(self, lvlm, range)
        kept: dict[int, Bool[Tensor, "batch head query"]] = {}
        rows = ROWS[self.queries]
        # behind the edits of methods before it
        yield AttentionEdit(layers, partial(self.rank, kept), on="scores", changes=rows)
        yield HeadEdit(layers, partial(self.edit, kept), changes=rows)

    def rank(self, kept: dict[int, Tensor], scores: Tensor, call: AttentionCall) -> Tensor:
        kept[call.layer] = kept_heads(head_scores(scores, call.image), self.keep)
        return scores

    def edit(self, kept: dict[int, Tensor], heads: Tensor, call: AttentionCall) -> Tensor:
        rows = self.rows(call, heads) & call.sequences.image.any(1, keepdim=True).to(heads.device)
        return shrink(heads, kept.pop(call.layer), rows, self.factor)

    def rows(self, call: AttentionCall, heads: Tensor) -> Bool[Tensor, "batch query"]:
        """The rows of this pass that are edited, in samples with an image."""
        if self.queries == "all":
            return torch.ones(heads.shape[:2], dtype=torch.bool, device=heads.device)
        return (producing_rows if self.queries == "last" else text_rows)(call, heads.shape[1])

    def edit_fixed(self, fixed: Mapping[int, Sequence[int]], heads: Tensor, call: AttentionCall) -> Tensor:
        kept = torch.ones(len(heads), heads.shape[2], heads.shape[1], dtype=torch.bool, device=heads.device)
        kept[:, list(fixed[call.layer])] = False
        return shrink(heads, kept, self.rows(call, heads), self.factor)

    def baked(self, lvlm: Layout) -> dict[str, Tensor]:
        """The output projections with the shrinking in them, parameter name -> new tensor.

        Raises:
            CannotBake: heads that are chosen for each token, or rows that are not all of them.
        """
        if self.heads is None:
            raise CannotBake("spin chooses its heads for each token; only heads=((layer, head), …) can be baked.")
        if self.queries != "all":
            raise CannotBake(f'spin with queries="{self.queries}" edits some rows alone; weights need queries="all".')
        return scaled_heads(lvlm, by_layer(self.heads, len(lvlm.layers), lvlm.heads, "SPIN"), self.factor)
