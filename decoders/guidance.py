"""Boosts of attention to image tokens, and guidance away from the prompt without them: PAI, and methods built on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..pipelines.engine.declarations import Branch, Declaration, LogitsEdit, Step
from ..pipelines.method import NO_IMAGE
from .attention_sites import shown
from .contrast import Contrast
from .plausibility import cut

if TYPE_CHECKING:
    from ..pipelines.model.layout import Inputs, Layout


def boost(
    scores: Float[Tensor, "batch head query key"], strength: Float[Tensor, "batch key"],
    rows: Bool[Tensor, "batch query"],
) -> Float[Tensor, "batch head query key"]:  # fmt: skip
    """z + strength·|z| in these rows: positive scores grow, negative ones move toward 0, masked ones stay."""
    gain = (strength[:, None, :] * rows[..., None])[:, None].to(scores.dtype)  # batch 1 query key
    return scores + gain * torch.where(shown(scores), scores.abs(), 0.0)


def guide(
    with_image: Float[Tensor, "batch vocab"], without_image: Float[Tensor, "batch vocab"], gamma: float, beta: float
) -> Float[Tensor, "batch vocab"]:
    """l + (γ − 1)·(log p − log p′), p = softmax l, and −inf where p(v) < β·max p; in float32.

    But for a constant this is γ·log p − (γ − 1)·log p′, which the released code has: there guidance comes behind a
    repetition penalty, here before it, and at the level of l that weighs as in plain decoding.
    """
    further = with_image.float().log_softmax(1) - without_image.float().log_softmax(1)
    return cut(with_image.float() + (gamma - 1) * further, with_image, beta)


class Guidance(Contrast):
    """A decoder that boosts attention, and guides logits away from the prompt without its image by γ, `gamma`.

    γ = 1 leaves the logits alone: no second branch, no cut. A subclass gives `boosts`.
    """

    against = NO_IMAGE
    weighs = ("gamma",)
    gamma: float

    @property
    def cuts(self) -> bool:
        return self.on("gamma") and bool(self.beta)

    def boosts(self, lvlm: Layout, inputs: Inputs) -> Iterator[Declaration]:
        """The edits of attention."""
        yield from ()

    def edits(self, lvlm: Layout, inputs: Inputs) -> Iterator[Declaration]:
        if self.on("gamma"):
            yield Branch(self.opened, lvlm.image_free(inputs))
        yield from self.boosts(lvlm, inputs)
        if self.on("gamma"):
            yield LogitsEdit(self.mix)

    def mix(self, logits: Float[Tensor, "batch vocab"], step: Step) -> Float[Tensor, "batch vocab"]:
        return guide(logits, step.branches[self.opened], self.gamma, self.beta)
