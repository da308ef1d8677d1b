"""Is this model understood? The properties that the tests check on tiny models, measured on any model and processor.

Each check returns a `Finding`: an error, what is allowed, and whether that holds. The checks are in `layout` (where
things are) and `engine` (what the engine promises); `flows.checkup.run` runs them all.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from PIL import Image, ImageOps
from torch import Tensor

from ...datasets.prompts import DETAIL_PROMPT
from ..engine.declarations import Declaration
from ..engine.logits import Forced
from ..engine.run import complete
from ..generate import generate
from ..lvlm import LVLM

# What generate does without anything of a model's own generation_config that changes logits.
PLAIN = {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0}
QUESTIONS = (DETAIL_PROMPT, "What is this?")
REORDERED = {torch.float64: 1e-8, torch.float32: 1e-4, torch.float16: 0.02, torch.bfloat16: 0.1}
SAME = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 0.004, torch.bfloat16: 0.03}
MOVED = 1e-3  # what must change logits changes them by more, in every precision


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    error: what was measured; None if nothing could be. allowed: the most that holds (the least, with at_least).
    why: the place of the error, or the reason of a failure.
    """

    name: str
    error: float | None
    allowed: float
    why: str = ""
    at_least: bool = False

    @property
    def holds(self) -> bool:
        if self.error is None:
            return False
        return self.error >= self.allowed if self.at_least else self.error <= self.allowed


def tolerance(dtype: torch.dtype, same: bool = False) -> float:
    """The largest error that is rounding. same: the same operations ran; else sums ran in another order."""
    return (SAME if same else REORDERED).get(dtype, REORDERED[torch.bfloat16])


def reason(dtype: torch.dtype) -> str:
    """Why the tolerances are what they are."""
    name = str(dtype).removeprefix("torch.")
    return (
        f"{name} rounds each operation to {torch.finfo(dtype).eps:.1e}. Allowed are {tolerance(dtype, True):g} where "
        f"the same operations run, and {tolerance(dtype):g} where batch, padding, cache or attention kernel add up in "
        "another order, layer after layer. Errors of logits are ‖a − b‖ / ‖b − mean b‖ over the vocabulary, the "
        "largest of all positions; those of attention are differences of probabilities."
    )


def distance(a: Float[Tensor, "*position vocab"], b: Float[Tensor, "*position vocab"]) -> float:
    """The largest over positions of ‖a − b‖ / ‖b − mean b‖; infinite where one has a cut token that the other keeps.

    >>> round(distance(torch.tensor([[0.0, 4.0, 5.0]]), torch.tensor([[0.0, 4.0, 8.0]])), 6)  # 3 / √(4² + 0² + 4²)
    0.53033
    """
    a, b = a.double().cpu(), b.double().cpu()
    finite = b.isfinite()
    if a.shape != b.shape or not torch.equal(a.isfinite(), finite):
        return float("inf")
    a, b = a.where(finite, 0.0), b.where(finite, 0.0)
    mean = b.sum(-1, keepdim=True) / finite.sum(-1, keepdim=True)
    spread = (b - mean).where(finite, 0.0).norm(dim=-1)
    spread = spread.where(spread > 0, 1.0)  # 0: all tokens but one are cut
    return ((a - b).norm(dim=-1) / spread).max().item()


@dataclass(frozen=True)
class Case:
    """A model with two images: the caller's and a narrower one, each with a question of its own."""

    lvlm: LVLM
    image: Image.Image
    tokens: int = 4

    @cached_property
    def images(self) -> list[Image.Image]:
        width, height = self.image.size
        return [self.image, self.image.crop((0, 0, max(1, 2 * width // 3), height))]

    @cached_property
    def alone(self) -> list[dict[str, Tensor]]:
        """The two prompts, each by itself."""
        return [
            complete(self.lvlm, self.lvlm.prepare([image], [question]))
            for image, question in zip(self.images, QUESTIONS, strict=True)
        ]

    @cached_property
    def inputs(self) -> dict[str, Tensor]:
        """The two prompts as one left-padded batch."""
        return complete(self.lvlm, self.lvlm.prepare(self.images, QUESTIONS))

    @cached_property
    def inverted(self) -> dict[str, Tensor]:
        """The first prompt with the negative of its image: other pixels at the same positions."""
        return complete(self.lvlm, self.lvlm.prepare([ImageOps.invert(self.image)], QUESTIONS[:1]))

    @cached_property
    def chosen(self) -> Int[Tensor, "row token"]:
        """What plain decoding writes about each image, by transformers alone; ends are forbidden."""
        rows = [self._transformers(one, self.tokens, min_new_tokens=self.tokens).sequences for one in self.alone]
        return torch.cat([row[:, -self.tokens :] for row in rows])

    @cached_property
    def plain(self) -> Float[Tensor, "token vocab"]:
        """The logits of transformers' own generate for the first prompt."""
        forced = Forced(self.chosen[:1].tolist())
        generation = self._transformers(self.alone[0], self.chosen.shape[1], logits_processor=[forced])
        return torch.stack([step[0].float() for step in generation.logits])

    def _transformers(self, inputs: Mapping[str, Tensor], tokens: int, **options: Any) -> Any:
        return self.lvlm.model.generate(
            **inputs, **PLAIN, max_new_tokens=tokens, output_logits=True, return_dict_in_generate=True, **options
        )

    def logits(
        self, decoders: Sequence[Any] = (), inputs: Mapping[str, Tensor] | None = None, tokens: Tensor | None = None
    ) -> Float[Tensor, "row token vocab"]:
        """Logits of a run through our engine with forced tokens, by default the plain ones of the first prompt."""
        tokens = self.chosen[:1] if tokens is None else tokens
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            generation = generate(
                self.lvlm, self.alone[0] if inputs is None else inputs, decoders, return_logits=True, **forced(tokens)
            )
        assert generation.logits is not None
        return generation.logits


def forced(tokens: Int[Tensor, "row token"]) -> dict[str, Any]:
    """Options of generate that force these tokens, without anything of the model's own that changes logits."""
    return {"max_new_tokens": tokens.shape[1], "logits_processor": [Forced(tokens.tolist())], **PLAIN}


@dataclass(frozen=True)
class Declares:
    """A decoder of these declarations."""

    declared: Sequence[Declaration]

    def edits(self, lvlm: LVLM, inputs: Any) -> Iterator[Declaration]:
        yield from self.declared
