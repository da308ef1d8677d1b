"""Rows of tokens: padded on the left, repeated, stacked as one batch, and without the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

_ROW_FILL = {"attention_mask": 0, "token_type_ids": 0, "mm_token_type_ids": 0}


class Rows(dict[str, Tensor]):
    """Rows of tokens that say which images they are about. images: of each row; None where that is not known."""

    images: Sequence[Sequence[Any]] | None = None

    @classmethod
    def about(cls, tensors: Mapping[str, Tensor], images: Sequence[Sequence[Any]] | None) -> Rows:
        out = cls(tensors)
        out.images = images
        return out


def pad_left(rows: Sequence[Tensor], fill: int) -> Shaped[Tensor, "row position"]:
    """1-D tensors of any length as one tensor, aligned at the right edge."""
    longest = max(row.shape[0] for row in rows)
    return torch.stack([torch.cat([row.new_full((longest - row.shape[0],), fill), row]) for row in rows])


def image_free(
    inputs: Mapping[str, Tensor], image: Bool[Tensor, "row position"], pad: int
) -> dict[str, Tensor]:
    """Delete the image positions of every row; left-padding goes to the edge again."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    keep = ~image & mask.bool()
    rows = [row[kept] for row, kept in zip(ids, keep, strict=True)]
    out = {"input_ids": pad_left(rows, pad), "attention_mask": pad_left([torch.ones_like(row) for row in rows], 0)}
    for name in ("token_type_ids", "mm_token_type_ids"):
        if name in inputs:
            kinds = [row[kept] for row, kept in zip(inputs[name], keep, strict=True)]
            out[name] = pad_left(kinds, 0)
    return out


def stack(blocks: Sequence[Mapping[str, Tensor]], pad: int) -> dict[str, Tensor]:
    """Row blocks as one batch: ids aligned at the right edge, per-image tensors one after another.

    Raises:
        ValueError: a block brings something that another lacks and that is one entry per row.
    """
    longest = max(block["input_ids"].shape[1] for block in blocks)
    out: dict[str, Tensor] = {}
    for name in dict.fromkeys(name for block in blocks for name in block):
        parts = []
        for block in blocks:
            value = block.get(name)
            if value is None:
                if name in _ROW_FILL:
                    raise ValueError(f"a branch lacks {name!r}, which the other rows have")
                continue
            if name == "input_ids" or name in _ROW_FILL:
                fill = pad if name == "input_ids" else _ROW_FILL[name]
                short = longest - value.shape[1]
                value = torch.cat([value.new_full((value.shape[0], short), fill), value], dim=1) if short else value
            parts.append(value)
        out[name] = torch.cat(_as_wide(parts))
    return out


def _as_wide(parts: Sequence[Tensor]) -> list[Tensor]:
    """Per-image tensors filled up with zeros along their second dimension: tiles, or Q-Former tokens."""
    widest = max(part.shape[1] if part.dim() > 1 else 0 for part in parts)
    short = [0 if part.dim() == 1 else widest - part.shape[1] for part in parts]
    fill = lambda part, count: part.new_zeros(part.shape[0], count, *part.shape[2:])
    return [torch.cat([p, fill(p, n)], 1) if n else p for p, n in zip(parts, short, strict=True)]


def repeated(inputs: Mapping[str, Tensor], times: int, pad: int) -> dict[str, Tensor]:
    """The same rows several times, block after block, whatever a family's images look like."""
    return stack([inputs] * times, pad)


def extended(
    inputs: Mapping[str, Tensor], new: Int[Tensor, "row new"], kind: int = 1,
    real: Bool[Tensor, "row new"] | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """The same prompts with tokens appended.

    kind: their `token_type_ids`. real: which of them are no padding; None is all.
    """
    out = {**inputs, "input_ids": torch.cat([inputs["input_ids"], new], 1)}
    mask = torch.ones_like(new) if real is None else real
    added = {"attention_mask": mask, "token_type_ids": torch.full_like(new, kind), "mm_token_type_ids": new * 0}
    for name, value in added.items():
        if name in inputs:
            out[name] = torch.cat([inputs[name], value.to(inputs[name])], 1)
    return out
