"""Inputs of a run as the model takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..model import families
from ..model.layout import Layout
from .rows import Rows


def moved(value: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device; to a GPU from pinned memory, so that the copy runs beside what comes next."""
    if torch.device(device).type != "cuda" or value.device.type != "cpu" or not torch.cuda.is_available():
        return value.to(device)
    return value.pin_memory().to(device, non_blocking=True)


def complete(lvlm: Layout, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
    """The inputs as tensors on the model's device, with an attention mask.

    Raises:
        ValueError: no `input_ids`, rows padded on the right, or `position_ids` other than those that the model counts.
    """
    tensors = {name: value for name, value in inputs.items() if isinstance(value, Tensor) and name != "labels"}
    out = {name: moved(value, lvlm.device) for name, value in tensors.items()}
    if "input_ids" not in out:
        raise ValueError(f"inputs need input_ids, as a processor returns them; found {', '.join(inputs) or 'nothing'}")
    for name, value in out.items():
        if name.startswith("pixel_values") and value.is_floating_point():
            out[name] = value.to(lvlm.dtype)
    ids, pad = out["input_ids"], lvlm.pad_token
    known = (ids != pad).long() if pad not in lvlm.end_tokens else torch.ones_like(ids)
    mask = out.setdefault("attention_mask", known)
    if not bool((mask[:, -1] == 1).all()):
        raise ValueError("rows must be padded on the left: set processor.tokenizer.padding_side = 'left'")
    if (positions := out.pop("position_ids", None)) is not None:
        families.check_positions(lvlm.model, out, positions)
    return Rows.about(families.with_blank_image(lvlm.model, out), getattr(inputs, "images", None))
