"""Procedures: published methods that call the model several times per answer.

They stand where decoders are named, in front: `["mvp", "vcd"]` or "mvp+vcd" runs MVP with VCD in each of its calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from .generate import Call
from .method import Strength
from .registry import PROCEDURES
from .results import Answer

__all__ = ["Call", "Procedure"]


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
