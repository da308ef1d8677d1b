"""How much memory a model needs, known from its configuration before a weight is read, against what is free."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForImageTextToText

TOKENS = 2048  # of prompt, image and answer that are allowed for
PER_WEIGHT = {"bnb-4bit": 0.5 + 4 / 64, "bnb-8bit": 1.0, "torchao-int8": 1.0}  # 4 bit: a float32 scale for 64 weights


class TooLarge(OSError):
    """A model whose weights do not fit; the message names what would."""


class Tight(UserWarning):
    """The weights fit, but perhaps not what a run needs beside them."""


@dataclass(frozen=True)
class Need:
    """Bytes of weights (counted), of the key-value cache (counted) and of the work of a pass (an allowance)."""

    weights: int
    cache: int
    work: int

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.work


@dataclass(frozen=True)
class Size:
    """What of a configuration decides the memory: parameters in all and in linear layers below the head."""

    parameters: int
    linear: int
    layers: int
    key_value: int  # numbers of one token and layer in the key-value cache
    wide: int  # numbers of one token in the widest layer's work
    vocabulary: int

    @classmethod
    def of(cls, config: Any) -> Size:
        """Counted on a model without storage."""
        with torch.device("meta"):
            model = AutoModelForImageTextToText.from_config(config)
        head = model.get_output_embeddings()
        linear = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear) and m is not head)
        text = config.get_text_config()
        heads = text.num_attention_heads
        head_dim = getattr(text, "head_dim", None) or text.hidden_size // heads
        key_value = 2 * (getattr(text, "num_key_value_heads", None) or heads) * head_dim
        wide = 4 * text.hidden_size + 3 * getattr(text, "intermediate_size", 4 * text.hidden_size)
        total = sum(p.numel() for p in model.parameters())  # a tied head counts once
        return cls(total, linear, text.num_hidden_layers, key_value, wide, text.vocab_size)

    def need(self, dtype: torch.dtype, quantization: Any = None, rows: int = 1, tokens: int = TOKENS) -> Need:
        """Bytes for so many rows of so many tokens.

        weights = parameters × bytes, linear layers at the quantised size;  cache = rows · tokens · layers · key_value
        × bytes;  work = rows · tokens · (4·hidden + 3·intermediate) × bytes + 3 float32 copies of the logits.
        """
        size, quantised = dtype.itemsize, per_weight(quantization)
        weights = self.parameters * size
        if quantised is not None:
            weights += round(self.linear * (quantised - size))
        cache = rows * tokens * self.layers * self.key_value * size
        return Need(weights, cache, rows * (tokens * self.wide * size + 3 * 4 * self.vocabulary))


def estimate(lvlm: Any, rows: int = 1) -> Need:
    """What a loaded model was expected to need."""
    kind = lvlm.quantization
    return Size.of(lvlm.model.config).need(lvlm.dtype, kind if kind in PER_WEIGHT else None, rows)


def per_weight(quantization: Any) -> float | None:
    """Bytes of one quantised weight: by name, or by what a configuration object states."""
    if quantization is None or isinstance(quantization, str):
        return None if quantization is None else PER_WEIGHT[quantization]
    return PER_WEIGHT["bnb-4bit"] if getattr(quantization, "load_in_4bit", False) else 1.0


def free(device: Any) -> int | None:
    """Bytes that are free on "cpu", "cuda", "cuda:1", or on all devices together ("auto"); None where unknown."""
    if device == "auto":
        return free_ram() + sum(torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count()))
    kind = torch.device(device).type
    return free_ram() if kind == "cpu" else torch.cuda.mem_get_info(device)[0] if kind == "cuda" else None


def free_ram() -> int:
    import psutil

    return psutil.virtual_memory().available


def check(
    name: str, config: Any, device: Any, dtype: torch.dtype, quantization: Any = None, rows: int = 1
) -> Need | None:
    """Refuse weights that do not fit, warn where a run may not. None: nothing could be compared.

    Raises:
        TooLarge: the weights are larger than what is free.
    Warns:
        Tight: weights, cache and work together are.
    """
    room = free(device)
    if room is None or getattr(config, "quantization_config", None) is not None:
        return None
    size = Size.of(config)
    need = size.need(dtype, quantization, rows)
    if need.total <= room:
        return need
    where = {"auto": "all devices here together have", "cpu": "the CPU has"}.get(device, f"{device} has")
    message = (
        f"{name} in {_precision(dtype, quantization)} needs {_gb(need.weights)} for its weights and about "
        f"{_gb(need.cache + need.work)} to run {rows} row{'s' * (rows > 1)} of {TOKENS} tokens; {where} "
        f"{_gb(room)} free."
    )
    others = fitting(size, device, dtype, quantization, rows)
    advice = f" Would fit: {'; '.join(others)}." if others else " Nothing smaller of it would fit here: take another."
    if need.weights > room:
        raise TooLarge(f"{message}{advice} check_memory=False tries all the same.")
    warnings.warn(message + advice, Tight, stacklevel=3)
    return need


def fitting(size: Size, device: Any, dtype: torch.dtype, quantization: Any, rows: int) -> list[str]:
    """Other ways to load a model that fit, largest first, as arguments of `load`."""
    on_gpu = device == "auto" or torch.device(device).type == "cuda"
    narrow = torch.bfloat16 if dtype.itemsize > 2 else dtype
    ways: list[tuple[str, Any, torch.dtype, Any, int]] = []
    if rows > 1:
        ways.append((f"{rows // 2} rows instead of {rows}", device, dtype, quantization, rows // 2))
    if quantization is None:
        if narrow is not dtype:
            ways.append(("dtype='bf16'", device, narrow, None, rows))
        for smaller in ("bnb-8bit", "bnb-4bit") if on_gpu else ("torchao-int8",):
            ways.append((f"dtype='bf16', quantization={smaller!r}", device, narrow, smaller, rows))
    if device != "auto" and torch.cuda.is_available():
        ways.append(("device='balanced'", "auto", dtype, quantization, rows))
    found = []
    for words, where, precision, kind, count in ways:
        need, room = size.need(precision, kind, count), free(where)
        if room is not None and need.total <= room:
            found.append(f"{words} ({_gb(need.total)})")
    return found


def _precision(dtype: torch.dtype, quantization: Any) -> str:
    name = str(dtype).removeprefix("torch.")
    if quantization is None:
        return name
    return f"{name} and {quantization if isinstance(quantization, str) else type(quantization).__name__}"


def _gb(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 5e7 else f"{count / 1e6:.1f} MB"
