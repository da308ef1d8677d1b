"""Loads a vision-language model from a Hub id, a folder, or the one that is shipped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from .lvlm import LVLM, UnsupportedModel

EMBEDDED = "embedded"
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


class CannotLoad(OSError):
    """A model that could not be loaded; the message says what was looked for and what to do."""


def load(
    name: str | Path, device: str = "auto", dtype: str | torch.dtype = "auto", revision: str | None = None,
    quantization: Any = None, attention: str | None = None, trust_remote_code: bool = False,
) -> LVLM:  # fmt: skip
    """A model and its processor, ready for `caption` and `generate`.

    Args:
        name: "embedded", a folder, or a Hub id such as "llava-hf/llava-1.5-7b-hf".
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", or "balanced" to spread layers over devices.
        dtype: "auto" (as saved; float32 on CPU), "bf16", "fp16", "fp32" or a torch.dtype.
        quantization: a transformers quantization config.
        attention: "sdpa", "eager", "flash_attention_2": what layers use that no method touches. None is sdpa where the
            model has it, else eager (PaliGemma 2, whose scores are soft-capped).
        trust_remote_code: run Python code from the repository; only if you have read it.

    Raises:
        CannotLoad: no such model, no processor, or files missing.
        UnsupportedModel: a text-only model, or one whose layout is not understood.
    """
    source = _source(str(name))
    common = {"revision": revision, "trust_remote_code": trust_remote_code}
    where = _device(device)
    try:
        config = AutoConfig.from_pretrained(source, **common)
    except (OSError, ValueError) as error:
        raise CannotLoad(_explain(name, source, error)) from error
    if type(config) not in AutoModelForImageTextToText._model_mapping:
        raise UnsupportedModel(
            f"{name} is a {config.model_type!r} model, which reads no images; looked for one of transformers' "
            "image-text-to-text models, such as llava, qwen2_5_vl, internvl or gemma3"
        )
    try:
        processor = AutoProcessor.from_pretrained(source, **common)
    except (OSError, ValueError, TypeError) as error:
        raise CannotLoad(
            f"{name} has no processor that can be loaded: looked for processor_config.json or preprocessor_config.json "
            f"and a tokenizer; found {_files(source)}. Copy them from the model's original folder."
        ) from error
    if getattr(processor, "image_processor", None) is None:
        raise CannotLoad(
            f"{name} has a tokenizer but no image processor: looked for processor_config.json or "
            f"preprocessor_config.json; found {_files(source)}. Copy them from the model's original folder."
        )
    try:
        model = AutoModelForImageTextToText.from_pretrained(
            source, dtype=_dtype(dtype, where, config), device_map=where, quantization_config=quantization,
            attn_implementation=attention, use_safetensors=True, **common,
        )  # fmt: skip
    except (OSError, ValueError, ImportError) as error:
        raise CannotLoad(_explain(name, source, error)) from error
    return LVLM(model.eval(), processor, name=str(name), revision=revision or getattr(config, "_commit_hash", None))


def _source(name: str) -> str:
    if name != EMBEDDED:
        return name
    from ..models import EMBEDDED as folder

    return str(folder)


def _device(device: str) -> Any:
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise CannotLoad(f"device={device!r}, but torch finds no GPU here; use device='cpu' or 'auto'")
    return "auto" if device == "balanced" else device


def _dtype(dtype: str | torch.dtype, device: Any, config: Any) -> Any:
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        return torch.float32 if device == "cpu" else "auto"
    if dtype not in _DTYPES:
        raise CannotLoad(f"dtype={dtype!r} is none of auto, {', '.join(_DTYPES)}")
    return _DTYPES[dtype]


def _files(source: str) -> str:
    folder = Path(source)
    if not folder.is_dir():
        return "no such folder here"
    return ", ".join(sorted(path.name for path in folder.iterdir())) or "an empty folder"


def _explain(name: str | Path, source: str, error: Exception) -> str:
    if Path(source).is_dir():
        return f"{name} could not be loaded: {_first_line(error)} Found in the folder: {_files(source)}."
    if str(name).startswith(("/", ".", "~")):
        return f"no model folder {name}: it does not exist; give a folder with config.json, a Hub id, or 'embedded'"
    offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
    hint = " HF_HUB_OFFLINE is set, so only models that were downloaded before can be loaded." if offline else ""
    return (
        f"no model {str(name)!r}: it is neither 'embedded', nor a folder here, nor a model that could be fetched from "
        f"the Hub ({_first_line(error)}).{hint}"
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
