"""VISTA: Visual Steering Vector (VSV) and Self-Logits Augmentation (SLA).

Li et al., "The Hidden Life of Tokens: Reducing Hallucination of Large Vision-Language Models via Visual Information
Steering", ICML 2025, arXiv 2502.03628.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..pipelines.checks import check_at_least, check_choice, check_flag, check_integers, check_layers, check_range
from ..pipelines.engine.declarations import Branch, Declaration, LogitsEdit, Reading, ResidualEdit, Step
from ..pipelines.engine.run import prefill

if TYPE_CHECKING:
    from ..pipelines.engine.attention import LayerCall
    from ..pipelines.lvlm import LVLM, Inputs

MODES = ("paper", "official")
STRENGTHS = {  # λ for captions; the paper's other models, LLaVA-1.5 and InstructBLIP, have the default
    "shikra": {"strength": 0.12},
    "minigpt-?4": {"strength": 0.1},
}
Window = int | tuple[int, int]


def steer(
    hidden: Float[Tensor, "batch query hidden"], vector: Float[Tensor, "batch hidden"], strength: float
) -> Float[Tensor, "batch query hidden"]:
    """h̃ = h + λ·v, scaled back to ‖h‖ (Eq. 5–6)."""
    h, v = hidden.float(), vector.float()[:, None, :]
    moved = h + strength * v
    scale = h.norm(dim=-1, keepdim=True) / moved.norm(dim=-1, keepdim=True)
    return torch.where(scale.isfinite(), moved * scale, h).to(hidden.dtype)


def steer_official(
    output: Float[Tensor, "batch query hidden"], vector: Float[Tensor, "batch hidden"], strength: float
) -> Float[Tensor, "batch query hidden"]:
    """u = m/‖m‖ + λ·s·v/‖v‖, s = 1 + max(0, cos(m, −v)); m ← ‖m‖·u/‖u‖. 0/0 and v = 0 leave m."""
    m, v = output.float(), vector.float()[:, None, :]
    length = m.norm(dim=-1, keepdim=True)
    unit, toward = m / length, v / v.norm(dim=-1, keepdim=True)
    gain = 1 + (-(unit * toward).sum(-1, keepdim=True)).clamp(min=0)
    moved = unit + strength * gain * toward
    turned = length * moved / moved.norm(dim=-1, keepdim=True)
    return torch.where(turned.isfinite().all(-1, keepdim=True), turned, m).to(output.dtype)


@dataclass(frozen=True)
class VSV:
    r"""Steer every layer toward what the image adds to the last prompt token, keeping the length of the state.

    v_l = h_l(last; image) − h_l(last; no image),   h ← (h + λ·v_l)·‖h‖/‖h + λ·v_l‖   (Eq. 4–6)

    h: (batch, position, hidden), output of block l, at every position of every pass, the prompt included.

    Args:
        strength: λ, 0 or more; 0 is plain decoding. Paper: 0.17 for captions (LLaVA-1.5, InstructBLIP;
            0.12 Shikra, 0.1 MiniGPT-4), 0.01 for POPE.
        mode: "paper", or "official" for what the released code does.
        layers: 0-based, which are steered; None is all (paper, and the code unless told).

    Raises:
        ValueError: strength below 0, an unknown mode, or a layer that the model does not have.

    The image-free prompt is the same text with the image tokens deleted, positions renumbered. The released code
    steers the MLP's output before it is added, with both vectors normalised and a gain of 1 to 2 for tokens that point
    away (`steer_official`); its one-sample PCA adds 1 to dimension 0 of layer 0, which `mode="official"` reproduces.
    The paper's λ were tuned on that code, so the same number is another strength in "paper" mode.
    """

    strength: float = 0.17
    mode: Literal["paper", "official"] = "paper"
    layers: Sequence[int] | None = None

    paper: ClassVar[str] = "arXiv 2502.03628"
    by_model: ClassVar[Mapping[str, Mapping[str, Any]]] = STRENGTHS
    changes: ClassVar[str] = "residual stream of every layer"
    cost: ClassVar[str] = "1 forward per token, 1 extra prefill of two rows"
    differs: ClassVar[str] = (
        "The code steers the MLP's output and not the block's, by unit vectors with a gain of 1 to 2, and adds 1 to "
        "dimension 0 of layer 0. official() does so."
    )

    def __post_init__(self) -> None:
        check_at_least("strength", self.strength, 0, "λ, how far states are steered")
        check_choice("mode", self.mode, MODES, "whose formula")
        if self.layers is not None:
            object.__setattr__(self, "layers", check_integers("layers", self.layers, "0-based layers", empty=True))

    @classmethod
    def official(cls) -> VSV:
        """What the released code does on captions."""
        return cls(mode="official")

    def edits(self, lvlm: LVLM, inputs: Inputs) -> Iterator[Declaration]:
        count = len(lvlm.layers)
        layers = range(count) if self.layers is None else check_layers(self.layers, count, "VSV")
        if self.strength == 0 or not layers:
            return
        vectors = self.vectors(lvlm, inputs)
        yield ResidualEdit(layers, partial(self.edit, vectors), at="block" if self.mode == "paper" else "mlp")

    def vectors(self, lvlm: LVLM, inputs: Inputs) -> Float[Tensor, "layer batch hidden"]:
        """The steering vectors, one per layer and sample."""
        layers = range(len(lvlm.layers))
        last = Reading("vsv", layers, keep=lambda hidden: hidden[:, -1].float(), of="block", branch="all")
        states = prefill(lvlm, inputs, [last, Branch("image_free", lvlm.image_free(inputs))]).latest("vsv")
        seeing, blind = states.chunk(2, dim=1)
        vectors = seeing - blind
        if self.mode == "official":
            vectors[0, :, 0] += 1.0
        return vectors

    def edit(self, vectors: Tensor, hidden: Float[Tensor, "batch query hidden"], call: LayerCall) -> Tensor:
        turn = steer if self.mode == "paper" else steer_official
        return turn(hidden, call.of(vectors[call.layer], hidden), self.strength)


@dataclass(frozen=True)
class SLA:
    r"""Mix the final logits with those read from the last few layers before it.

    õ = (1 − γ)·o + γ·mean_{l ∈ W} H(h_l),   W = the `window` blocks below the last   (Eq. 7–8)

    o: (batch, vocab) logits before temperature; h_l: (batch, hidden), last position, output of block l; H: the head.

    Args:
        gamma: share of the early logits, 0 to 1; 0 is plain decoding. Paper: 0.3.
        window: how many blocks below the last (paper: 5), or an inclusive pair of 0-based blocks (code: 25 to 30 of
            32); negative numbers count from the end.
        final_norm: apply the final norm to h_l before the head.

    Raises:
        ValueError: gamma outside 0 to 1, or a window that is empty, too long, or reaches the last block.

    The paper does not say whether h_l is normalised; the released code does not, nor do we by default, so that the
    early logits have another scale than o. The code averages six blocks where the paper says five.
    """

    gamma: float = 0.3
    window: Window = 5
    final_norm: bool = False

    paper: ClassVar[str] = "arXiv 2502.03628"
    changes: ClassVar[str] = "logits, with those of late layers"
    cost: ClassVar[str] = "1 forward per token"
    differs: ClassVar[str] = (
        "The paper mixes five blocks below the last in, the code six (25 to 30 of 32). official() has the code's."
    )

    def __post_init__(self) -> None:
        if isinstance(self.window, bool) or not isinstance(self.window, int):
            pair = check_integers("window", self.window, "a number of blocks, or the first and the last of them")
            if len(pair) != 2:
                raise ValueError(f"window={pair} is neither a number of blocks nor a pair of them.")
            object.__setattr__(self, "window", pair)
        check_range("gamma", self.gamma, 0, 1, "share of the early logits")
        check_flag("final_norm", self.final_norm, "apply the final norm before the head")

    @classmethod
    def official(cls) -> SLA:
        """The released window: six blocks, 25 to 30 of 32, counted from the end."""
        return cls(window=(-7, -2))

    def edits(self, lvlm: LVLM, inputs: Inputs) -> Iterator[Declaration]:
        if self.gamma == 0:
            return
        blocks = window_blocks(self.window, len(lvlm.layers))
        yield Reading("sla", blocks, keep=lambda hidden: hidden[:, -1], of="block")
        yield LogitsEdit(partial(self.mix, lvlm))

    def mix(self, lvlm: LVLM, logits: Float[Tensor, "batch vocab"], step: Step) -> Float[Tensor, "batch vocab"]:
        states = step.latest("sla")  # block batch hidden
        head = lvlm.unembed if self.final_norm else lvlm.head
        early = head(states).mean(0).to(logits.device, logits.dtype)
        mixed = (1 - self.gamma) * logits + self.gamma * early
        return torch.where(logits.isneginf(), logits, mixed)  # ruled out by another method: 0·−∞ is no number


def window_blocks(window: Window, count: int) -> range:
    """The blocks of a window in a model of `count` layers, 0-based."""
    if isinstance(window, int):
        first, last = count - 1 - window, count - 2
        if not (window >= 1 and first >= 0):
            possible = f"1 to {count - 1}" if count > 1 else "none lies below its last"
            raise ValueError(f"window={window} blocks below the last; this model has {count} layers: {possible}")
    else:
        first, last = (at + count if at < 0 else at for at in window)
        if not 0 <= first <= last <= count - 2:
            raise ValueError(
                f"window={tuple(window)} is blocks {first} to {last}; possible: 0 to {count - 2}, below the last of "
                f"this model's {count} layers"
            )
    return range(first, last + 1)


@dataclass(frozen=True)
class VISTA:
    r"""VSV and SLA together: steered states, from which the early logits are read too.

    Args:
        strength, mode, layers: see `VSV`. gamma, window, final_norm: see `SLA`.

    Raises:
        ValueError: as they do.
    """

    strength: float = 0.17
    gamma: float = 0.3
    window: Window = 5
    mode: Literal["paper", "official"] = "paper"
    layers: Sequence[int] | None = None
    final_norm: bool = False

    paper: ClassVar[str] = "arXiv 2502.03628"
    by_model: ClassVar[Mapping[str, Mapping[str, Any]]] = STRENGTHS
    changes: ClassVar[str] = "residual stream of every layer, and logits"
    cost: ClassVar[str] = "1 forward per token, 1 extra prefill of two rows"
    differs: ClassVar[str] = (
        "The code steers the MLP's output by unit vectors and mixes six blocks in, where the paper steers the block's "
        "and mixes five. official() does as the code."
    )

    def __post_init__(self) -> None:
        steering, mixing = self._parts()
        object.__setattr__(self, "layers", steering.layers)
        object.__setattr__(self, "window", mixing.window)

    def _parts(self) -> tuple[VSV, SLA]:
        return VSV(self.strength, self.mode, self.layers), SLA(self.gamma, self.window, self.final_norm)

    @classmethod
    def official(cls) -> VISTA:
        """What the released code does on captions."""
        return cls(window=(-7, -2), mode="official")

    def edits(self, lvlm: LVLM, inputs: Inputs) -> Iterator[Declaration]:
        for part in self._parts():
            yield from part.edits(lvlm, inputs)
