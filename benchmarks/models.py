"""Models for figures of speed, without a download: those of the embedded world, and random weights of any size."""

from __future__ import annotations

from math import isqrt
from typing import Any

import torch

import veridical
from veridical.datasets.captions import DETAIL_PROMPT
from veridical.datasets.world import scene

SINKS = "embedded-smollm2"  # has sinks and a processor, so that every method runs with the values of its paper
OF_SCENES = ("embedded", SINKS)
QUESTIONS = 6
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "text": {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 6, "num_attention_heads": 8},
        "vision": {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4},
    },
    "small": {
        "text": {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12},
        "vision": {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6, "num_attention_heads": 6},
    },
    "7b": {
        "text": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
        "vision": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16},
    },
}
IMAGE, BOS, VOCABULARY, PATCHES = 3, 1, 32000, 576
BEFORE, QUESTION = 5, 25  # words in front of the image and behind it


def random_llava(
    size: str = "small", device: str = "cpu", dtype: torch.dtype = torch.float32, patches: int = PATCHES
) -> veridical.LVLM:
    """A LLaVA of random weights; "small" has about 115 M parameters.

    patches: image tokens, a square number; 576 are those of 336 × 336 pixels.
    """
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**SIZES[size]["vision"], image_size=14 * isqrt(patches), patch_size=14),
        text_config=LlamaConfig(
            **SIZES[size]["text"], vocab_size=VOCABULARY, max_position_embeddings=4096, pad_token_id=0,
            bos_token_id=BOS, eos_token_id=None,
        ),
        image_token_index=IMAGE, image_seq_length=patches, vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )  # fmt: skip
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = LlavaForConditionalGeneration(config).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(before)
    model.generation_config.eos_token_id = None
    return veridical.LVLM(model, name=f"random-{size}")


def random_inputs(
    lvlm: veridical.LVLM, images: int, questions: int = 1, words: int = QUESTION
) -> dict[str, torch.Tensor]:
    """`questions` prompts about each of `images` random images: 5 words, the image's tokens, then `words` words."""
    patches = lvlm.model.config.image_seq_length
    side = 14 * isqrt(patches)
    draw = torch.Generator().manual_seed(0)
    rows = images * questions
    text = torch.randint(4, VOCABULARY, (rows, words), generator=draw)
    before = torch.randint(4, VOCABULARY, (1, BEFORE - 1), generator=draw).expand(rows, -1)
    ids = torch.cat([torch.full((rows, 1), BOS), before, torch.full((rows, patches), IMAGE), text], 1)
    pixels = torch.randn(images, 3, side, side, generator=draw).repeat_interleave(questions, 0)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels.to(lvlm.dtype)}
    return {name: value.to(lvlm.device) for name, value in inputs.items()}


def of_scenes(name: str, device: str = "cpu") -> veridical.LVLM:
    """A model of the embedded world, in float32 on a CPU, whose texts do not end before their number of tokens.

    Raises:
        CannotLoad: SmolLM2, on which the second one is built, is not here.
    """
    lvlm = veridical.load(name, device=device, dtype="fp32" if name == SINKS and device == "cpu" else "auto")
    lvlm.model.generation_config.eos_token_id = None
    return lvlm


def scene_inputs(lvlm: veridical.LVLM) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The prompt for a caption of one test scene, and six questions about each of two scenes as one batch."""
    words = ("dog", "chair", "person", "tv", "book", "car")
    images = [scene("test", i).image for i in range(2) for _ in range(QUESTIONS)]
    questions = [f"Is there a {word} in the image?" for _ in range(2) for word in words]
    return lvlm.prepare([scene("test", 0).image], [DETAIL_PROMPT]), lvlm.prepare(images, questions)
