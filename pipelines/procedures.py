"""Procedures: published methods that call the model several times per answer.

They stand where decoders are named, in front: `["mvp", "vcd"]` or "mvp+vcd" runs MVP with VCD in each of its calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from .generate import generate
from .inputs.prepare import prepare
from .method import Strength
from .model.layout import Layout
from .registry import PROCEDURES
from .results import Answer, Generation


class Procedure(Strength):
    """A paper's way to answer by several calls of the model.

    `acted` of its answers has, under its name, steps (1: an answer is one decision), acted (1 where the procedure made
    that decision, 0 where the answer is the model's plain one), flipped (1 where it is known to be another than the
    plain one would be), kl (0: there is no distribution to compare), and what else it found.
    """

    registry = PROCEDURES
    two_images: ClassVar[bool] = False  # whether a prompt has two of them

    def check(self, questions: Sequence[str], detectors: Sequence[Any], generation: Mapping[str, Any]) -> None:
        """Raise ValueError for what it cannot do, before the first call."""

    def answers(
        self, call: Call, images: Sequence[Any], questions: Sequence[str], seeds: Sequence[int]
    ) -> list[Answer]:
        """One per image, without settings and seconds. An image's answer does not depend on the other images."""
        raise NotImplementedError(f"{type(self).__name__} has no answers().")


@dataclass(frozen=True)
class Call:
    """How a procedure calls the model: with the chain's decoders in place, and decoding as the run does."""

    lvlm: Layout
    decoders: Sequence[Any]
    detectors: Sequence[Any]
    system: str | None
    generation: Mapping[str, Any]

    def inputs(self, images: Sequence[Any], questions: Sequence[str]) -> dict[str, Tensor]:
        """Rows as `LVLM.prepare` makes them; an entry of `images` may be a list of several images."""
        return prepare(self.lvlm, images, questions, self.system)

    def generate(
        self, inputs: Mapping[str, Tensor], seeds: Sequence[int], return_logits: bool = False, **changes: Any
    ) -> Generation:
        """`veridical.generate` as the run decodes, but for `changes`. seeds: one per row, for sampling."""
        options = {**self.generation, **changes}
        drawn = list(seeds) if options.get("do_sample") else None
        return generate(
            self.lvlm, inputs, self.decoders, self.detectors, return_logits=return_logits, seed=drawn, **options
        )

    def silent(self) -> Call:
        """The same without detectors: for intermediate texts, which are not returned."""
        return replace(self, detectors=())
