"""The view of AGLA's paper: what of each picture has nothing to do with its prompt is blacked out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from ..pipelines.inputs.pixel_values import pictures
from ..pipelines.inputs.prepare import prompt_text
from ..pipelines.matching.cache import Cached
from ..pipelines.matching.load import default_matcher, load_matcher
from ..pipelines.model.families import family
from .agla import keep_mask

if TYPE_CHECKING:
    from ..pipelines.lvlm import LVLM, Inputs
    from ..pipelines.matching.base import Matcher

WORDS = 50
_MARK = "Question"
_SHORT = re.compile(
    r"\s*(please answer this question with one word|answer the question using a single word or phrase)\.?\s*$", re.I
)


@dataclass(frozen=True)
class MatchedView:
    """`pixel_values` in which every picture keeps only what its matcher finds relevant to its prompt.

    A share s/2 of the pixels goes, s being the similarity of picture and prompt: those of least relevance.

    Args:
        lvlm: says how its inputs hold pictures and what surrounds a question in its prompts.
        matcher: any `Matcher`.

    Raises:
        pipelines.inputs.pixel_values.NoPictures: when called, inputs in which the pictures cannot be made out.

    The released code squashes the original picture to 384 × 384 and lets the model preprocess the result, so that the
    two branches see differently shaped pictures; here both see the same, and only pixels differ.
    """

    lvlm: LVLM
    matcher: Matcher

    def __call__(self, inputs: Inputs, prompts: Sequence[str]) -> Tensor:
        seen = pictures(self.lvlm, inputs)
        before, after = around_question(self.lvlm)
        texts = [question(prompt, before, after) for prompt in prompts]
        matches = self.matcher.match(seen.whole, texts)
        return seen.black_out([
            keep_mask(match.spread(*picture.shape[-2:]), match.similarity)
            for match, picture in zip(matches, seen.whole, strict=True)
        ])  # fmt: skip


def matched_view(lvlm: LVLM, matcher: str | None) -> MatchedView:
    """The view with the matcher of that name, or with the model's default; what it says is kept on disk.

    Raises:
        CannotLoad: there is no such matcher, or it cannot be fetched.
    """
    return MatchedView(lvlm, Cached(load_matcher(matcher or default_matcher(lvlm), str(lvlm.device))))


def around_question(lvlm: LVLM) -> tuple[str, str]:
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
