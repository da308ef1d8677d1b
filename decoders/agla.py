"""Assembly of Global and Local Attention (AGLA).

An et al., "Mitigating Object Hallucinations in Large Vision-Language Models with Assembly of Global and Local
Attention", CVPR 2025, arXiv 2406.12718.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from jaxtyping import Bool, Float
from torch import Tensor

from ..pipelines.checks import check_at_least, check_choice, check_range
from ..pipelines.engine.declarations import Branch, Declaration, LogitsEdit, Step
from ..pipelines.matching.load import check_matcher
from .plausibility import cut

if TYPE_CHECKING:
    from ..pipelines.lvlm import LVLM, Inputs

MODES = ("paper", "official")
LEAST_MASKED = 1e-5


# -- which part of the picture stays -------------------------------------------------------------------------------
def keep_index(similarity: float, pixels: int) -> int:
    """⌊pixels · min(1 − s/2, 1 − 1e-5)⌋: rank, from 0, of the least relevant pixel that stays.

    similarity: cosine of picture and prompt, −1 to 1. The better they match, the more is masked.
    """
    return math.floor(pixels * min(1 - similarity / 2, 1 - LEAST_MASKED))


def keep_mask(cam: Float[Tensor, "height width"], similarity: float) -> Bool[Tensor, "height width"]:
    """Pixels whose relevance reaches that of rank `keep_index`."""
    ordered = cam.flatten().sort(descending=True).values
    return cam >= ordered[keep_index(similarity, cam.numel())]


# -- the method ----------------------------------------------------------------------------------------------------
def assemble(
    logits: Float[Tensor, "batch vocab"], local: Float[Tensor, "batch vocab"], alpha: float
) -> Float[Tensor, "batch vocab"]:
    """l + α·l⁺"""
    return logits + alpha * local


@dataclass(frozen=True)
class AGLA:
    r"""Add what the model says of the picture with everything blacked out that has nothing to do with the prompt.

    z = l + α·l⁺,   then z[v] = −inf where p(v) < β·max p

    l, l⁺: (batch, vocab) logits for the picture and for the masked picture, same prompt and same tokens so far.

    Args:
        alpha: weight of the masked picture, 0 or more; 0 leaves l. Paper: 2.
        beta: plausibility cut, 0 to 1; 0 is no cut. Paper: 0.5, so tight that sampling is nearly greedy.
        view: makes the masked picture: called with the inputs, or with inputs and the list of prompts if it takes two
            arguments, it returns `pixel_values` of the same shape. None: what a matcher finds irrelevant goes black.
        mode: "paper", or "official" for the cache of the released code.
        matcher: for view=None: "embedded", "open_clip:…" or "blip:…" and a folder or Hub id. None: "embedded" for the
            embedded model; else the paper's, BLIP-ITM large, fetched from the Hub when first needed. Its maps are
            kept on disk, by picture, prompt and matcher, in $VERIDICAL_CACHE or the user's cache folder.

    Raises:
        ValueError: a value outside its range; when decoding starts, a view that returns another shape, or inputs in
            which no picture can be made out. CannotLoad: when decoding starts, a matcher that is not to be had.

    The released sampler copies the original picture's cache into the second branch at every step, so that from the
    second token on l⁺ = l and z = (1 + α)·l: sharpened plain sampling. `mode="official"` reproduces that; caption
    figures published with that sampler measure it. z is α times sharper than l even where l⁺ = l.
    """

    alpha: float = 2.0
    beta: float = 0.5
    view: Callable[..., Tensor] | None = None
    mode: Literal["paper", "official"] = "paper"
    matcher: str | None = None

    paper: ClassVar[str] = "arXiv 2406.12718"
    changes: ClassVar[str] = "logits, with those of a masked picture"
    cost: ClassVar[str] = "2 forwards per token, and once per picture and prompt a matcher's pass with gradient"
    differs: ClassVar[str] = (
        "The released sampler gives both branches one cache, so that the masked picture counts for the first token "
        "alone. official() does the same."
    )

    def __post_init__(self) -> None:
        check_at_least("alpha", self.alpha, 0, "weight of the masked picture")
        check_range("beta", self.beta, 0, 1, "plausibility cut")
        check_choice("mode", self.mode, MODES, "whose cache")
        if self.view is not None and not callable(self.view):
            raise ValueError(f"view={self.view!r} cannot be called; give a function from the inputs to pixel_values.")
        if self.matcher is not None:
            check_matcher(self.matcher)
            if self.view is not None:
                raise ValueError(f"view and matcher={self.matcher!r} both say what is masked; give one of them.")

    @classmethod
    def official(cls, view: Callable[..., Tensor] | None = None) -> AGLA:
        """What the released sampler does: the masked picture counts for the first token alone."""
        return cls(view=view, mode="official")

    def fetch(self, lvlm: LVLM) -> None:
        """Load the matcher now, so that one that is not to be had is missed before anything is answered."""
        if self.view is None and (self.alpha or self.beta):
            from .agla_view import matched_view

            matched_view(lvlm, self.matcher)

    def edits(self, lvlm: LVLM, inputs: Inputs) -> Iterator[Declaration]:
        if self.alpha == 0 and self.beta == 0:
            return
        yield Branch("agla", {**inputs, "pixel_values": self.masked(lvlm, inputs)})
        yield LogitsEdit(self.mix)

    def masked(self, lvlm: LVLM, inputs: Inputs) -> Tensor:
        """The view's `pixel_values`, checked."""
        if "pixel_values" not in inputs:
            raise ValueError(f"there is no picture to mask: inputs lack pixel_values; found {', '.join(inputs)}")
        view = self.view
        if view is None:
            if lvlm.processor is None:
                raise ValueError(
                    "AGLA's matchers look at RGB pictures and questions, which a model without a processor does not "
                    "have: load it from a folder with its processor, or give AGLA(view=…), a callable from the inputs "
                    "to pixel_values of the same shape"
                )
            from .agla_view import matched_view

            view = matched_view(lvlm, self.matcher)
        given = (inputs, prompts(lvlm, inputs)) if takes_prompts(view) else (inputs,)
        pixels, found = inputs["pixel_values"], view(*given)
        if found.shape != pixels.shape:
            raise ValueError(
                f"view returned pixel_values of shape {tuple(found.shape)}; the picture's are {tuple(pixels.shape)}, "
                "and both branches need as many image tokens"
            )
        return found.to(pixels)

    def mix(self, logits: Float[Tensor, "batch vocab"], step: Step) -> Float[Tensor, "batch vocab"]:
        seen = self.mode == "paper" or step.index == 0
        return cut(assemble(logits, step.branches["agla"] if seen else logits, self.alpha), logits, self.beta)


def takes_prompts(view: Callable[..., Any]) -> bool:
    """Whether a view has room for a second positional argument."""
    kinds = [p.kind for p in inspect.signature(view).parameters.values()]
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return inspect.Parameter.VAR_POSITIONAL in kinds or sum(kind in positional for kind in kinds) > 1


def prompts(lvlm: LVLM, inputs: Inputs) -> list[str]:
    """The text of every row without its image tokens; "" without a processor."""
    if lvlm.processor is None:
        return [""] * inputs["input_ids"].shape[0]
    kept = ~lvlm.image_mask(inputs["input_ids"]) & inputs["attention_mask"].bool()
    rows = [ids[keep] for ids, keep in zip(inputs["input_ids"], kept, strict=True)]
    return [lvlm.processor.tokenizer.decode(row, skip_special_tokens=True).strip() for row in rows]
