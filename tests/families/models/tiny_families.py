"""A tiny random model of every supported family, and an image as the family's own processor hands it over.

Nothing is downloaded: each model is built from its configuration class, float32, on CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers as tf
from torch import Tensor

from .tiny_weights import (
    END,
    FAKE,
    GLOBAL,
    HEAD_DIM,
    HEADS,
    HIDDEN,
    IMAGE,
    LAYERS,
    NEWLINE,
    ROW,
    SIDE,
    START,
    VIDEO,
    VOCAB,
    WINDOW,
    build,
    pixels,
    text,
    vision,
)


@dataclass(frozen=True)
class PromptImage:
    """One image in a prompt: its tokens, wrappers included, and what the processor returns for it."""

    tokens: list[int]
    tensors: dict[str, Tensor] = field(default_factory=dict)

    @property
    def placeholders(self) -> int:
        return self.tokens.count(IMAGE)


@dataclass(frozen=True)
class Family:
    """How to build one family and its inputs.

    image: (seed, wide) -> Image; `wide` asks for the other shape where the family has several.
    image_first: the processor puts the image before BOS and before any padding of the text (InstructBLIP), or
    before BOS (PaliGemma). token_types: name of the row kinds its processor returns, and the kind of a placeholder.
    one_image: why a prompt holds one image only, or "".
    """

    name: str
    build: Callable[..., Any]
    image: Callable[[int, bool], PromptImage]
    image_first: bool = False
    pads_inside: bool = False
    token_types: tuple[str, int] | None = None
    one_image: str = ""
    tiled: bool = False


def llava(attention: str | None = None) -> Any:
    config = tf.LlavaConfig(
        vision_config=vision(tf.CLIPVisionConfig, 16),
        text_config=text(tf.LlamaConfig, num_key_value_heads=HEADS),
        image_token_index=IMAGE, image_seq_length=4, vision_feature_layer=-2,
    )  # fmt: skip
    return build(tf.LlavaForConditionalGeneration, config, attention)


def llava_image(seed: int, wide: bool) -> PromptImage:
    return PromptImage([IMAGE] * 4, {"pixel_values": pixels(1, 3, SIDE, SIDE, seed=seed)})


PINPOINTS = [[64, 32], [64, 64]]


def llava_next(attention: str | None = None) -> Any:
    config = tf.LlavaNextConfig(
        vision_config=vision(tf.CLIPVisionConfig, 16),
        text_config=text(tf.MistralConfig, sliding_window=None, head_dim=HEAD_DIM),
        image_token_index=IMAGE, image_grid_pinpoints=PINPOINTS, vision_feature_layer=-2,
    )  # fmt: skip
    return build(tf.LlavaNextForConditionalGeneration, config, attention)


def llava_onevision(attention: str | None = None) -> Any:
    config = tf.LlavaOnevisionConfig(
        vision_config=vision(tf.SiglipVisionConfig, 16, vision_use_head=False),
        text_config=text(tf.Qwen2Config),
        image_token_index=IMAGE, video_token_index=VIDEO, image_grid_pinpoints=PINPOINTS,
    )  # fmt: skip
    return build(tf.LlavaOnevisionForConditionalGeneration, config, attention)


def anyres_image(seed: int, wide: bool) -> PromptImage:
    """A base image of 2 × 2 positions, then tiles of 2 × 2 as one grid with a newline at the end of each row.

    Tall: two tiles, 4 rows of 2 + newline = 12 positions. Wide: four tiles, 4 rows of 4 + newline = 20.
    """
    size, tiles, positions = ([64, 64], 4, 20) if wide else ([64, 32], 2, 12)
    tensors = {"pixel_values": pixels(1, 1 + tiles, 3, SIDE, SIDE, seed=seed), "image_sizes": torch.tensor([size])}
    return PromptImage([IMAGE] * (4 + positions), tensors)


def instructblip(attention: str | None = None) -> Any:
    config = tf.InstructBlipConfig(
        vision_config=vision(tf.InstructBlipVisionConfig, 16),
        qformer_config=tf.InstructBlipQFormerConfig(
            vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
            max_position_embeddings=512, cross_attention_frequency=1, encoder_hidden_size=32,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        ),
        text_config=text(tf.LlamaConfig, num_key_value_heads=HEADS),
        num_query_tokens=6, image_token_index=IMAGE,
    )  # fmt: skip
    return build(tf.InstructBlipForConditionalGeneration, config, attention)


def instructblip_image(seed: int, wide: bool) -> PromptImage:
    return PromptImage([IMAGE] * 6, {"pixel_values": pixels(1, 3, SIDE, SIDE, seed=seed)})


MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
QWEN_IDS = {
    "image_token_id": IMAGE, "video_token_id": VIDEO, "vision_start_token_id": START, "vision_end_token_id": END,
    "tie_word_embeddings": False,
}  # fmt: skip


def qwen2_vl(attention: str | None = None) -> Any:
    config = tf.Qwen2VLConfig(
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": HIDDEN, "num_heads": 2, "mlp_ratio": 2,
                       "patch_size": 8},
        text_config=text(dict, rope_parameters=MROPE),
        **QWEN_IDS,
    )  # fmt: skip
    return build(tf.Qwen2VLForConditionalGeneration, config, attention)


def qwen2_5_vl(attention: str | None = None) -> Any:
    config = tf.Qwen2_5_VLConfig(
        vision_config={"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": 8,
                       "window_size": 32, "out_hidden_size": HIDDEN, "fullatt_block_indexes": [1]},
        text_config=text(dict, rope_parameters=MROPE),
        **QWEN_IDS,
    )  # fmt: skip
    return build(tf.Qwen2_5_VLForConditionalGeneration, config, attention)


def qwen3_vl(attention: str | None = None) -> Any:
    config = tf.Qwen3VLConfig(
        vision_config={"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": 8,
                       "out_hidden_size": HIDDEN, "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1]},
        text_config=text(dict, head_dim=HEAD_DIM, rope_parameters={**MROPE, "mrope_interleaved": True}),
        **QWEN_IDS,
    )  # fmt: skip
    return build(tf.Qwen3VLForConditionalGeneration, config, attention)


def qwen_image(seed: int, wide: bool) -> PromptImage:
    """Patches of 8 × 8 pixels in two frames, flattened; four patches make one position."""
    grid = [1, 4, 8] if wide else [1, 4, 4]
    count = grid[1] * grid[2]
    tensors = {"pixel_values": pixels(count, 3 * 2 * 8 * 8, seed=seed), "image_grid_thw": torch.tensor([grid])}
    return PromptImage([START, *[IMAGE] * (count // 4), END], tensors)


def internvl(attention: str | None = None) -> Any:
    config = tf.InternVLConfig(
        vision_config=vision(tf.InternVLVisionConfig, 8, image_size=[SIDE, SIDE], patch_size=[8, 8]),
        text_config=text(tf.Qwen2Config),
        image_token_id=IMAGE, image_seq_length=4, tie_word_embeddings=False,
    )  # fmt: skip
    return build(tf.InternVLForConditionalGeneration, config, attention)


def internvl_image(seed: int, wide: bool) -> PromptImage:
    """A wide image is two tiles and a thumbnail, one after another."""
    tiles = 3 if wide else 1
    return PromptImage([START, *[IMAGE] * 4 * tiles, END], {"pixel_values": pixels(tiles, 3, SIDE, SIDE, seed=seed)})


def smolvlm(attention: str | None = None) -> Any:
    config = tf.SmolVLMConfig(
        vision_config=vision(tf.SmolVLMVisionConfig, 8),
        text_config=text(tf.LlamaConfig),
        image_token_id=IMAGE, scale_factor=2, tie_word_embeddings=False,
    )  # fmt: skip
    return build(tf.SmolVLMForConditionalGeneration, config, attention)


def idefics3(attention: str | None = None) -> Any:
    config = tf.Idefics3Config(
        vision_config=vision(tf.models.idefics3.Idefics3VisionConfig, 8),
        text_config=text(tf.LlamaConfig),
        image_token_id=IMAGE, scale_factor=2, tie_word_embeddings=False,
    )  # fmt: skip
    return build(tf.Idefics3ForConditionalGeneration, config, attention)


def tiled_image(seed: int, wide: bool) -> PromptImage:
    """A wide image is two tiles and the whole, four positions each, with row tokens between them."""
    tiles = 3 if wide else 1
    tokens = [FAKE, ROW, *[IMAGE] * 4, FAKE, ROW + 1, *[IMAGE] * 4, NEWLINE] if wide else []
    tokens += [FAKE, GLOBAL, *[IMAGE] * 4, FAKE]
    mask = torch.ones(1, tiles, SIDE, SIDE, dtype=torch.long)
    shown = pixels(1, tiles, 3, SIDE, SIDE, seed=seed)
    return PromptImage(tokens, {"pixel_values": shown, "pixel_attention_mask": mask})


def paligemma(attention: str | None = None) -> Any:
    config = tf.PaliGemmaConfig(
        vision_config=vision(tf.SiglipVisionConfig, 16, vision_use_head=False, projection_dim=HIDDEN),
        text_config=text(tf.GemmaConfig, num_key_value_heads=1, head_dim=HEAD_DIM),
        image_token_index=IMAGE, projection_dim=HIDDEN, hidden_size=HIDDEN, tie_word_embeddings=False,
    )  # fmt: skip
    return build(tf.PaliGemmaForConditionalGeneration, config, attention)


def paligemma2(attention: str | None = None) -> Any:
    """PaliGemma over Gemma 2: soft-capped scores and logits, sliding layers; transformers runs it eager."""
    config = tf.PaliGemmaConfig(
        vision_config=vision(tf.SiglipVisionConfig, 16, vision_use_head=False, projection_dim=HIDDEN),
        text_config=text(
            tf.Gemma2Config, head_dim=HEAD_DIM, query_pre_attn_scalar=HEAD_DIM, sliding_window=WINDOW,
            attn_logit_softcapping=5.0, final_logit_softcapping=3.0,
        ),
        image_token_index=IMAGE, projection_dim=HIDDEN, hidden_size=HIDDEN, tie_word_embeddings=False,
    )  # fmt: skip
    return build(tf.PaliGemmaForConditionalGeneration, config, attention)


def paligemma_image(seed: int, wide: bool) -> PromptImage:
    return PromptImage([IMAGE] * 4, {"pixel_values": pixels(1, 3, SIDE, SIDE, seed=seed)})


def gemma3(attention: str | None = None) -> Any:
    config = tf.Gemma3Config(
        vision_config=vision(tf.SiglipVisionConfig, 8, vision_use_head=False),
        text_config=text(
            tf.Gemma3TextConfig, head_dim=HEAD_DIM, query_pre_attn_scalar=HEAD_DIM, sliding_window=WINDOW,
            layer_types=["sliding_attention", "sliding_attention", "full_attention"] * (LAYERS // 3),
        ),
        image_token_index=IMAGE, boi_token_index=START, eoi_token_index=END, mm_tokens_per_image=4,
        tie_word_embeddings=False,
    )  # fmt: skip
    return build(tf.Gemma3ForConditionalGeneration, config, attention)


def gemma3_image(seed: int, wide: bool) -> PromptImage:
    return PromptImage([START, *[IMAGE] * 4, END], {"pixel_values": pixels(1, 3, SIDE, SIDE, seed=seed)})


MM = ("mm_token_type_ids", 1)
FAMILIES = {
    family.name: family
    for family in (
        Family("llava", llava, llava_image),
        Family("llava_next", llava_next, anyres_image),
        Family("llava_onevision", llava_onevision, anyres_image),
        Family(
            "instructblip", instructblip, instructblip_image, image_first=True, pads_inside=True,
            one_image="its processor takes one image per prompt",
        ),
        Family("qwen2_vl", qwen2_vl, qwen_image, token_types=MM),
        Family("qwen2_5_vl", qwen2_5_vl, qwen_image, token_types=MM),
        Family("qwen3_vl", qwen3_vl, qwen_image, token_types=MM),
        Family("internvl", internvl, internvl_image),
        Family("smolvlm", smolvlm, tiled_image, tiled=True),
        Family("idefics3", idefics3, tiled_image, tiled=True),
        Family("paligemma", paligemma, paligemma_image, image_first=True, token_types=("token_type_ids", 0)),
        Family("gemma3", gemma3, gemma3_image, token_types=("token_type_ids", 1)),
    )
}  # fmt: skip
