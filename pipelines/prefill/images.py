"""Images encoded once in a run: equal images of several rows, and one image in several passes and branches."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ..model.layout import Layout
from .memo import Memo

TEXT = frozenset(("input_ids", "attention_mask"))
PIXELS = "pixel_values"
IMAGES = frozenset((PIXELS, "image_sizes", "pixel_attention_mask"))


def encodable(lvlm: Layout, blocks: Sequence[Mapping[str, Tensor]]) -> bool:
    """Whether features can stand in for pixels: the model takes them, and every image is one tensor and one row.

    Families that cut images into tiles, or that describe them by further inputs, encode in each pass as before.
    """
    takes = "mm_encoder_outputs" in inspect.signature(lvlm.model.forward).parameters
    if not takes or not hasattr(lvlm.model.base_model, "get_image_features"):
        return False
    if not all(block.keys() <= {*TEXT, PIXELS} for block in blocks):
        return False
    images = [(block[PIXELS], len(block["input_ids"])) for block in blocks if PIXELS in block]
    return all(pixels.dim() == 4 and len(pixels) == rows for pixels, rows in images)


def distinct(pixels: Tensor) -> list[int]:
    """For each row the first row with the same pixels."""
    first: list[int] = []
    sums = pixels.flatten(1).double().sum(1).tolist()
    for row, total in enumerate(sums):
        like = (other for other in dict.fromkeys(first) if sums[other] == total)
        first.append(next((other for other in like if torch.equal(pixels[other], pixels[row])), row))
    return first


def features(lvlm: Layout, pixels: Tensor, memo: Memo) -> tuple[list[Tensor], list[int]] | None:
    """Features of the distinct images, each (token, hidden), and which of them every row has.

    None where the encoder's output cannot be taken apart by image.
    """
    if id(pixels) not in memo.images:
        first = distinct(pixels)
        own = sorted(set(first))
        encoded = lvlm.model.base_model.get_image_features(
            pixel_values=pixels if len(own) == len(first) else pixels[own], return_dict=True
        ).pooler_output
        if not isinstance(encoded, Tensor | list | tuple) or len(encoded) != len(own):
            return None
        memo.stacked = isinstance(encoded, Tensor)
        memo.images[id(pixels)] = pixels, list(encoded), [own.index(row) for row in first]
    return memo.images[id(pixels)][1:]


def repeated(blocks: Sequence[Mapping[str, Tensor]], memo: Memo) -> bool:
    """Whether an image of these rows was encoded before, or stands in several rows."""
    pixels = [block[PIXELS] for block in blocks if PIXELS in block]
    if any(id(one) in memo.images for one in pixels) or len({id(one) for one in pixels}) < len(pixels):
        return True
    return any(one.dim() == 4 and len(set(distinct(one))) < len(one) for one in pixels)


def encoded(lvlm: Layout, blocks: Sequence[Mapping[str, Tensor]], memo: Memo | None) -> dict[str, Any] | None:
    """What goes to the model in place of the pixels of these blocks' rows, one after another; None: the pixels do.

    One call of the encoder per tensor of pixels, however many blocks and passes have it.
    """
    if memo is None or not encodable(lvlm, blocks):
        return None
    rows: list[Tensor] = []
    for block in blocks:
        if PIXELS in block:
            found = features(lvlm, block[PIXELS], memo)
            if found is None:
                return None
            mine = [found[0][at] for at in found[1]]
            if [len(one) for one in mine] != lvlm.image_mask(block["input_ids"]).sum(1).tolist():
                return None
            rows += mine
    return {"mm_encoder_outputs": {"image": outputs_of(rows, memo)}} if rows else {}


def outputs_of(rows: Sequence[Tensor], memo: Memo) -> BaseModelOutputWithPooling:
    """Features of images as the model's own encoder returns them: in one tensor, or in a list."""
    return BaseModelOutputWithPooling(pooler_output=torch.stack(list(rows)) if memo.stacked else list(rows))  # type: ignore[arg-type]
