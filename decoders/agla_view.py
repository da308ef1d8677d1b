"""The view of AGLA's paper: what of each image has nothing to do with its prompt is blacked out."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Bool, Float
from torch import Tensor

from ..pipelines.inputs.pixel_values import images_of
from ..pipelines.inputs.prepare import prompt_text
from ..pipelines.matching.cache import Cached
from ..pipelines.matching.load import default_matcher, load_matcher
from ..pipelines.model.families import family
from .view import require_image, viewed

if TYPE_CHECKING:
    from ..pipelines.matching.base import Matcher
    from ..pipelines.model.layout import Inputs, Layout

WORDS = 50
LEAST_MASKED = 1e-5
_MARK = "Question"
_SHORT = re.compile(
    r"\s*(please answer this question with one word|answer the question using a single word or phrase)\.?\s*$", re.I
)


def keep_index(similarity: float, pixels: int) -> int:
    """⌊pixels · min(1 − s/2, 1 − 1e-5)⌋: rank, from 0, of the least relevant pixel that stays.

    similarity: cosine of image and prompt, −1 to 1. The better they match, the more is masked.
    """
    return math.floor(pixels * min(1 - similarity / 2, 1 - LEAST_MASKED))


def keep_mask(cam: Float[Tensor, "height width"], similarity: float) -> Bool[Tensor, "height width"]:
    """Pixels whose relevance reaches that of rank `keep_index`."""
    ordered = cam.flatten().sort(descending=True).values
    return cam >= ordered[keep_index(similarity, cam.numel())]


@dataclass(frozen=True)
class MatchedView:
    """`pixel_values` in which every image keeps only what its matcher finds relevant to its prompt.

    A share s/2 of the pixels goes, s being the similarity of image and prompt: those of least relevance.

    Args:
        lvlm: has the layout of images in its inputs, and what surrounds a question in its prompts.
        matcher: any `Matcher`.

    Raises:
        pipelines.inputs.pixel_values.NoImages: when called, inputs in which the images cannot be made out.

    The released code squashes the original image to 384 × 384 and lets the model preprocess the result, so that the
    two branches have images of different shapes; here both have the same, and only pixels differ.
    """

    lvlm: Layout
    matcher: Matcher

    def __call__(self, inputs: Inputs, prompts: Sequence[str]) -> Tensor:
        images = images_of(self.lvlm, inputs)
        before, after = around_question(self.lvlm)
        texts = [question(prompt, before, after) for prompt in prompts]
        matches = self.matcher.match(images.whole, texts)
        return images.black_out([
            keep_mask(match.spread(*image.shape[-2:]), match.similarity)
            for match, image in zip(matches, images.whole, strict=True)
        ])  # fmt: skip


def masked(lvlm: Layout, inputs: Inputs, view: Callable[..., Tensor] | None, matcher: str | None) -> Tensor:
    """The view's `pixel_values`, checked; without a view those of the matcher's.

    Raises:
        ValueError: inputs without an image, a view that returns another shape, or no processor for a matcher to read.
    """
    require_image(inputs, "mask")
    if view is None and lvlm.processor is None:
        raise ValueError(
            "AGLA's matchers read RGB images and questions, which a model without a processor does not have: load it "
            "from a folder with its processor, or give AGLA(view=…), a callable from the inputs to pixel_values of the "
            "same shape"
        )
    return viewed(lvlm, inputs, matched_view(lvlm, matcher) if view is None else view)


def matched_view(lvlm: Layout, matcher: str | None) -> MatchedView:
    """The view with the matcher of that name, or with the model's default; its maps are kept on disk.

    Raises:
        CannotLoad: there is no such matcher, or it cannot be fetched.
    """
    return MatchedView(lvlm, Cached(load_matcher(matcher or default_matcher(lvlm), str(lvlm.device))))


def around_question(lvlm: Layout) -> tuple[str, str]:
    """What a prompt of this model has before and behind its question, as it reads without image tokens."""
    tokens = lvlm.processor.tokenizer
    ids = tokens(prompt_text(lvlm.processor, _MARK, template=family(lvlm.model).template), return_tensors="pt")
    kept = ids.input_ids[0][~lvlm.image_mask(ids.input_ids[0])]
    before, _, after = tokens.decode(kept, skip_special_tokens=True).strip().partition(_MARK)
    return before.strip(), after.strip()


def question(prompt: str, before: str, after: str) -> str:
    """The bare question of a prompt, as the paper's matcher gets it.

    Without what the chat template puts around it and without "answer with one word"; lower case, . ! " ( ) * # : ; ~
    as spaces, at most 50 words.
    """
    text = prompt.strip()
    if before and before in text:
        text = text.partition(before)[2]
    text = _SHORT.sub("", text.removesuffix(after))
    return " ".join(re.sub(r"[.!\"()*#:;~]", " ", text.lower()).split()[:WORDS])
