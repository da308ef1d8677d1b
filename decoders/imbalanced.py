"""Imbalanced attention, later named PAINT: boosts for two groups of image tokens, as far as it is specified.

Arif et al., "Fixing Imbalanced Attention to Mitigate In-Context Hallucination of Large Vision-Language Model", 2025,
arXiv 2501.12206 (v3: "PAINT: Paying Attention to INformed Tokens").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..pipelines.checks import check_at_least, check_integers, check_range
from ..pipelines.engine.declarations import AttentionEdit, Branch, Declaration, LogitsEdit, Step
from ..pipelines.model.compiled import outputs
from .avc import image_tokens, place
from .pai import boost, guide, producing_rows

if TYPE_CHECKING:
    from ..pipelines.engine.attention import AttentionCall
    from ..pipelines.lvlm import LVLM, Inputs


def summary_tokens(late: Float[Tensor, "picture patch"]) -> Bool[Tensor, "picture patch"]:
    """Patches that the late layer's class token looks at beyond Q3 + 1.5·(Q3 − Q1), quartiles by interpolation."""
    low, high = late.float().quantile(torch.tensor([0.25, 0.75], device=late.device), dim=1)[..., None]
    return late > high + 1.5 * (high - low)


def local_tokens(
    early: Float[Tensor, "picture patch"], summary: Bool[Tensor, "picture patch"], ratio: float
) -> Bool[Tensor, "picture patch"]:
    """The ⌊ratio·patches⌋ patches that are looked at most in the first layer, less the summary tokens."""
    best = early.topk(int(ratio * early.shape[1] + 1e-9), dim=1).indices
    return torch.zeros_like(summary).scatter(1, best, True) & ~summary


@dataclass(frozen=True)
class Imbalanced:
    r"""Raise the newest token's attention to local and to summary image tokens, and guide logits away from the text.

    z_j ← z_j + s_j·|z_j|   before the softmax, in the rows that produce tokens;   s = `local` on T, `summary` on B
    B: patches whose attention from the class token, summed over heads, is an outlier in the vision encoder's
    second-last layer (`summary_tokens`); T: the largest share `ratio` in its first layer, less B (`local_tokens`).
    Then the guidance of PAI (`pai.guide`).

    z: (batch, head, query, key), every head of the language model from layer `skip_first` on.

    Args:
        local: boost of T, 0 or more (the paper's α). Paper: 0.7. From 0.5 to 0.7 captions start to repeat themselves.
        summary: boost of B, 0 or more (the paper's β). Paper: 0.4; code: 0.3.
        ratio: share of the patches in T, 0 to 1. Paper: 0.25.
        spatial: share of the patches, 0 to 1, that join T because the first layer looks at them most, summed over all
            its rows and heads: our reading. Paper: 0; 0.05 "with spatial".
        gamma: guidance, 1 or more; 1 is none. All published runs: 1.1.
        beta: plausibility cut of the guidance, 0 to 1; 0 is no cut. Code: 0.1.
        skip_first: layers at the start that keep their attention. Code: 2.

    Raises:
        ValueError: a value outside its range; when decoding starts, a vision encoder without class token (the method
            is defined for CLIP's), or pictures that are not one feature per patch.

    Read in the released code; the paper's method section could not be. Not here, because no formula is known: the
    per-head amplification that v1's abstract promises (no released commit has it). The released score of "spatial"
    tokens sums rows of a softmax and is 1 for every token up to rounding; ours sums columns. Tokens are chosen per
    picture, for the whole batch; the released code takes the first one's. Its settings for "original" rows are unknown.
    """

    local: float = 0.7
    summary: float = 0.4
    ratio: float = 0.25
    gamma: float = 1.1
    beta: float = 0.1
    skip_first: int = 2
    spatial: float = 0.0

    paper: ClassVar[str] = "arXiv 2501.12206"
    changes: ClassVar[str] = "attention before the softmax, and logits against the prompt without its image"
    cost: ClassVar[str] = "2 forwards per token (1 with gamma=1), 1 extra pass of the vision encoder"
    differs: ClassVar[str] = (
        "The paper's best β (summary) is 0.4, the code's and official()'s 0.3. The per-head amplification of the first "
        "abstract is in no released code."
    )
    families: ClassVar[str] = (
        "models with a CLIP vision encoder that reads whole pictures, one image token per patch (LLaVA); no other has "
        "the class token that is read"
    )

    def __post_init__(self) -> None:
        check_at_least("local", self.local, 0, "boost of local tokens")
        check_at_least("summary", self.summary, 0, "boost of summary tokens")
        check_range("ratio", self.ratio, 0, 1, "share of the patches that are local tokens")
        check_range("spatial", self.spatial, 0, 1, "share of the patches that are looked at most")
        check_at_least("gamma", self.gamma, 1, "guidance")
        check_range("beta", self.beta, 0, 1, "plausibility cut of the guidance")
        check_integers("skip_first", (self.skip_first,), "layers that keep their attention")
        check_at_least("skip_first", self.skip_first, 0, "layers that keep their attention")

    @classmethod
    def official(cls) -> Imbalanced:
        """The values written into the released code: summary tokens at 0.3."""
        return cls(summary=0.3)

    def edits(self, lvlm: LVLM, inputs: Inputs) -> Iterator[Declaration]:
        if self.gamma != 1:
            yield Branch("imbalanced", lvlm.image_free(inputs))
        layers = range(self.skip_first, len(lvlm.layers))
        if self.local or self.summary:  # layers: none in a model of few, so that the run says that nothing changed
            early, late, received = encoder_attention(lvlm, inputs)
            patches = summary_tokens(late)
            chosen = local_tokens(early, patches, self.ratio) | local_tokens(received, patches, self.spatial)
            image = lvlm.image_mask(inputs["input_ids"])
            on_local, on_summary = by_sample(chosen, image), by_sample(patches, image)
            edit = partial(self.edit, on_local, on_summary)
            yield AttentionEdit(layers, edit, on="scores")
        if self.gamma != 1:
            yield LogitsEdit(self.mix)

    def edit(
        self, on_local: Bool[Tensor, "sample image"], on_summary: Bool[Tensor, "sample image"],
        scores: Float[Tensor, "batch head query key"], call: AttentionCall,
    ) -> Float[Tensor, "batch head query key"]:  # fmt: skip
        columns = lambda tokens: call.columns(place(tokens, call.sequences)).float()
        strength = self.local * columns(on_local) + self.summary * columns(on_summary)
        return boost(scores, strength, producing_rows(call, scores.shape[2]))

    def mix(self, logits: Float[Tensor, "batch vocab"], step: Step) -> Float[Tensor, "batch vocab"]:
        return guide(logits, step.branches["imbalanced"], self.gamma, self.beta)


def by_sample(
    patches: Bool[Tensor, "picture patch"], image: Bool[Tensor, "sample position"]
) -> Bool[Tensor, "sample image"]:
    """A mask over the pictures' patches as one over every sample's image tokens, in their order.

    Raises:
        ValueError: the prompts have not one image token per patch.
    """
    counts = image.sum(1).tolist()
    if sum(counts) != patches.numel() or any(count % patches.shape[1] for count in counts):
        raise ValueError(
            f"Imbalanced needs one image token per patch; found {patches.shape[0]} pictures of {patches.shape[1]} "
            f"patches and prompts of {counts} image tokens"
        )
    spread = torch.zeros_like(image)
    spread[image] = patches.flatten().to(image.device)
    return image_tokens(spread, image)[0]


def class_attention(lvlm: LVLM, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Attention of the vision encoder's class token to the patches, summed over heads: first and second-last layer.

    Raises:
        ValueError: as `encoder_attention`.
    """
    return encoder_attention(lvlm, inputs)[:2]


@torch.no_grad()
def encoder_attention(lvlm: LVLM, inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """(picture, patch): the class token's attention in the first and in the second-last layer, and all tokens' in the
    first; summed over heads.

    Raises:
        ValueError: no vision encoder with a class token and separate query and key projections, or tiled pictures.
    """
    tower = next((module for module in lvlm.model.modules() if _has_class_token(module)), None)
    pixels = inputs.get("pixel_values")
    if tower is None or pixels is None or pixels.dim() != 4:
        shape = "none" if pixels is None else tuple(pixels.shape)
        found = "no such encoder" if tower is None else f"pixel_values {shape}"
        raise ValueError(
            "Imbalanced reads the class token's attention in a CLIP vision encoder, whole pictures (picture, channel, "
            f"height, width); found {found} in {lvlm.name}. PAI boosts all image tokens of any model"
        )
    layers = tower.encoder.layers
    chosen = (0, max(0, len(layers) - 2))
    read = {(layer, name): getattr(layers[layer].self_attn, name) for layer in chosen for name in ("q_proj", "k_proj")}
    with outputs(tower, read) as seen:
        tower(pixels)
    attention, received = [], torch.empty(0)
    for layer in chosen:
        heads = layers[layer].self_attn.num_heads
        query, key = (seen[layer, name].float().unflatten(-1, (heads, -1)) for name in ("q_proj", "k_proj"))
        scores = torch.einsum("pqhd,pkhd->phqk", query, key) * query.shape[-1] ** -0.5
        weights = scores.softmax(-1).sum(1)[..., 1:]  # picture head query key -> picture query patch
        attention.append(weights[:, 0])
        received = weights.sum(1) if len(attention) == 1 else received
    return attention[0], attention[1], received


def _has_class_token(module: Any) -> bool:
    layers = getattr(getattr(module, "encoder", None), "layers", None)
    attention = getattr(layers[0], "self_attn", None) if layers else None
    return hasattr(getattr(module, "embeddings", None), "class_embedding") and hasattr(attention, "q_proj")
