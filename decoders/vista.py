"""VISTA: Visual Steering Vector (VSV) and Self-Logits Augmentation (SLA) together.

Li et al., "The Hidden Life of Tokens: Reducing Hallucination of Large Vision-Language Models via Visual Information
Steering", ICML 2025, arXiv 2502.03628.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..pipelines.engine.declarations import Declaration
from ..pipelines.method import Decoder, flag, layers_of, number, one_of, share
from .early_logits import Window, window_field
from .sla import SLA
from .vsv import MODES, STRENGTHS, VSV

if TYPE_CHECKING:
    from ..pipelines.model.layout import Inputs, Layout

__all__ = ["SLA", "VISTA", "VSV"]


@dataclass(frozen=True)
class VISTA(Decoder):
    r"""VSV and SLA together: steered states, from which the early logits are read too.

    `strength`, `mode`, `layers`: as in `VSV`. `gamma`, `window`, `final_norm`: as in `SLA`.

    Raises:
        ValueError: as they do.
    """

    strength: float = number(0.17, "λ, how far states are steered", "0 leaves states alone. Paper: as for vsv.")
    gamma: float = share(0.3, "share of the early logits", "0 leaves logits alone. Paper: 0.3.")
    window: Window = window_field()
    mode: Literal["paper", "official"] = one_of(MODES, "whose formula of steering")
    layers: Sequence[int] | None = layers_of("layers that are steered", "By default all, as in the paper.")
    final_norm: bool = flag(False, "apply the final norm before the head")

    inside = ("strength",)
    steers = ("strength",)
    mixes = ("gamma",)
    neutral = {"strength": 0, "gamma": 0}
    faint = {"strength": 1e-7, "gamma": 1e-7}
    released = {"window": (-7, -2), "mode": "official"}
    by_model = STRENGTHS

    def parts(self) -> tuple[VSV, SLA]:
        """The two methods, in their order."""
        return VSV(self.strength, self.mode, self.layers), SLA(self.gamma, self.window, self.final_norm)

    def edits(self, lvlm: Layout, inputs: Inputs) -> Iterator[Declaration]:
        for part in self.parts():
            if not part.is_neutral:
                yield from part.edits(lvlm, inputs)
