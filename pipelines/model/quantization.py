"""Quantised weights and attention kernels by name, through transformers' own classes."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch

QUANTIZATIONS = ("bnb-4bit", "bnb-8bit", "torchao-int8")
KERNELS = ("sdpa", "eager", "flash_attention_2", "flex_attention")
_PACKAGES = {"bnb": "bitsandbytes", "torchao": "torchao"}


class NotPossible(OSError):
    """A way of loading that this machine does not offer; the message names what is missing."""


def quantization_config(wanted: Any, dtype: torch.dtype) -> Any:
    """transformers' configuration for a name; a configuration object as it is; None for None.

    "bnb-4bit": NormalFloat 4 in blocks of 64, computed in `dtype`. "bnb-8bit": LLM.int8(). "torchao-int8": int8
    weights, a scale per output row. The head and embeddings stay as they are.

    Raises:
        NotPossible: an unknown name, or a package that is not installed.
    """
    if wanted is None or not isinstance(wanted, str):
        return wanted
    if wanted not in QUANTIZATIONS:
        raise NotPossible(
            f"quantization={wanted!r} is none of {', '.join(QUANTIZATIONS)}, nor a configuration object of transformers"
        )
    package = _PACKAGES[wanted.partition("-")[0]]
    if find_spec(package) is None:
        raise NotPossible(
            f"quantization={wanted!r} needs the package {package}, which is not installed: pip install {package}"
        )
    if package == "bitsandbytes":
        from transformers import BitsAndBytesConfig

        if wanted == "bnb-8bit":
            return BitsAndBytesConfig(load_in_8bit=True)
        return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    return TorchAoConfig(Int8WeightOnlyConfig())


def check_attention(wanted: str | None, device: Any) -> None:
    """Raise NotPossible for an attention kernel that does not exist or that this machine lacks."""
    if wanted is None or wanted in ("sdpa", "eager", "flex_attention"):
        return
    if wanted not in KERNELS:
        raise NotPossible(f"attention={wanted!r} is none of {', '.join(KERNELS)}; None takes the model's own")
    if find_spec("flash_attn") is None:
        raise NotPossible(
            f"attention={wanted!r} needs the package flash-attn and a GPU; it is not installed here: use 'sdpa', which "
            "runs flash kernels of torch where it can"
        )
    if device == "cpu" or not torch.cuda.is_available():
        raise NotPossible(f"attention={wanted!r} needs a GPU, found device {device!r}: use 'sdpa'")


def name_of(model: Any) -> str | None:
    """How a loaded model's weights are quantised: the method and its settings that matter, or None."""
    config = getattr(model.config, "quantization_config", None)
    if config is None:
        return None
    stated = config if isinstance(config, dict) else config.to_dict()
    method = str(getattr(stated.get("quant_method"), "value", stated.get("quant_method")))
    if method == "bitsandbytes" or stated.get("load_in_4bit") or stated.get("load_in_8bit"):
        return "bnb-4bit" if stated.get("load_in_4bit") else "bnb-8bit"
    kind = stated.get("quant_type")
    kind = next(iter(kind.values())).get("_type", "") if isinstance(kind, dict) and kind else kind or ""
    return "torchao-int8" if kind == "Int8WeightOnlyConfig" else f"{method} {kind}".strip()
