"""Assembly of Global and Local Attention (AGLA).

An et al., "Mitigating Object Hallucinations in Large Vision-Language Models with Assembly of Global and Local
Attention", CVPR 2025, arXiv 2406.12718.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from jaxtyping import Float
from torch import Tensor

from ..pipelines.engine.declarations import Step
from ..pipelines.matching.load import check_matcher
from ..pipelines.method import number, one_of, ruled, share
from . import agla_view
from .contrast import Contrast
from .view import require_callable

if TYPE_CHECKING:
    from ..pipelines.model.layout import Inputs, Layout


def assemble(
    logits: Float[Tensor, "batch vocab"], local: Float[Tensor, "batch vocab"], alpha: float
) -> Float[Tensor, "batch vocab"]:
    """l + α·l⁺"""
    return logits + alpha * local


@dataclass(frozen=True)
class AGLA(Contrast):
    r"""Add the logits for the image in which everything that is irrelevant to the prompt is blacked out.

    z = l + α·l⁺,   then z[v] = −inf where p(v) < β·max p

    l, l⁺: (batch, vocab) logits for the image and for its masked `view`, same prompt and same tokens so far. α, β:
    `alpha`, `beta`. The view of the paper, made by a `matcher`, is `agla_view.MatchedView`.

    Raises:
        ValueError: a value outside its range; when decoding starts, a view that returns another shape, or inputs in
            which no image can be made out. CannotLoad: when decoding starts, a matcher that is not to be had.

    The released sampler copies the original image's cache into the second branch at every step, so that from the
    second token on l⁺ = l and z = (1 + α)·l: sharpened plain sampling. `mode="official"` reproduces that; caption
    figures published with that sampler measure it. z is α times sharper than l even where l⁺ = l.
    """

    alpha: float = number(2.0, "weight of the masked image", "0 leaves l. Paper: 2.")
    beta: float = share(0.5, "plausibility cut", "0 is no cut. Paper: 0.5, so tight that sampling is nearly greedy.")
    view: Callable[..., Tensor] | None = ruled(
        None, "what masks the image", "a callable, from the inputs or from inputs and prompts, to pixel_values",
        "By default what a matcher finds irrelevant to the prompt goes black.",
    )  # fmt: skip
    mode: Literal["paper", "official"] = one_of(("paper", "official"), "whose cache")
    matcher: str | None = ruled(
        None, "the matcher of the default view", '"embedded", or "open_clip:…" or "blip:…" with a folder or Hub id',
        'By default "embedded" for the embedded model; else the paper\'s, BLIP-ITM large, fetched from the Hub when '
        "first needed. Its maps are kept by image, prompt and matcher in $VERIDICAL_CACHE or the user's cache folder.",
    )  # fmt: skip

    against = "a masked image"
    one_image = ("alpha", "beta")
    neutral = {"alpha": 0, "beta": 0}
    released = {"mode": "official"}

    def validate(self) -> None:
        require_callable(self.view)
        if self.matcher is not None:
            check_matcher(self.matcher)
            if self.view is not None:
                raise ValueError(f"view and matcher={self.matcher!r} both say what is masked; give one of them.")

    @classmethod
    def official(cls, view: Callable[..., Tensor] | None = None, **changes: Any) -> Self:
        """What the released sampler does: the masked image counts for the first token alone."""
        return super().official(view=view, **changes)

    def fetch(self, lvlm: Layout) -> None:
        """Load the matcher now, so that one that is not to be had is missed before anything is answered."""
        if self.view is None and not self.is_neutral:
            agla_view.matched_view(lvlm, self.matcher)

    def branch(self, lvlm: Layout, inputs: Inputs) -> Inputs:
        return {**inputs, "pixel_values": agla_view.masked(lvlm, inputs, self.view, self.matcher)}

    def mixed(
        self, logits: Float[Tensor, "batch vocab"], other: Float[Tensor, "batch vocab"], step: Step
    ) -> Float[Tensor, "batch vocab"]:
        used = self.mode == "paper" or step.index == 0
        return assemble(logits, other if used else logits, self.alpha)
