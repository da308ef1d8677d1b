"""Attentional Vision Calibration (AVC, also AvisC).

Woo et al., "Don't Miss the Forest for the Trees: Attentional Vision Calibration for Large Vision Language Models",
Findings of ACL 2025, arXiv 2405.17820.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..pipelines.checks import check_at_least, check_choice, check_range
from ..pipelines.engine.declarations import AttentionEdit, Branch, Declaration, LogitsEdit, Reading, ResidualEdit, Step
from ..pipelines.engine.run import prefill
from .plausibility import cut
from .vcd import contrast

if TYPE_CHECKING:
    from ..pipelines.engine.attention import AttentionCall, LayerCall, Sequences
    from ..pipelines.lvlm import LVLM, Inputs

BLANKS = ("zeros", "ones", "noise", "mask")
NOISE_SEED = 0


# -- which image tokens are blind ----------------------------------------------------------------------------------
def last_row(call: AttentionCall) -> Float[Tensor, "batch key"]:
    """Attention of the row that produces the next token, mean over heads, in float32."""
    return call.scores(call.producing).softmax(-1, dtype=torch.float32).mean((1, 2))


def image_tokens(
    values: Float[Tensor, "*any batch position"], image: Bool[Tensor, "batch position"]
) -> tuple[Float[Tensor, "*any batch image"], Bool[Tensor, "batch image"]]:
    """Values at the image tokens, in their order, and which of them are real: shorter samples are filled up."""
    most = max(1, int(image.sum(1).max()))
    at = image.long().argsort(dim=1, descending=True, stable=True)[:, :most]
    return values.gather(-1, at.expand(*values.shape[:-1], -1)), image.gather(1, at)


def choose_layers(masses: Float[Tensor, "batch layer"], gamma: float) -> Bool[Tensor, "batch layer"]:
    """The layers with most image attention, up to and with the one whose cumulated share reaches γ (Eq. 5).

    k = #{c < γ} + 1, at most all; c: cumulated shares, largest first.
    """
    share = masses.double() / masses.double().sum(1, keepdim=True).clamp(min=1e-300)
    order = share.argsort(dim=1, descending=True, stable=True)
    wanted = (share.gather(1, order).cumsum(1) < gamma).sum(1, keepdim=True) + 1
    rank = torch.arange(masses.shape[1], device=masses.device).expand_as(order)
    return torch.zeros_like(order, dtype=torch.bool).scatter(1, order, rank < wanted)


def blind_tokens(
    attention: Float[Tensor, "batch image"], real: Bool[Tensor, "batch image"], lam: float
) -> Bool[Tensor, "batch image"]:
    """a ≥ μ + λσ over a sample's own image tokens, σ with n − 1, in float32 (Eq. 7)."""
    a, count = attention.float() * real, real.sum(1, keepdim=True)
    mean = a.sum(1, keepdim=True) / count.clamp(min=1)
    variance = ((a - mean).square() * real).sum(1, keepdim=True) / (count - 1).clamp(min=1)
    return (a >= mean + lam * variance.sqrt()) & real


def find_blind(
    attention: Float[Tensor, "layer batch image"], real: Bool[Tensor, "batch image"], gamma: float, lam: float
) -> Bool[Tensor, "batch image"]:
    """Blind tokens by their attention averaged over the chosen layers."""
    a = (attention.float() * real).transpose(0, 1)  # layer batch image -> batch layer image
    chosen = choose_layers(a.sum(2), gamma)[..., None]
    return blind_tokens((a * chosen).sum(1) / chosen.sum(1), real, lam)


# -- blanking tokens of one branch ---------------------------------------------------------------------------------
def place(tokens: Bool[Tensor, "sample image"], where: Sequences) -> Bool[Tensor, "row position"]:
    """A mask over each sample's image tokens, in their order, at the prompt positions of these rows."""
    order = (where.image.long().cumsum(1) - 1).clamp(min=0, max=tokens.shape[1] - 1)
    return tokens.to(where.sample.device)[where.sample].gather(1, order) & where.image


def zeros(hidden: Tensor, rows: Tensor) -> Tensor:
    return torch.zeros_like(hidden)


def ones(hidden: Tensor, rows: Tensor) -> Tensor:
    return torch.ones_like(hidden)


def noise(hidden: Tensor, rows: Tensor) -> Tensor:
    """Standard normal rows where asked, from a generator seeded anew for each sample."""
    out = torch.zeros_like(hidden)
    for row, here in enumerate(rows):
        shape = (int(here.sum()), hidden.shape[-1])
        out[row, here] = torch.randn(shape, generator=torch.Generator().manual_seed(NOISE_SEED)).to(hidden)
    return out


FILLS = {"zeros": zeros, "ones": ones, "noise": noise}


def overwrite(
    blanked: Bool[Tensor, "sample image"], fill: Callable[[Tensor, Tensor], Tensor],
    hidden: Float[Tensor, "batch query hidden"], call: LayerCall,
) -> Float[Tensor, "batch query hidden"]:  # fmt: skip
    """States of blanked image tokens replaced."""
    where = call.sequences
    rows = where.at_queries(place(blanked, where), False, hidden.shape[1]).to(hidden.device)
    return torch.where(rows[..., None], fill(hidden, rows), hidden)


def hide(
    blanked: Bool[Tensor, "sample image"], scores: Float[Tensor, "batch head query key"], call: AttentionCall
) -> Float[Tensor, "batch head query key"]:
    """Nobody looks at blanked image tokens."""
    columns = call.columns(place(blanked, call.sequences))
    return scores.masked_fill(columns[:, None, None, :], torch.finfo(scores.dtype).min)


def blank_branch(lvlm: LVLM, branch: str, blanked: Bool[Tensor, "sample image"], blank: str) -> Iterator[Declaration]:
    """Blank image tokens of one branch: what enters the first layer, or ("mask") their columns of all attention."""
    count = len(lvlm.layers)
    if blank == "mask":
        yield AttentionEdit(range(count), partial(hide, blanked), on="scores", branch=branch)
        return
    yield ResidualEdit([0], partial(overwrite, blanked, FILLS[blank]), at="input", branch=branch)
    if adds_image_later(lvlm):  # take away again what is added to blanked tokens between layers
        left: dict[int, Tensor] = {}

        def remember(hidden: Tensor, call: LayerCall) -> Tensor:
            left[call.layer] = hidden
            return hidden

        def restore(hidden: Tensor, call: LayerCall) -> Tensor:
            return overwrite(blanked, lambda *_: left[call.layer - 1], hidden, call)

        yield ResidualEdit(range(count - 1), remember, at="block", branch=branch)
        yield ResidualEdit(range(1, count), restore, at="input", branch=branch)


def adds_image_later(lvlm: LVLM) -> bool:
    """Whether the model adds image features to later layers too (DeepStack)."""
    config = lvlm.model.config
    names = ("deepstack_visual_indexes", "deepstack_layer_map")
    return any(getattr(part, name, None) for part in (config, getattr(config, "vision_config", None)) for name in names)


@dataclass(frozen=True)
class AVC:
    r"""Push the choice away from what the model says when it sees only the few image tokens that soak up attention.

    z = (1 + α)·l − α·l′,   then z[v] = −inf where p(v) < β·max p

    l, l′: (batch, vocab) logits for the whole picture and for its blind tokens alone; every other image embedding is
    blanked. Blind tokens are found once, at the last prompt row: `choose_layers`, then `blind_tokens` (Eq. 5–7).

    Args:
        alpha: strength of the contrast, 0 or more; 0 leaves l. Paper: 2.5 LLaVA-1.5, 3 InstructBLIP.
        beta: plausibility cut, 0 to 1; 0 is no cut. Paper: 0.1.
        gamma: share of all layers' image attention that the chosen layers hold, 0 to 1; 0 is one layer. Paper: 0.5.
        lam: standard deviations above the mean from which on a token is blind. Paper: 1. A large value blanks all.
        blank: "zeros" (paper), "ones", "noise" (standard normal, seeded), or "mask": hidden from attention instead.

    Raises:
        ValueError: a value outside its range.

    μ and σ are a sample's own; the released code takes them over the batch and serves a batch of one. Its mask variant
    was not released: ours hides the tokens from every row of every layer. A sample whose l′ has a NaN keeps l (code).
    The paper says blind is a > μ + λσ; code, and we, say ≥.
    """

    alpha: float = 2.5
    beta: float = 0.1
    gamma: float = 0.5
    lam: float = 1.0
    blank: Literal["zeros", "ones", "noise", "mask"] = "zeros"

    paper: ClassVar[str] = "arXiv 2405.17820"
    by_model: ClassVar[Mapping[str, Mapping[str, Any]]] = {"instructblip-vicuna-7b": {"alpha": 3.0}}  # Sec. 4.1
    changes: ClassVar[str] = "logits, against the blind image tokens alone"
    cost: ClassVar[str] = "2 forwards per token, 1 extra prefill"
    differs: ClassVar[str] = (
        "The paper has α = 2.5 or 3, the released POPE and MME scripts, and official(), 1. The code takes mean and "
        "deviation over the batch, which is not reproduced."
    )

    def __post_init__(self) -> None:
        check_at_least("alpha", self.alpha, 0, "strength of the contrast")
        check_range("beta", self.beta, 0, 1, "plausibility cut")
        check_range("gamma", self.gamma, 0, 1, "share of image attention in the chosen layers")
        check_choice("blank", self.blank, BLANKS, "what stands in for the other image tokens")

    @classmethod
    def official(cls) -> AVC:
        """What the released POPE and MME scripts run: α = 1. Those for AMBER and LLaVA-Bench have 2.5."""
        return cls(alpha=1.0)

    def edits(self, lvlm: LVLM, inputs: Inputs) -> Iterator[Declaration]:
        if self.alpha == 0 and self.beta == 0:
            return
        image = lvlm.image_mask(inputs["input_ids"])
        looking = Reading("avc", range(len(lvlm.layers)), keep=last_row)
        attention = prefill(lvlm, inputs, [looking]).latest("avc").to(image.device)
        seen, real = image_tokens(attention, image)
        yield Branch("avc", inputs)
        yield from blank_branch(lvlm, "avc", real & ~find_blind(seen, real, self.gamma, self.lam), self.blank)
        yield LogitsEdit(self.mix)

    def mix(self, logits: Float[Tensor, "batch vocab"], step: Step) -> Float[Tensor, "batch vocab"]:
        other = step.branches["avc"]
        other = torch.where(other.isnan().any(1, keepdim=True), logits, other)
        return cut(contrast(logits, other, self.alpha), logits, self.beta)
