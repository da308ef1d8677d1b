"""Image attention: how little attention the step that produces a token pays to the image."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from ..pipelines.checks import check_layers
from ..pipelines.engine.declarations import Reading
from ..pipelines.engine.record import Record
from ..pipelines.method import Detector, layers_of

if TYPE_CHECKING:
    from ..pipelines.engine.call import AttentionCall


def image_share(call: "AttentionCall") -> Float[Tensor, "batch token head"]:
    """Σ of attention over image tokens, of every head, at the rows that produce tokens."""
    key = ("image column", call.key.shape[2], call.query.device)
    column = call.sequences.once(key, lambda: call.image.float()[..., None])  # one for all layers
    return call.sums(column, call.producing)[..., 0]


@dataclass(frozen=True)
class ImageAttention(Detector):
    """Risk = −Σ_{l ∈ layers} mean_h Σ_{image tokens} a[l, h], read at the step that produces the token (SVAR).

    Jiang et al., "Devils in Middle Layers of Large Vision-Language Models", CVPR 2025, arXiv 2411.16724. Attention to
    the image falls with position, so compare with `position`.
    """

    layers: Sequence[int] | None = layers_of(
        "layers that are read", "By default 5 to 18 of 32 in proportion, as published for LLaVA-1.5."
    )

    def readings(self, lvlm: Any, inputs: Any) -> Iterator[Any]:
        count = len(lvlm.layers)
        layers = range(round(count * 5 / 32), round(count * 18 / 32) + 1) if self.layers is None else self.layers
        yield Reading("image_attention", check_layers(layers, count, "ImageAttention"), keep=image_share)

    def score(self, record: Record) -> Float[Tensor, "sample token"]:
        return -record["image_attention"].mean(-1).sum(-1)
