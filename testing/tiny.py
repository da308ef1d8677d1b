"""Tiny random LLaVA models whose image counts, and prompts for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

PAD, BOS, IMAGE, FIRST_WORD, VOCAB = 0, 1, 3, 4, 128
IMAGE_TOKENS = 16  # 32 by 32 pixels in patches of 8, class token dropped


def tiny_llava(
    heads: int = 8,
    kv_heads: int | None = None,
    seed: int = 0,
    layers: int = 8,
    hidden: int = 64,
    sharpness: float = 1.5,
    attention: str | None = None,
) -> LlavaForConditionalGeneration:
    """A float32 LLaVA on CPU: CLIP vision (2 layers, 16 patches), Llama text.

    Every weight is drawn so that activations keep unit size; what usual initialisation (sd 0.02) makes nearly
    constant — the image, the attention — then varies.

    Args:
        heads, kv_heads: query heads and key/value heads; None: as many, i.e. multi-head attention.
        sharpness: gain of query and key weights; attention scores then have a deviation of about its square.
        attention: "eager" or "sdpa"; None: the library's choice.
    """
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=32,
            patch_size=8,
        ),
        text_config=LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads or heads,
            max_position_embeddings=256,
            pad_token_id=PAD,
            bos_token_id=BOS,
            eos_token_id=None,
            tie_word_embeddings=False,
        ),
        image_token_index=IMAGE,
        image_seq_length=IMAGE_TOKENS,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )
    if attention is not None:
        config._attn_implementation = attention
    model = LlavaForConditionalGeneration(config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if weight.dim() == 1:  # gains near 1, biases near 0
            centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            weight.copy_(centre + 0.1 * torch.randn(weight.shape, generator=generator))
            continue
        if "embed_tokens" in name or ("embedding" in name and "patch" not in name):
            scale = 1.0
        else:
            scale = (weight.numel() / weight.shape[0]) ** -0.5
        if "language_model" in name and ("q_proj" in name or "k_proj" in name):
            scale *= sharpness
        weight.copy_(scale * torch.randn(weight.shape, generator=generator))
    model.lm_head.weight[[PAD, BOS, IMAGE]] = 0  # never the largest of 128, so never generated
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = PAD
    return model


def plant_sinks(
    model: LlavaForConditionalGeneration,
    dims: Sequence[int],
    tokens: Mapping[int, float],
    patches: Mapping[int, float] | None = None,
) -> None:
    """Make some words and some image tokens huge in the given hidden dimensions, in place.

    Args:
        dims: hidden dimensions of the text model.
        tokens: token id -> value that its embedding gets in every one of `dims`.
        patches: patch index, 0 to 15 -> value that its feature gets there, roughly; None: no image sinks.

    One channel of the vision tower is set apart for this: marked patches carry a large position embedding in it, and
    one unit of the projector, which reads nothing else, adds to `dims`. Other patches leave that unit closed.
    """
    dims = list(dims)
    for token, value in tokens.items():
        model.model.language_model.embed_tokens.weight[token, dims] = value
    if not patches:
        return
    tower, projector = model.model.vision_tower, model.model.multi_modal_projector
    position = tower.embeddings.position_embedding.weight  # class token first
    tower.embeddings.patch_embedding.weight[0] = 0
    position[:, 0] = 0
    tower.embeddings.class_embedding[0] = 0
    for block in tower.encoder.layers:  # nobody writes to the channel set apart
        for writer in (block.self_attn.out_proj, block.mlp.fc2):
            writer.weight[0], writer.bias[0] = 0, 0
    tower.pre_layrnorm.weight[0], tower.pre_layrnorm.bias[0] = 1, 0
    projector.linear_1.weight[0], projector.linear_1.bias[0] = 0, -1.5
    projector.linear_1.weight[0, 0] = 1
    projector.linear_2.weight[:, 0] = 0
    largest = max(patches.values())
    for patch, value in patches.items():
        position[1 + patch, 0] = 30.0 * value / largest
    projector.linear_2.weight[dims, 0] = largest / 3.5  # the unit opens to about 3.5 at most


def words(count: int, seed: int) -> list[int]:
    """Random ordinary token ids."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(FIRST_WORD, VOCAB, (count,), generator=generator).tolist()


def prompt(
    model: LlavaForConditionalGeneration,
    text_before: int | Sequence[int],
    text_after: int | Sequence[int],
    seed: int = 0,
) -> dict[str, Tensor]:
    """One unpadded prompt as a processor returns it: BOS, words, 16 placeholders, words; and a random image.

    text_before, text_after: how many random words, or their ids.
    """
    before = words(text_before, 1000 + seed) if isinstance(text_before, int) else list(text_before)
    after = words(text_after, 2000 + seed) if isinstance(text_after, int) else list(text_after)
    ids = torch.tensor([[BOS, *before, *[model.config.image_token_id] * IMAGE_TOKENS, *after]])
    pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(3000 + seed))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}


def batch(prompts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Several prompts as one left-padded batch."""
    longest = max(one["input_ids"].shape[1] for one in prompts)

    def left(tensor: Tensor, value: int) -> Tensor:
        return torch.nn.functional.pad(tensor, (longest - tensor.shape[1], 0), value=value)

    return {
        "input_ids": torch.cat([left(one["input_ids"], PAD) for one in prompts]),
        "attention_mask": torch.cat([left(one["attention_mask"], 0) for one in prompts]),
        "pixel_values": torch.cat([one["pixel_values"] for one in prompts]),
    }
