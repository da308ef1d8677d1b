"""Vision-aware Head Reinforcement (VHR).

He et al., "Cracking the Code of Hallucination in LVLMs with Vision-aware Head Divergence", ACL 2025, arXiv 2412.13949.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..pipelines.checks import by_layer
from ..pipelines.engine.declarations import Branch, Declaration, HeadEdit
from ..pipelines.engine.run import prefill
from ..pipelines.method import Decoder, flag, layers_of, one_of, pairs_of, positive
from ..pipelines.model.output_weights import CannotBake, scaled_heads
from .depth import chosen_layers

if TYPE_CHECKING:
    from ..pipelines.engine.call import AttentionCall
    from ..pipelines.model.layout import Inputs, Layout


def divergence(
    with_image: Float[Tensor, "batch head head_dim"], without_image: Float[Tensor, "batch head head_dim"]
) -> Float[Tensor, "batch head"]:
    """VHD = ‖A(with image) − A(without image)‖₂ of every head's output before the output projection (Eq. 4)."""
    return (with_image.float() - without_image.float()).norm(dim=-1)


def choose_heads(
    with_image: Float[Tensor, "batch head head_dim"],
    without_image: Float[Tensor, "batch head head_dim"],
    outlier_filter: bool = True,
    squared: bool = False,
    deviation: str = "sample",
) -> Bool[Tensor, "batch head"]:
    """Heads above the layer's median VHD (Eq. 7), after outliers are set to 0 (Eq. 6).

    An outlier exceeds mean + one standard deviation over heads both in VHD and in ‖A(without image)‖². squared: VHD²
    in place of VHD. deviation: "sample" divides by heads − 1, "population" by heads.
    """
    vhd, strength = divergence(with_image, without_image), without_image.float().square().sum(-1)
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
class VHR(Decoder):
    r"""Reinforce the heads whose output changes most when the image is taken away.

    In each layer of `layers`, in rising order, at the last prompt position: H = `choose_heads` (`outlier_filter`,
    `squared`, `deviation`); then A_i ← α·A_i for i ∈ H (Eq. 8), α: `alpha`. Scores are taken on states that earlier
    layers have already reinforced, with and (`reinforce_blind`) without the image alike. H is found once per sample, at
    the prompt, and α scales every position of every pass.

    Raises:
        ValueError: alpha not above 0, or a layer that the model does not have.

    The paper does not say whether the image-free side is reinforced while choosing, which σ it means, or how positions
    count without the image: by default reinforced, sample σ, and always from 0. The released code could not be read; a
    port of it has `squared=True`, against Eq. 4. With `heads`, pairs of a layer and a query head, nothing is chosen and
    nothing costs more: weights can carry that (`veridical bake`).
    """

    alpha: float = positive(
        2.0, "factor of the chosen heads' outputs",
        "1 is plain decoding. Paper: 2. At 4 the paper's model stops describing.",
    )  # fmt: skip
    layers: Sequence[int] | None = layers_of(
        "layers that are reinforced",
        "By default the second and the last 14 of 32. Paper, InstructBLIP: the last 18.",
    )
    outlier_filter: bool = flag(True, "set heads to 0 that are large without the image too", "Paper: on.")
    squared: bool = flag(False, "compare squared distances", "It changes nothing but what the filter removes.")
    deviation: Literal["sample", "population"] = one_of(
        ("sample", "population"), "σ of the filter", "sample divides by n − 1."
    )
    reinforce_blind: bool = flag(True, "reinforce the image-free side too while choosing")
    heads: tuple[tuple[int, int], ...] | None = pairs_of(
        "heads that are reinforced whatever the image is", "By default they are chosen for each sample: the paper."
    )

    inside = ("alpha",)
    neutral = {"alpha": 1}
    faint = {"alpha": 1.0000001}
    released = {}  # nothing that is known of the code contradicts the paper at its published settings
    by_model = {"instructblip-vicuna-7b": {"layers": tuple(range(14, 32))}}

    def edits(self, lvlm: Layout, inputs: Inputs) -> Iterator[Declaration]:
        if self.heads is not None:
            fixed = by_layer(self.heads, len(lvlm.layers), lvlm.heads, "VHR")
            yield HeadEdit(sorted(fixed), partial(self.raise_fixed, fixed))
            return
        layers = chosen_layers(self, lvlm, default_layers)
        if not layers:
            return
        chosen: dict[int, Bool[Tensor, "sample head"]] = {}
        choosing = HeadEdit(layers, partial(self.choose, chosen))
        prefill(lvlm, inputs, [choosing, Branch("image_free", lvlm.image_free(inputs))], final=True)
        yield HeadEdit(layers, partial(self.edit, chosen))

    def raise_fixed(self, fixed: Mapping[int, Sequence[int]], heads: Tensor, call: AttentionCall) -> Tensor:
        chosen = torch.zeros(1, heads.shape[2], dtype=torch.bool, device=heads.device)
        chosen[:, list(fixed[call.layer])] = True
        return reinforce(heads, chosen.expand(len(heads), -1), self.alpha)

    def baked(self, lvlm: Layout) -> dict[str, Tensor]:
        """The output projections with the reinforcement in them, parameter name -> new tensor.

        Raises:
            CannotBake: heads that are chosen for each sample.
        """
        if self.heads is None:
            raise CannotBake("vhr chooses its heads for each image; only heads=((layer, head), …) can be baked.")
        fixed = by_layer(self.heads, len(lvlm.layers), lvlm.heads, "VHR")
        return scaled_heads(lvlm, fixed, self.alpha)

    def choose(self, chosen: dict[int, Tensor], heads: Tensor, call: AttentionCall) -> Tensor:
        with_image, without_image = heads[:, -1].chunk(2)
        found = choose_heads(with_image, without_image, self.outlier_filter, self.squared, self.deviation)
        chosen[call.layer] = found
        edited = self.edit(chosen, heads, call)
        return edited if self.reinforce_blind else torch.cat([edited[: len(found)], heads[len(found) :]])

    def edit(self, chosen: dict[int, Tensor], heads: Tensor, call: AttentionCall) -> Tensor:
        return reinforce(heads, call.of(chosen[call.layer], heads), self.alpha)
