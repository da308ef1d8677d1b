"""Vision-aware Head Reinforcement (VHR).

He et al., "Cracking the Code of Hallucination in LVLMs with Vision-aware Head Divergence", ACL 2025, arXiv 2412.13949.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..pipelines.checks import check_at_least, check_choice, check_flag, check_integers, check_layers
from ..pipelines.engine.declarations import Branch, Declaration, HeadEdit
from ..pipelines.engine.run import prefill

if TYPE_CHECKING:
    from ..pipelines.engine.attention import AttentionCall
    from ..pipelines.lvlm import LVLM, Inputs


DEVIATIONS = ("sample", "population")


def divergence(
    seeing: Float[Tensor, "batch head head_dim"], blind: Float[Tensor, "batch head head_dim"]
) -> Float[Tensor, "batch head"]:
    """VHD = ‖A(with image) − A(without image)‖₂ of every head's output before the output projection (Eq. 4)."""
    return (seeing.float() - blind.float()).norm(dim=-1)


def choose_heads(
    seeing: Float[Tensor, "batch head head_dim"],
    blind: Float[Tensor, "batch head head_dim"],
    outlier_filter: bool = True,
    squared: bool = False,
    deviation: str = "sample",
) -> Bool[Tensor, "batch head"]:
    """Heads above the layer's median VHD (Eq. 7), after outliers are set to 0 (Eq. 6).

    An outlier exceeds mean + one standard deviation over heads both in VHD and in ‖A(without image)‖². squared: VHD²
    in place of VHD. deviation: "sample" divides by heads − 1, "population" by heads.
    """
    vhd, strength = divergence(seeing, blind), blind.float().square().sum(-1)
    vhd = vhd.square() if squared else vhd
    if outlier_filter and vhd.shape[1] > 1:
        correction = int(deviation == "sample")
        high = lambda x: x > x.mean(1, keepdim=True) + x.std(1, keepdim=True, correction=correction)
        vhd = vhd.masked_fill(high(vhd) & high(strength), 0.0)
    return vhd > vhd.quantile(0.5, dim=1, keepdim=True)


def reinforce(
    heads: Float[Tensor, "batch query head head_dim"], chosen: Bool[Tensor, "batch head"], alpha: float
) -> Float[Tensor, "batch query head head_dim"]:
    """Chosen heads' outputs times α, at every position."""
    return torch.where(chosen[:, None, :, None], alpha * heads, heads)


def default_layers(count: int) -> tuple[int, ...]:
    """The second layer and the last 14 of 32 (paper, LLaVA-1.5 and LLaVA-NeXT); 14/32 of a model under 28 layers."""
    late = 14 if count >= 28 else max(1, round(count * 14 / 32))
    return tuple(sorted({min(1, count - 1), *range(count - late, count)}))


@dataclass(frozen=True)
class VHR:
    r"""Reinforce the heads whose output changes most when the image is taken away.

    In each layer, in rising order, at the last prompt position: H = `choose_heads`; then A_i ← α·A_i for i ∈ H (Eq. 8).
    Scores are taken on states that earlier layers have already reinforced, with and without the image alike. H is
    found once per sample, at the prompt, and α scales every position of every pass.

    Args:
        alpha: factor, above 0; 1 is plain decoding. Paper: 2. At 4 the paper's model stops describing.
        layers: which are reinforced; None is the second and the last 14 of 32. Paper, InstructBLIP: the last 18.
        outlier_filter: set heads to 0 that are large without the image too. Paper: on.
        squared: compare squared distances. It changes nothing but what the filter removes.
        deviation: σ of the filter, "sample" (n − 1) or "population".
        reinforce_blind: reinforce the image-free side too while choosing.

    Raises:
        ValueError: alpha not above 0, or a layer that the model does not have.

    The paper does not say whether the image-free side is reinforced while choosing, which σ it means, or how positions
    count without the image: by default reinforced, sample σ, and always from 0. The released code could not be read; a
    port of it has `squared=True`, against Eq. 4.
    """

    alpha: float = 2.0
    layers: Sequence[int] | None = None
    outlier_filter: bool = True
    squared: bool = False
    deviation: Literal["sample", "population"] = "sample"
    reinforce_blind: bool = True

    paper: ClassVar[str] = "arXiv 2412.13949"
    by_model: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "instructblip-vicuna-7b": {"layers": tuple(range(14, 32))},
    }  # fmt: skip
    changes: ClassVar[str] = "head outputs before the output projection"
    cost: ClassVar[str] = "1 forward per token, 1 extra prefill of two rows"
    differs: ClassVar[str] = (
        "The released code could not be read; a port of it squares the distance, which changes what the filter "
        "removes. official() is the same as the paper."
    )

    def __post_init__(self) -> None:
        if self.layers is not None:
            object.__setattr__(self, "layers", check_integers("layers", self.layers, "0-based layers", empty=True))
        check_at_least("alpha", self.alpha, 1e-6, "factor of the chosen heads' outputs")
        check_choice("deviation", self.deviation, DEVIATIONS, "σ of the filter")
        check_flag("outlier_filter", self.outlier_filter, "set outliers to 0")
        check_flag("squared", self.squared, "compare squared distances")
        check_flag("reinforce_blind", self.reinforce_blind, "reinforce the image-free side while choosing")

    @classmethod
    def official(cls) -> VHR:
        """As the paper; nothing that is known of the released code contradicts it at its published settings."""
        return cls()

    def edits(self, lvlm: LVLM, inputs: Inputs) -> Iterator[Declaration]:
        count = len(lvlm.layers)
        layers = default_layers(count) if self.layers is None else check_layers(self.layers, count, "VHR")
        if self.alpha == 1 or not layers:
            return
        chosen: dict[int, Bool[Tensor, "sample head"]] = {}
        looking = HeadEdit(layers, partial(self.choose, chosen))
        prefill(lvlm, inputs, [looking, Branch("image_free", lvlm.image_free(inputs))])
        yield HeadEdit(layers, partial(self.edit, chosen))

    def choose(self, chosen: dict[int, Tensor], heads: Tensor, call: AttentionCall) -> Tensor:
        seeing, blind = heads[:, -1].chunk(2)
        chosen[call.layer] = choose_heads(seeing, blind, self.outlier_filter, self.squared, self.deviation)
        edited = self.edit(chosen, heads, call)
        return edited if self.reinforce_blind else torch.cat([edited[: len(seeing)], heads[len(seeing) :]])

    def edit(self, chosen: dict[int, Tensor], heads: Tensor, call: AttentionCall) -> Tensor:
        return reinforce(heads, call.of(chosen[call.layer], heads), self.alpha)
