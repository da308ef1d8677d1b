"""Attention in a CLIP vision encoder: what its class token, and all tokens together, pay each patch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..pipelines.model.compiled import outputs

if TYPE_CHECKING:
    from ..pipelines.model.layout import Inputs, Layout


def class_attention(lvlm: Layout, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Attention of the vision encoder's class token to the patches, summed over heads: first and second-last layer.

    Raises:
        ValueError: as `encoder_attention`.
    """
    return encoder_attention(lvlm, inputs)[:2]


@torch.no_grad()
def encoder_attention(lvlm: Layout, inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """(image, patch): the class token's attention in the first and in the second-last layer, and all tokens' in the
    first; summed over heads.

    Raises:
        ValueError: no vision encoder with a class token and separate query and key projections, or tiled images.
    """
    tower = next((module for module in lvlm.model.modules() if _has_class_token(module)), None)
    pixels = inputs.get("pixel_values")
    if tower is None or pixels is None or pixels.dim() != 4:
        shape = "none" if pixels is None else tuple(pixels.shape)
        found = "no such encoder" if tower is None else f"pixel_values {shape}"
        raise ValueError(
            "Imbalanced reads the class token's attention in a CLIP vision encoder, whole images (image, channel, "
            f"height, width); found {found} in {lvlm.name}. PAI boosts all image tokens of any model"
        )
    layers = tower.encoder.layers
    chosen = (0, max(0, len(layers) - 2))
    read = {(layer, name): getattr(layers[layer].self_attn, name) for layer in chosen for name in ("q_proj", "k_proj")}
    with outputs(tower, read) as kept:
        tower(pixels)
    attention, received = [], torch.empty(0)
    for layer in chosen:
        heads = layers[layer].self_attn.num_heads
        query, key = (kept[layer, name].float().unflatten(-1, (heads, -1)) for name in ("q_proj", "k_proj"))
        scores = torch.einsum("pqhd,pkhd->phqk", query, key) * query.shape[-1] ** -0.5
        weights = scores.softmax(-1).sum(1)[..., 1:]  # image head query key -> image query patch
        attention.append(weights[:, 0])
        received = weights.sum(1) if len(attention) == 1 else received
    return attention[0], attention[1], received


def _has_class_token(module: Any) -> bool:
    layers = getattr(getattr(module, "encoder", None), "layers", None)
    attention = getattr(layers[0], "self_attn", None) if layers else None
    return hasattr(getattr(module, "embeddings", None), "class_embedding") and hasattr(attention, "q_proj")
