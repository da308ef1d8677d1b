"""Tiny random models: their sizes, their special tokens, and weights in which everything shows.

Every weight is drawn so that activations keep unit size; what usual initialisation (sd 0.02, zeros in Gemma 3's
projector and InstructBLIP's query tokens) makes nearly constant then varies, the image above all.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

PAD, BOS, IMAGE, VIDEO, START, END, FAKE, GLOBAL, NEWLINE, ROW = range(10)  # ROW + n: tile n of SmolVLM and Idefics3
FIRST_WORD, VOCAB = 16, 128
HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM = 64, 6, 4, 2, 16
SIDE = 32  # pixels of a square image or tile
WINDOW = 8  # Gemma 3's sliding window, shorter than every prompt here


def fill(model: nn.Module, seed: int = 0, sharpness: float = 1.5) -> None:
    """Draw every weight again, in place, so that activations keep unit size.

    sharpness: gain of the decoder's query and key projections; attention scores then have a deviation of its square.
    """
    generator = torch.Generator().manual_seed(seed)
    for path, module in model.named_modules():
        kind = type(module).__name__
        for name, weight in module.named_parameters(recurse=False):
            noise = torch.randn(weight.shape, generator=generator)
            if "Norm" in kind:
                centre = 1.0 if name == "weight" and not kind.startswith("Gemma") else 0.0  # Gemma multiplies by 1 + w
                weight.data = centre + 0.1 * noise
            elif name.endswith("bias"):
                weight.data = 0.1 * noise
            elif isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d):
                decoder = "language_model" in path or "text_model" in path
                gain = sharpness if decoder and path.endswith(("q_proj", "k_proj")) else 1.0
                weight.data = gain * noise * (weight.numel() / weight.shape[0]) ** -0.5
            elif name == "mm_input_projection_weight":  # Gemma 3's projector, which starts at zero
                weight.data = noise * weight.shape[0] ** -0.5
            elif "lambda" in name:  # InternVL's layer scales
                weight.data = 0.5 + 0.1 * noise
            elif path.endswith("embed_tokens") and "Gemma" in type(model).__name__:
                weight.data = noise * weight.shape[1] ** -0.5  # the decoder multiplies by √hidden
            else:  # embeddings, class and query tokens, newlines: entries of size 1
                weight.data = noise


def finish(model: Any, seed: int = 0) -> Any:
    """Weights, and a vocabulary whose special tokens are never the largest; generation runs to its full length."""
    model = model.eval().requires_grad_(False)
    fill(model, seed)
    model.get_output_embeddings().weight[:FIRST_WORD] = 0
    for part in (model, getattr(model, "language_model", None)):
        config = getattr(part, "generation_config", None)
        if config is not None:
            config.eos_token_id, config.pad_token_id, config.bos_token_id = None, PAD, BOS
    return model


def text(kind: type, **changes: Any) -> Any:
    """A small decoder configuration of this class."""
    common = {
        "vocab_size": VOCAB, "hidden_size": HIDDEN, "intermediate_size": 2 * HIDDEN, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "max_position_embeddings": 256,
        "pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": None, "tie_word_embeddings": False,
    }  # fmt: skip
    return kind(**{**common, **changes})


def vision(kind: type, patch: int, **changes: Any) -> Any:
    """A small vision configuration of this class: two layers, 32 × 32 pixels."""
    common = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": SIDE, "patch_size": patch,
    }  # fmt: skip
    return kind(**{**common, **changes})


def pixels(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3000 + seed))


def build(model: type, config: Any, attention: str | None, seed: int = 0) -> Any:
    if attention is not None:
        config._attn_implementation = attention
    return finish(model(config), seed)
