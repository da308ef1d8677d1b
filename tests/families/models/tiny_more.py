"""Tiny models of families beyond the table, which need no more than a row that names the tokens around an image."""

from __future__ import annotations

from typing import Any

import torch
import transformers as tf

from .tiny_families import MROPE, Family, PromptImage, qwen_image
from .tiny_weights import (
    END,
    HEAD_DIM,
    HIDDEN,
    IMAGE,
    LAYERS,
    NEWLINE,
    SIDE,
    START,
    VIDEO,
    WINDOW,
    build,
    pixels,
    text,
    vision,
)


def aya_vision(attention: str | None = None) -> Any:
    config = tf.AyaVisionConfig(
        vision_config=vision(tf.SiglipVisionConfig, 8, vision_use_head=False),
        text_config=text(
            tf.Cohere2Config, sliding_window=WINDOW, layer_types=["sliding_attention", "full_attention"] * (LAYERS // 2)
        ),
        image_token_index=IMAGE, downsample_factor=2, alignment_intermediate_size=HIDDEN, tie_word_embeddings=False,
    )  # fmt: skip
    return build(tf.AyaVisionForConditionalGeneration, config, attention)


def aya_vision_image(seed: int, wide: bool) -> PromptImage:
    """A wide image is two tiles and the whole."""
    tiles = 3 if wide else 1
    return PromptImage([START, *[IMAGE] * 4 * tiles, END], {"pixel_values": pixels(tiles, 3, SIDE, SIDE, seed=seed)})


def mistral3(attention: str | None = None) -> Any:
    config = tf.Mistral3Config(
        vision_config=vision(tf.PixtralVisionConfig, 8, head_dim=16),
        text_config=text(tf.MistralConfig, sliding_window=None, head_dim=HEAD_DIM),
        image_token_index=IMAGE, spatial_merge_size=2, vision_feature_layer=-1, tie_word_embeddings=False,
    )  # fmt: skip
    return build(tf.Mistral3ForConditionalGeneration, config, attention)


def mistral3_image(seed: int, wide: bool) -> PromptImage:
    """Two rows of two positions, or of one; every row but the last ends in a break. Images are padded to a square."""
    columns = 2 if wide else 1
    row = [IMAGE] * columns
    image = pixels(1, 3, SIDE, SIDE, seed=seed)
    image[..., columns * 16 :] = 0
    size = torch.tensor([[SIDE, columns * 16]])
    return PromptImage([*row, NEWLINE, *row, END], {"pixel_values": image, "image_sizes": size})


def glm4v(attention: str | None = None) -> Any:
    config = tf.Glm4vConfig(
        vision_config={"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": 8,
                       "out_hidden_size": HIDDEN, "image_size": SIDE, "spatial_merge_size": 2,
                       "temporal_patch_size": 2},
        text_config=text(dict, rope_parameters={**MROPE, "partial_rotary_factor": 1.0}),
        image_token_id=IMAGE, video_token_id=VIDEO, image_start_token_id=START, image_end_token_id=END,
        tie_word_embeddings=False,
    )  # fmt: skip
    return build(tf.Glm4vForConditionalGeneration, config, attention)


MORE = {
    family.name: family
    for family in (
        Family("aya_vision", aya_vision, aya_vision_image),
        Family("mistral3", mistral3, mistral3_image),
        Family("glm4v", glm4v, qwen_image, token_types=("mm_token_type_ids", 1)),
    )
}
