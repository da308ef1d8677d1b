"""Visual Steering Vector (VSV), one half of VISTA.

Li et al., "The Hidden Life of Tokens: Reducing Hallucination of Large Vision-Language Models via Visual Information
Steering", ICML 2025, arXiv 2502.03628.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from jaxtyping import Float
from torch import Tensor

from ..pipelines.engine.declarations import Branch, Declaration, Reading, ResidualEdit
from ..pipelines.engine.run import prefill
from ..pipelines.method import Decoder, layers_of, number, one_of
from .depth import chosen_layers
from .steering import steer, steer_official

if TYPE_CHECKING:
    from ..pipelines.engine.call import LayerCall
    from ..pipelines.model.layout import Inputs, Layout

MODES = ("paper", "official")
STRENGTHS = {  # λ for captions; the paper's other models, LLaVA-1.5 and InstructBLIP, have the default
    "shikra": {"strength": 0.12},
    "minigpt-?4": {"strength": 0.1},
}


@dataclass(frozen=True)
class VSV(Decoder):
    r"""Steer every layer toward what the image adds to the last prompt token, keeping the length of the state.

    v_l = h_l(last; image) − h_l(last; no image),   h ← (h + λ·v_l)·‖h‖/‖h + λ·v_l‖   (Eq. 4–6)

    h: (batch, position, hidden), output of block l of `layers`, at every position of every pass, the prompt included.
    λ: `strength`. `mode="official"` is the released code's formula, `steer_official`.

    Raises:
        ValueError: strength below 0, an unknown mode, or a layer that the model does not have.

    The image-free prompt is the same text with the image tokens deleted, positions renumbered. The released code
    steers the MLP's output before it is added, with both vectors normalised and a gain of 1 to 2 for tokens that point
    away; its one-sample PCA adds 1 to dimension 0 of layer 0, which `mode="official"` reproduces. The paper's λ were
    tuned on that code, so the same number is another strength in "paper" mode.
    """

    strength: float = number(
        0.17, "λ, how far states are steered",
        "0 is plain decoding. Paper: 0.17 for captions (LLaVA-1.5, InstructBLIP; 0.12 Shikra, 0.1 MiniGPT-4), 0.01 for "
        "POPE.",
    )  # fmt: skip
    mode: Literal["paper", "official"] = one_of(MODES, "whose formula")
    layers: Sequence[int] | None = layers_of("layers that are steered", "By default all, as in the paper.")

    inside = ("strength",)
    steers = ("strength",)
    neutral = {"strength": 0}
    faint = {"strength": 1e-7}
    released = {"mode": "official"}
    by_model = STRENGTHS

    def edits(self, lvlm: Layout, inputs: Inputs) -> Iterator[Declaration]:
        layers = chosen_layers(self, lvlm, range)
        if layers:
            edit = partial(self.edit, self.vectors(lvlm, inputs))
            yield ResidualEdit(layers, edit, at="block" if self.mode == "paper" else "mlp")

    def vectors(self, lvlm: Layout, inputs: Inputs) -> Float[Tensor, "layer batch hidden"]:
        """The steering vectors, one per layer and sample."""
        layers = range(len(lvlm.layers))
        last = Reading("vsv", layers, keep=lambda hidden: hidden[:, -1].float(), of="block", branch="all")
        states = prefill(lvlm, inputs, [last, Branch("image_free", lvlm.image_free(inputs))]).latest("vsv")
        with_image, without_image = states.chunk(2, dim=1)
        vectors = with_image - without_image
        if self.mode == "official":
            vectors[0, :, 0] += 1.0
        return vectors

    def edit(self, vectors: Tensor, hidden: Float[Tensor, "batch query hidden"], call: LayerCall) -> Tensor:
        turn = steer if self.mode == "paper" else steer_official
        return turn(hidden, call.of(vectors[call.layer], hidden), self.strength)
