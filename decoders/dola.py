"""Decoding by Contrasting Layers (DoLa).

Chuang et al., "DoLa: Decoding by Contrasting Layers Improves Factuality in Large Language Models", ICLR 2024,
arXiv 2309.03883.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..pipelines.checks import check_choice, check_integers, check_layers
from ..pipelines.engine.declarations import Declaration, LogitsEdit, Reading, Step
from ..pipelines.method import Decoder, flag, one_of, ruled, share
from .early_logits import last_position
from .plausibility import cut

if TYPE_CHECKING:
    from ..pipelines.model.layout import Inputs, Layout

TIED = 1e-5  # of the largest divergence: float32 sums over a real vocabulary are off by 1e-6


def divergence(p: Float[Tensor, "*any vocab"], q: Float[Tensor, "*any vocab"]) -> Float[Tensor, "*any"]:
    """KL(p ‖ q) = Σ p·log(p/q) in nats; p = 0 adds nothing."""
    return torch.where(p > 0, p * (p.log() - q.log()), 0.0).sum(-1)


def jensen_shannon(
    p: Float[Tensor, "*any vocab"], q: Float[Tensor, "*any vocab"], mode: str = "paper"
) -> Float[Tensor, "*any"]:
    """½·KL(p ‖ m) + ½·KL(q ‖ m), m = (p + q)/2; mode "official": ½·KL(m ‖ p) + ½·KL(m ‖ q)."""
    m = (p + q) / 2
    if mode == "official":
        return (divergence(m, p) + divergence(m, q)) / 2
    return (divergence(p, m) + divergence(q, m)) / 2


def contrast_layers(
    logits: Float[Tensor, "batch vocab"], early: Float[Tensor, "layer batch vocab"], mode: str = "paper"
) -> Float[Tensor, "batch vocab"]:
    """log p − log q of the layer whose q is furthest from p, the first of those that TIED makes equal; in float32."""
    p, q = logits.float().log_softmax(-1), early.float().log_softmax(-1)
    distance = jensen_shannon(p.exp().expand_as(q), q.exp(), mode)
    furthest = (distance >= (1 - TIED) * distance.amax(0)).int().argmax(0)
    return p - q[furthest, torch.arange(len(furthest), device=q.device)]


def bucket(which: str, count: int, tied: bool) -> tuple[int, ...]:
    """Every second layer of the lower or upper half; of models of more than 40 layers, of the first or last 20.

    Tied embeddings make layer 0's head undo the embedding, so it is left out there, as transformers does. So few layers
    that none is left give the first that would do.
    """
    if count > 40:
        start, stop = (0, 20) if which == "low" else (count - 20, count)
    else:
        start, stop = (0, count // 2) if which == "low" else (count // 2, count)
    found = tuple(layer for layer in range(start, stop, 2) if not (tied and layer == 0))
    return found or (min(2 if tied else 0, count - 1),)


def _candidates(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return check_choice(name, value, ("low", "high"), "which half; or give layers as numbers")
    return check_integers(name, value, "0-based layers", empty=True)


@dataclass(frozen=True)
class DoLa(Decoder):
    r"""Contrast the last layer's next-token distribution with the earlier layer's that differs most from it.

    z = log p − log q_M,   M = argmax_{j ∈ J} JSD(p, q_j),   then z[v] = −inf where p(v) < τ·max p

    p: (batch, vocab); q_j = softmax(H(h_j)), h_j: (batch, hidden), last position, the state that enters layer j (0 is
    the embedding); H: the head, after the final norm with `final_norm`. M is chosen anew for every token and sample. J:
    `layers`; τ: `relative_top`. Layers whose divergence is within a share of 1e-5 of the largest are tied, and M is the
    first of them: without the norm a deep model's early layers are sure of words that p excludes, and all reach ln 2,
    so that rounding, which depends on the batch, would choose.

    Raises:
        ValueError: a value outside its range, an unknown mode or name, or a layer that the model does not have.

    The released code calls kl_div the other way round, so that its divergence is ½·KL(m ‖ p) + ½·KL(m ‖ q), and takes
    its mean over the batch; `mode="official"` does the former, and never lets samples choose for each other. The
    paper adds a repetition penalty of 1.2: pass `repetition_penalty` to generate, which acts on z, as released. Buckets
    of the paper beyond 40 layers are read off the released commands. Whether the paper norms h_j is not said, as
    recalled, not re-read.
    """

    layers: Literal["low", "high"] | Sequence[int] = ruled(
        "low", "layers whose input is read", '"low" or "high", every second of a half, or 0-based numbers',
        "None at all is plain decoding. Paper: low for long answers, high for TruthfulQA.", _candidates,
    )  # fmt: skip
    relative_top: float = share(0.1, "plausibility cut", "0 is no cut. Paper: 0.1.")
    final_norm: bool = flag(False, "apply the final norm before the head", "Code: no.")
    mode: Literal["paper", "official"] = one_of(("paper", "official"), "whose divergence")

    early = ("layers",)
    difference = True
    neutral = {"layers": ()}
    released = {"mode": "official"}  # on long answers

    @property
    def cuts(self) -> bool:
        return not self.is_neutral and bool(self.relative_top)

    def edits(self, lvlm: Layout, inputs: Inputs) -> Iterator[Declaration]:
        count = len(lvlm.layers)
        if isinstance(self.layers, str):
            chosen = bucket(self.layers, count, bool(getattr(lvlm.text_config, "tie_word_embeddings", False)))
        else:
            chosen = check_layers(sorted(set(self.layers)), count, "DoLa")
        if chosen:
            yield Reading("dola", chosen, keep=last_position, of="input")
            yield LogitsEdit(partial(self.mix, lvlm))

    def mix(self, lvlm: Layout, logits: Float[Tensor, "batch vocab"], step: Step) -> Float[Tensor, "batch vocab"]:
        states = step.latest("dola")  # layer batch hidden
        early = (lvlm.unembed if self.final_norm else lvlm.head)(states).to(logits.device)
        return cut(contrast_layers(logits, early, self.mode), logits, self.relative_top)
