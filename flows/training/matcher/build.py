"""Builds the embedded world's matcher before training: a small open_clip model, its tokenizer, its folder.

The folder is one that open_clip reads: `open_clip.create_model_and_transforms("local-dir:FOLDER")`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from tokenizers import normalizers, processors
from torch import Tensor

from ....models import EMBEDDED
from ..embedded.build import IMAGE_SIZE, PATCH

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
WORDS = 32  # tokens of a text, with its end


def tokenizer() -> PreTrainedTokenizerFast:
    """The embedded LVLM's tokenizer, which reads in lower case here, ends every text and pads behind it."""
    from transformers import PreTrainedTokenizerFast

    words = PreTrainedTokenizerFast.from_pretrained(EMBEDDED)
    words.backend_tokenizer.normalizer = normalizers.Lowercase()
    end = (words.eos_token, words.eos_token_id)
    words.backend_tokenizer.post_processor = processors.TemplateProcessing(f"$A {end[0]}", special_tokens=[end])
    words.padding_side, words.model_max_length, words.chat_template = "right", WORDS, None
    return words


def config(vocabulary: int) -> dict[str, Any]:
    """open_clip's configuration: the embedded LVLM's vision tower and a layer more; two text layers of width 128."""
    vision = {
        "image_size": IMAGE_SIZE, "patch_size": PATCH, "layers": 6, "width": 192, "head_width": 32, "mlp_ratio": 4.0,
    }  # fmt: skip
    text = {
        "context_length": WORDS, "vocab_size": vocabulary, "hf_tokenizer_name": "tokenizer of this folder",
        "width": 128, "heads": 4, "layers": 2, "pool_type": "eos", "eos_id": 2, "pad_id": 0,
    }  # fmt: skip
    model = {
        "embed_dim": 128, "quick_gelu": True, "init_logit_scale": 2.3, "init_logit_bias": -5.0, "vision_cfg": vision,
        "text_cfg": text,
    }  # fmt: skip
    images = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "squash"}
    return {"model_cfg": model, "preprocess_cfg": images}


def model(vocabulary: int) -> Any:
    """The model, 3.3 M parameters. All but the last layer of its vision tower is the embedded LVLM's, and locked.

    What is in the image then reaches the class token through the last layer's attention, where GradCAM looks.
    """
    import open_clip
    from transformers import AutoModelForImageTextToText

    built = open_clip.CLIP(**config(vocabulary)["model_cfg"])
    lvlm: Any = AutoModelForImageTextToText.from_pretrained(EMBEDDED, dtype=torch.float32, use_safetensors=True)
    built.visual.load_state_dict(as_open_clip(lvlm.model.vision_tower.state_dict()), strict=False)
    built.lock_image_tower(unlocked_groups=2)  # the last layer with its norm, and the projection
    return built


def as_open_clip(tower: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of transformers' CLIP vision tower under open_clip's names; the projection is not among them."""
    tower = {name.removeprefix("vision_model."): value for name, value in tower.items()}
    out = {
        "class_embedding": tower["embeddings.class_embedding"],
        "positional_embedding": tower["embeddings.position_embedding.weight"],
        "conv1.weight": tower["embeddings.patch_embedding.weight"],
    }
    same = {"pre_layrnorm": "ln_pre", "post_layernorm": "ln_post"}
    within = {
        "self_attn.out_proj": "attn.out_proj", "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    }  # fmt: skip
    layers = 1 + max(int(name.split(".")[2]) for name in tower if name.startswith("encoder.layers."))
    for layer in range(layers):
        here, there = f"encoder.layers.{layer}", f"transformer.resblocks.{layer}"
        same |= {f"{here}.{ours}": f"{there}.{theirs}" for ours, theirs in within.items()}
        for kind in ("weight", "bias"):
            parts = [tower[f"{here}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
            out[f"{there}.attn.in_proj_{kind}"] = torch.cat(parts)
    for ours, theirs in same.items():
        out |= {f"{theirs}.{kind}": tower[f"{ours}.{kind}"] for kind in ("weight", "bias")}
    return out


def export(trained: Any, words: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write weights in float16, configuration and tokenizer as a folder that open_clip loads."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().cpu().half().contiguous() for name, value in trained.state_dict().items()}
    save_file(tensors, folder / "open_clip_model.safetensors")
    text = json.dumps(config(len(words)), indent=2) + "\n"
    (folder / "open_clip_config.json").write_text(text, encoding="utf-8")
    words.save_pretrained(folder)
