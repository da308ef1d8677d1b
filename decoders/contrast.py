"""What contrastive decoders share: a second branch of the same prompt, and logits that are weighed against its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from jaxtyping import Float
from torch import Tensor

from ..pipelines.engine.declarations import Branch, Declaration, LogitsEdit, Step
from ..pipelines.method import Decoder
from .plausibility import cut

if TYPE_CHECKING:
    from ..pipelines.model.layout import Inputs, Layout


def contrast(
    logits: Float[Tensor, "batch vocab"], other: Float[Tensor, "batch vocab"], alpha: float | Float[Tensor, "batch 1"]
) -> Float[Tensor, "batch vocab"]:
    """(1 + α)·l − α·l′; α may be a row's own."""
    return (1 + alpha) * logits - alpha * other


class Contrast(Decoder):
    """A decoder that opens one branch and mixes its logits with the main ones.

    A subclass gives `against`, what the branch reads in words; `branch`, its inputs; `mixed`, the formula. weighs: the
    fields that weigh the contrast.
    """

    weighs: ClassVar[tuple[str, ...]] = ("alpha",)
    alpha: float
    beta: float

    @property
    def reference(self) -> str | None:
        return self.against if self.on(*self.weighs) else None

    @property
    def spares(self) -> bool:
        """Whether there are steps at which the branch is not needed, so that it may be read late."""
        return False

    @property
    def opened(self) -> str:
        """The branch's name."""
        return type(self).__name__.lower()

    def branch(self, lvlm: Layout, inputs: Inputs) -> Inputs:
        """The inputs of the second branch, row for row those of the samples."""
        raise NotImplementedError(f"{type(self).__name__} has no branch().")

    def mixed(
        self, logits: Float[Tensor, "batch vocab"], other: Float[Tensor, "batch vocab"], step: Step
    ) -> Float[Tensor, "batch vocab"]:
        """z from l and the branch's l′."""
        return contrast(logits, other, self.alpha)

    def edits(self, lvlm: Layout, inputs: Inputs) -> Iterator[Declaration]:
        yield Branch(self.opened, self.branch(lvlm, inputs), late=self.spares)
        yield LogitsEdit(self.mix)

    def mix(self, logits: Float[Tensor, "batch vocab"], step: Step) -> Float[Tensor, "batch vocab"]:
        """z, without the tokens that l finds implausible."""
        return cut(self.mixed(logits, step.branches[self.opened], step), logits, self.beta)
