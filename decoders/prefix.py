"""Prompts with words put in front of the question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ..pipelines.model.layout import Inputs, Layout


def insert(inputs: Inputs, at: Sequence[int], tokens: Sequence[int]) -> dict[str, Tensor]:
    """The same prompts with tokens put into row i before its position at[i]; everything per position grows along."""
    ids = inputs["input_ids"]

    def grown(value: Tensor, new: Tensor) -> Tensor:
        return torch.stack([torch.cat([row[:i], new, row[i:]]) for row, i in zip(value, at, strict=True)])

    out = dict(inputs)
    for name, value in inputs.items():
        if value.shape == ids.shape:
            fill = list(tokens) if name == "input_ids" else [int(name == "attention_mask")] * len(tokens)
            out[name] = grown(value, value.new_tensor(fill))
    return out


def question_starts(lvlm: Layout, inputs: Inputs) -> list[int]:
    """Per row, the position behind its image (or its padding), and behind blanks and special tokens after that."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    place = torch.arange(ids.shape[1], device=ids.device)
    before = torch.where(lvlm.image_mask(ids) | (mask == 0), place, -1).amax(1)
    tokenizer = getattr(lvlm.processor, "tokenizer", None)
    return [_skip(tokenizer, row, at + 1) for row, at in zip(ids.tolist(), before.tolist(), strict=True)]


def _skip(tokenizer: Any, row: Sequence[int], at: int) -> int:
    blank = lambda token: token in tokenizer.all_special_ids or not tokenizer.decode([token]).strip()
    while tokenizer is not None and at < len(row) - 1 and blank(row[at]):
        at += 1
    return at
