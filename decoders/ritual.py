"""RITUAL: a randomly transformed image as a complementary view.

Woo et al., "RITUAL: Random Image Transformations as a Universal Anti-hallucination Lever in Large Vision Language
Models", arXiv 2405.17821.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor, where

from ..pipelines.method import number, ruled, seed, share
from . import ritual_view
from .contrast import Contrast
from .ritual_transforms import TRANSFORMS
from .view import require_callable

if TYPE_CHECKING:
    from ..pipelines.engine.declarations import Step
    from ..pipelines.model.layout import Inputs, Layout

NAMES = tuple(TRANSFORMS)


def _known(name: str, values: Any) -> tuple[str, ...]:
    found = (values,) if isinstance(values, str) else tuple(values)
    if unknown := [value for value in found if value not in NAMES]:
        raise ValueError(f"{name} names {unknown[0]!r}, which is no transformation; possible: {', '.join(NAMES)}.")
    if not found:
        raise ValueError(f"{name} is empty; give at least one of {', '.join(NAMES)}.")
    return found


def complement(
    logits: Float[Tensor, "batch vocab"], transformed: Float[Tensor, "batch vocab"], alpha: float
) -> Float[Tensor, "batch vocab"]:
    """l + α·l⁺; a row of l⁺ that holds NaN adds nothing."""
    return where(transformed.isnan().any(1, keepdim=True), logits, logits + alpha * transformed)


@dataclass(frozen=True)
class RITUAL(Contrast):
    r"""Add the logits for a randomly transformed image.

    z = l + α·l⁺,   then z[v] = −inf where p(v) < β·max p

    l, l⁺: (batch, vocab) logits for the image and for the image after one of `transforms`, same prompt and same tokens
    so far. α, β: `alpha`, `beta`. Each sample has one transformation, drawn with `seed` and a checksum of its prompt
    and pixels (`ritual_view.drawn`), so that it depends neither on the batch nor on the order of the data.

    Raises:
        ValueError: a value outside its range; when decoding starts, inputs without an image, a view that returns
            another shape, or, without a view, tiles.

    Formula and values are those of the released code; the paper's text was not read. That code transforms the image
    before the processor, here its pixel values are transformed: the centre crop has happened already. Its sum applies
    to sampling alone (greedy decoding and beams bypass it), and its draw depends on all questions before; neither is
    reproduced. Even where l⁺ = l, z is 1 + α times as sharp as l, so that sampling becomes nearly greedy.
    """

    alpha: float = number(3.0, "weight of the transformed image", "0 leaves l. Code: 3.")
    beta: float = share(0.1, "plausibility cut", "0 is no cut. Code: 0.1.")
    view: Callable[..., Tensor] | None = ruled(
        None, "what transforms the image", "a callable, from the inputs or from inputs and prompts, to pixel_values",
        "It replaces the draw; needed for images in tiles.",
    )  # fmt: skip
    transforms: tuple[str, ...] = ruled(NAMES, "what is drawn from", f"names among {', '.join(NAMES)}", kept=_known)
    seed: int = seed("of the draw")

    against = "a transformed image"
    neutral = {"alpha": 0, "beta": 0}
    faint = {"alpha": 1e-7}
    released = {}  # what its scripts run, but for the bugs above

    def validate(self) -> None:
        require_callable(self.view)

    def branch(self, lvlm: Layout, inputs: Inputs) -> Inputs:
        return {**inputs, "pixel_values": ritual_view.transformed(lvlm, inputs, self.view, self.transforms, self.seed)}

    def mixed(
        self, logits: Float[Tensor, "batch vocab"], other: Float[Tensor, "batch vocab"], step: Step
    ) -> Float[Tensor, "batch vocab"]:
        return complement(logits, other, self.alpha)
