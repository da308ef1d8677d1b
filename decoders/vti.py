"""Visual and Textual Intervention (VTI).

Liu et al., "Reducing Hallucinations in Vision-Language Models via Latent Space Steering", ICLR 2025, arXiv 2410.15778.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from ..pipelines.engine.declarations import Declaration, ResidualEdit
from ..pipelines.method import count, number
from .fitted import Fits, Fitted, weights_field
from .vti_fit import Demonstrations, image_directions, text_directions

if TYPE_CHECKING:
    from ..pipelines.engine.call import LayerCall
    from ..pipelines.model.layout import Inputs, Layout

FACTOR = 0.1  # of α, a literal of the released code


def steer(
    x: Float[Tensor, "*any hidden"], d: Float[Tensor, "*some hidden"], alpha: float
) -> Float[Tensor, "*any hidden"]:
    """x ← ‖x‖·u/‖u‖, u = x/‖x‖ + 0.1·α·d/‖d‖, in float32 or more; x = 0, d = 0 and u = 0 leave x.

    >>> [round(one, 4) for one in steer(torch.tensor([3.0, 4.0]), torch.tensor([2.0, 0.0]), 2).tolist()]
    [3.5355, 3.5355]
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    toward = d.to(wide)
    length = wide.norm(dim=-1, keepdim=True)
    u = wide / length + FACTOR * alpha * toward / toward.norm(dim=-1, keepdim=True)
    turned = length * u / u.norm(dim=-1, keepdim=True)
    return torch.where(turned.isfinite().all(-1, keepdim=True), turned, wide).to(x.dtype)


@dataclass(frozen=True)
class VTI(Fits):
    r"""Turn every MLP's output a little toward a fixed direction of its layer, in the language model and the tower.

    x ← ‖x‖·u/‖u‖,   u = x/‖x‖ + 0.1·α·d_l/‖d_l‖

    x: (batch, position, hidden), the MLP's output before it is added, at every position of every pass; d_l: of layer l,
    from hallucinated captions toward true ones at their last token: mean of the differences and their first
    `components` principal directions, unit length over all layers together. α: `alpha`. In the vision tower,
    (image, token, hidden), with a direction for each layer and token from the image toward the mean of heavily masked
    ones: `alpha_image`. `weights`: a folder of `veridical fit vti`, or what `fit` or `from_directions` made.

    Raises:
        ValueError: nothing was fitted for this model, directions of another shape, or a tower without a fixed grid.
        OtherModel: the directions are of another model.

    The paper's tables and text were not read; there is nothing to reproduce against. The formula and α = 0.8 are the
    released code's, whose README has 0.9 for both parts. The paper speaks of principal directions per layer, the code
    has one over all layers and adds the mean, which is far larger; `components=0` leaves the mean alone. `official()`
    differs in the fit alone: `fit(mode="official")` takes the last layer's state after the final norm, and the image's
    components over runs of memory that the code mistakes for tokens. It fits the text on an already steered tower,
    and breaks in bfloat16; neither is reproduced. In models with a norm behind the MLP (Gemma) the turn comes before
    it.
    """

    alpha: float = number(0.8, "α, strength in the language model", "0 leaves it. Code: 0.8; README 0.9.")
    alpha_image: float = number(0.0, "strength in the vision tower", "0 leaves it. Code: 0; README 0.9.")
    components: int = count(1, "principal directions beside the mean", "0 is the mean alone. Code: 1.")
    weights: Any = weights_field()

    fits = "vti"
    inside = ("alpha", "alpha_image")
    neutral = {"alpha": 0, "alpha_image": 0}
    released = {}

    @classmethod
    def from_directions(
        cls, text: Float[Tensor, "layer hidden"] | None,
        image: Float[Tensor, "tower_layer token tower_hidden"] | None = None, **fields: Any,
    ) -> Self:  # fmt: skip
        """With directions of your own; a part that is None is not steered."""
        directions = {"text": text, "image": image}
        return cls(weights=Fitted({name: value for name, value in directions.items() if value is not None}), **fields)

    @classmethod
    def fit(
        cls, lvlm: Layout, pairs: Sequence[tuple[str, str]], images: Sequence[Any],
        how: Demonstrations = Demonstrations(), **fields: Any,  # noqa: B008
    ) -> Self:  # fmt: skip
        """Find the directions on pairs of a true and a hallucinated caption, one for each image.

        The image part is fitted where `alpha_image` is above 0, or `how.image` is set.

        Raises:
            ValueError: other than one pair for each image, fewer than two, or a tower without a fixed grid.
        """
        tensors = text_directions(lvlm, pairs, images, how)
        if how.image or fields.get("alpha_image"):
            tensors |= image_directions(lvlm, images, how)
        return cls(weights=Fitted(tensors, how.about(lvlm, pairs)), **fields)

    def edits(self, lvlm: Layout, inputs: Inputs) -> Iterator[Declaration]:
        known = self.fitted(lvlm).tensors
        parts = (("text", self.alpha, "mlp"), ("image", self.alpha_image, "vision_mlp"))
        for name, alpha, at in parts:
            if not alpha or name not in known:
                continue
            d = self.direction(known, name)
            layers = lvlm.layers if name == "text" else lvlm.vision_layers
            width = lvlm.hidden_size if name == "text" else d.shape[-1]
            if len(d) != len(layers) or d.shape[-1] != width:
                raise ValueError(
                    f"vti: directions of the {name} have the shape {tuple(d.shape)}, and this model has {len(layers)} "
                    f"layers of {width} there: fit them on it."
                )
            yield ResidualEdit(range(len(layers)), partial(self.edit, d, alpha), at=at)  # type: ignore[arg-type]

    def direction(self, known: Any, name: str) -> Tensor:
        """Mean and principal directions of a part, added up."""
        several = known.get(f"{name}_components")
        if several is None or not self.components:
            return known[name]
        if len(several) < self.components:
            raise ValueError(f"vti: {len(several)} principal directions were fitted, and components={self.components}.")
        return known[name] + several[: self.components].sum(0)

    def edit(self, d: Tensor, alpha: float, x: Float[Tensor, "row query hidden"], call: LayerCall) -> Tensor:
        toward = d[call.layer].to(x.device)
        if toward.dim() == 2 and toward.shape != x.shape[1:]:
            raise ValueError(
                f"vti: directions of the vision tower are of (token, hidden) {tuple(toward.shape)}, and this image has "
                f"{tuple(x.shape[1:])}: images of one size alone can be steered."
            )
        return steer(x, toward, alpha)
