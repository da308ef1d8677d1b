"""Visual Amplification Fusion (VAF).

Yin et al., "ClearSight: Visual Signal Enhancement for Object Hallucination Mitigation in Multimodal Large Language
Models", CVPR 2025, arXiv 2503.13107.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..pipelines.checks import check_heads, check_integers
from ..pipelines.engine.declarations import AttentionEdit, Declaration
from ..pipelines.method import Decoder, layers_of, number, ruled, share
from .attention_sites import before_image, shown, text_rows
from .depth import chosen_layers, scaled_layers

if TYPE_CHECKING:
    from ..pipelines.engine.call import AttentionCall
    from ..pipelines.model.layout import Inputs, Layout


def amplify(
    scores: Float[Tensor, "batch head query key"], image: Bool[Tensor, "batch key"], system: Bool[Tensor, "batch key"],
    rows: Bool[Tensor, "batch query"], boost: float, suppress: float,
) -> Float[Tensor, "batch head query key"]:  # fmt: skip
    """(1 + boost)·z at image keys and (1 − suppress)·z at system keys, in these rows; masked scores stay."""
    factor = torch.where(image, 1 + boost, torch.where(system, 1 - suppress, 1.0)).to(scores.dtype)
    return torch.where(rows[:, None, :, None] & shown(scores), scores * factor[:, None, None, :], scores)


def _heads(name: str, value: Any) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """The mapping as pairs, which hash."""
    try:
        pairs = sorted(dict(value).items())
    except (TypeError, ValueError):
        raise ValueError(f"{name}={value!r} is no mapping from layers to heads, such as {{9: (0, 3)}}.") from None
    check_integers(name, [layer for layer, _ in pairs], "layers", empty=True)
    return tuple((layer, check_integers(f"{name}[{layer}]", some, "query heads", empty=True)) for layer, some in pairs)


@dataclass(frozen=True)
class VAF(Decoder):
    r"""Let the text after the image read the image with larger scores, and what comes before it with smaller ones.

    z_j ← (1 + boost)·z_j for image tokens j,   z_j ← (1 − suppress)·z_j for tokens before the first image token

    z: (batch, head, query, key) attention scores before mask and softmax; rows: prompt text after the last image token
    and generated tokens; in `layers` and in `heads` of each, by default all. Padding is no token before the image.

    Raises:
        ValueError: a value outside its range, or a layer or head that the model does not have.

    The paper's text could not be read, and notes on it disagree about values; values and formula are the released
    code's. The paper takes "visual perception heads" alone, by a rule that was not read: `heads` names them. The code
    has 35 system and 576 image columns whatever the prompt, and edits every row of a prompt of at most 611 positions;
    neither is reproduced. A negative score under a factor above 1 falls: faithful, and probably not intended.
    """

    boost: float = number(0.15, "growth of scores of image tokens", "0 leaves them. Script of the code: 0.15.")
    suppress: float = share(0.05, "reduction of scores before the image", "0 leaves them. Script of the code: 0.05.")
    layers: Sequence[int] | None = layers_of("layers that are edited", "By default 9 to 14 of 32. Code: 9 to 14.")
    heads: Any = ruled(
        None, "query heads of single layers", "a mapping from layers to heads",
        "Kept as pairs. A layer without an entry is left alone. By default all heads, as in the code.", _heads,
    )  # fmt: skip

    inside = ("boost", "suppress")
    neutral = {"boost": 0, "suppress": 0}
    faint = {"boost": 1e-7, "suppress": 1e-7}
    released = {}  # its script's values

    def edits(self, lvlm: Layout, inputs: Inputs) -> Iterator[Declaration]:
        layers = chosen_layers(self, lvlm, partial(scaled_layers, 9, 14))
        if self.heads is not None:
            named = check_heads(self.heads, len(lvlm.layers), lvlm.heads, "VAF")
            layers = [layer for layer in layers if named.get(layer)]
        yield AttentionEdit(layers, partial(self.edit, lvlm.heads), on="scores", changes="after_image")

    def edit(
        self, count: int, scores: Float[Tensor, "batch head query key"], call: AttentionCall
    ) -> Float[Tensor, "batch head query key"]:
        rows, system = text_rows(call, scores.shape[2]), call.columns(before_image(call.sequences))
        edited = amplify(scores, call.image, system, rows, self.boost, self.suppress)
        if self.heads is None:
            return edited
        chosen = torch.zeros(count, dtype=torch.bool, device=scores.device)
        chosen[list(dict(self.heads)[call.layer])] = True
        return torch.where(chosen[:, None, None], edited, scores)
