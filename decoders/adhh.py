"""Adaptive Deactivation of Hallucination Heads (ADHH).

Yang et al., "Understanding and Mitigating Hallucinations in Large Vision-Language Models via Modular Attribution and
Intervention", ICLR 2025.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..pipelines.checks import by_layer
from ..pipelines.engine.declarations import AttentionEdit, Declaration
from ..pipelines.method import pairs_of, share
from ..pipelines.model.identity import identity
from ..pipelines.per_model import values_for
from .adhh_heads import Influence, influence
from .attention_sites import behind_image, producing_rows
from .fitted import Fits, Fitted, weights_field

if TYPE_CHECKING:
    from ..pipelines.engine.call import AttentionCall
    from ..pipelines.model.layout import Inputs, Layout

_7B = ((16, 29), (26, 9), (13, 31), (15, 10), (20, 12), (30, 9), (19, 18), (17, 0), (18, 9), (26, 28), (19, 27),
       (18, 26), (15, 25), (14, 16), (31, 26), (15, 24), (31, 3), (22, 20), (27, 29), (17, 28))  # fmt: skip
_13B = ((0, 8), (29, 27), (23, 18), (20, 11), (36, 26), (19, 37), (22, 16), (22, 34), (21, 31), (20, 34), (37, 11),
        (17, 25), (35, 10), (17, 5), (15, 26), (0, 22), (19, 5), (19, 0), (14, 1), (23, 20), (21, 6), (30, 24),
        (26, 27), (21, 32), (15, 28), (15, 31), (19, 30), (20, 8), (19, 14), (14, 9), (39, 26), (25, 1), (18, 32),
        (17, 27), (39, 32))  # fmt: skip
_34B = ((45, 34), (43, 4), (43, 48), (44, 29), (35, 47), (40, 27), (54, 34), (37, 48), (43, 2), (41, 34))


PAPER = Influence()


def silence(
    row: Float[Tensor, "*any key"], text: Bool[Tensor, "*any key"], threshold: float
) -> Float[Tensor, "*any key"]:
    """Attention with 0 at the text's keys where their sum is `threshold` or more; not renormalised.

    >>> silence(torch.tensor([0.25, 0.25, 0.25, 0.125, 0.125]), torch.arange(5) > 1, 0.5).tolist()
    [0.25, 0.25, 0.0, 0.0, 0.0]
    """
    mass = (row * text).sum(-1, keepdim=True, dtype=torch.promote_types(row.dtype, torch.float32))
    return torch.where((mass >= threshold) & text, 0.0, row)


@dataclass(frozen=True)
class ADHH(Fits):
    r"""Silence the text in the few heads that push hallucinated words, where they attend to it too much.

    m = Σ_{j ∈ text} p_j;   where m ≥ θ: p_j ← 0 for j ∈ text   (not renormalised)

    p: (batch, head, query, key) attention after the softmax, in `heads`; rows that produce tokens, the prompt's last
    and those behind it; text: keys after the sample's last image token, generated tokens and the row's own included. θ:
    `threshold`; 0 silences always. `heads`: pairs of a 0-based layer and a query head; by default those of `weights`,
    a folder of `veridical fit adhh`, else the released list of the model.

    Raises:
        ValueError: no heads are known for this model, or one that it does not have.

    The text of the paper was not read; formula, lists and θ are the released code's, which `official()` follows. It
    adds a batch's masses up before it compares them, counts image tokens by numbers that fit one prompt, and edits the
    prompt's last row alone when it decodes without a cache; none of this is reproduced. Lists of one model mean nothing
    on another: `ADHH.attribute` and `fit` find them. A sample without an image is left alone.
    """

    heads: tuple[tuple[int, int], ...] | None = pairs_of("heads that are watched", "By default the model's own list.")
    threshold: float = share(0.4, "θ, attention to text from which on it is silenced", "0 always. Code: 0.4.")
    weights: Any = weights_field()

    fits = "adhh"
    inside = ("heads",)
    neutral = {"heads": ()}
    released = {}
    by_model = {
        r"llava-v?1\.5-7b": {"heads": _7B}, r"llava-v?1\.5-13b": {"heads": _13B}, r"llava-v?1\.6-34b": {"heads": _34B},
    }  # fmt: skip

    def edits(self, lvlm: Layout, inputs: Inputs) -> Iterator[Declaration]:
        if chosen := by_layer(self.pairs(lvlm), len(lvlm.layers), lvlm.heads, "ADHH"):
            yield AttentionEdit(sorted(chosen), partial(self.edit, chosen), changes="producing")

    def pairs(self, lvlm: Layout) -> Sequence[tuple[int, int]]:
        """The heads that are watched on a model."""
        if self.heads is not None:
            return self.heads
        if self.weights is None and (known := values_for(self, lvlm.name).get("heads")):
            return known
        try:
            found = self.fitted(lvlm).tensors["heads"]
        except ValueError as error:
            raise ValueError(f"{error} Or name heads=((layer, head), …): ADHH.attribute scores them all.") from error
        return [(int(layer), int(head)) for layer, head in found.tolist()]

    def edit(
        self, chosen: Mapping[int, Sequence[int]], probabilities: Float[Tensor, "batch head query key"],
        call: AttentionCall,
    ) -> Tensor:  # fmt: skip
        image = call.sequences.image.any(1)
        text = call.columns(behind_image(call.sequences)) | call.generated
        rows = producing_rows(call, probabilities.shape[2]) & image[:, None].to(text.device)
        heads = list(chosen[call.layer])
        old = probabilities[:, heads]
        new = silence(old, text[:, None, None, :].expand_as(old), self.threshold)
        out = probabilities.clone()
        out[:, heads] = torch.where(rows[:, None, :, None], new, old)
        return out

    @classmethod
    def attribute(
        cls, lvlm: Layout, images: Sequence[Any], captions: Sequence[str], hallucinated: Sequence[Sequence[str]],
        true: Sequence[Sequence[str]], how: Influence = PAPER,
    ) -> Float[Tensor, "layer head"]:  # fmt: skip
        """How much every head pushes hallucinated words more than true ones: mean influence on those minus on these.

        The influence of a head on a word's first token is p(y) − p(y | the head's output set to 0 in the row that
        produces it), or in the whole prompt where it is the first; `Influence` has other measures.

        Args:
            captions: one for each image. hallucinated, true: words of each caption, as they stand in it.

        Raises:
            ValueError: lists of different lengths, or no hallucinated or no true word in any caption.
        """
        return influence(lvlm, images, captions, hallucinated, true, how)

    @classmethod
    def fit(
        cls, lvlm: Layout, images: Sequence[Any], captions: Sequence[str], hallucinated: Sequence[Sequence[str]],
        true: Sequence[Sequence[str]], top: int = 20, how: Influence = PAPER,
    ) -> Self:  # fmt: skip
        """With the `top` heads of `attribute`, the strongest first. Arguments and errors as there."""
        scores = cls.attribute(lvlm, images, captions, hallucinated, true, how)
        order = scores.flatten().argsort(descending=True, stable=True)[:top]
        heads = torch.stack([order // scores.shape[1], order % scores.shape[1]], 1)
        about = {"model": identity(lvlm), "captions": len(captions), "measure": how.measure}
        return cls(weights=Fitted({"heads": heads, "scores": scores}, about))
