"""Rows whose prompts begin alike, with one image: the beginning is computed once, and each row goes on from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..inputs.rows import pad_left
from ..model.layout import Layout
from .images import PIXELS, distinct, features, outputs_of
from .memo import Layers, Memo, cache_argument, cache_of, kept


@dataclass(frozen=True)
class Beginnings:
    """Row blocks whose rows share beginnings.

    blocks: their inputs. starts: the distinct beginnings, each up to its last image token, as token ids. pixels: for
    each, (block, row) of its image. of: which beginning a row has, block after block. rests: what follows it in each
    row, without the last token.
    """

    blocks: Sequence[Mapping[str, Tensor]]
    starts: Sequence[Tensor]
    pixels: Sequence[tuple[int, int]]
    of: Sequence[int]
    rests: Sequence[Tensor]


def find(lvlm: Layout, blocks: Sequence[Mapping[str, Tensor]]) -> Beginnings | None:
    """Beginnings that rows of these blocks share; None where there are none, or where a row has no image."""
    known: dict[tuple[int, int, tuple[int, ...]], int] = {}
    starts: list[Tensor] = []
    rests: list[Tensor] = []
    pixels: list[tuple[int, int]] = []
    of: list[int] = []
    images: dict[int, tuple[int, list[int]]] = {}
    for k, block in enumerate(blocks):
        ids, mask = block["input_ids"], block["attention_mask"].bool()
        if id(block[PIXELS]) not in images:
            images[id(block[PIXELS])] = k, distinct(block[PIXELS])
        own, first = images[id(block[PIXELS])]
        for row in range(len(ids)):
            real = ids[row][mask[row]]
            at = lvlm.image_mask(real).nonzero()
            if not len(at):
                return None
            end = int(at[-1]) + 1
            if end >= len(real):
                return None
            key = own, first[row], tuple(real[:end].tolist())
            if key not in known:
                known[key] = len(starts)
                starts.append(real[:end])
                pixels.append((k, row))
            of.append(known[key])
            rests.append(real[end:-1])
    return Beginnings(blocks, starts, pixels, of, rests) if len(starts) < len(of) else None


def layers(lvlm: Layout, shared: Beginnings, memo: Memo) -> list[Layers] | None:
    """Keys and values of every block's prompts, as a pass over the block leaves them but for the last position (zero).

    None where the encoder's output cannot be taken apart by image.
    """
    starts = _starts(lvlm, shared, memo)
    if starts is None:
        return None
    begun, mask = starts
    of, length = torch.tensor(shared.of, device=mask.device), mask.shape[1]
    rows = [(keys[of.to(keys.device)], values[of.to(values.device)]) for keys, values in begun]
    longest = max(len(rest) for rest in shared.rests)
    if longest:
        continued = _continued(lvlm, shared, rows, mask[of], longest)
        if continued is None:
            return None
        rows = continued
    out, first = [], 0
    for block in shared.blocks:
        count, width = block["input_ids"].shape
        mine = range(first, first + count)
        real = torch.tensor([len(shared.starts[shared.of[r]]) + len(shared.rests[r]) for r in mine])
        front = torch.tensor([length - len(shared.starts[shared.of[r]]) for r in mine])
        token = torch.arange(width)[None] - (width - 1 - real)[:, None]  # of each column; negative is padding
        source, known = (front[:, None] + token).clamp(min=0), (token >= 0) & (token < real[:, None])
        out.append([(_moved(k[mine], source, known), _moved(v[mine], source, known)) for k, v in rows])
        first += count
    return out


def _starts(lvlm: Layout, shared: Beginnings, memo: Memo) -> tuple[Layers, Tensor] | None:
    """Keys and values of the distinct beginnings, padded on the left, and their mask."""
    images = []
    for start, (block, row) in zip(shared.starts, shared.pixels, strict=True):
        found = features(lvlm, shared.blocks[block][PIXELS], memo)
        if found is None or len(found[0][found[1][row]]) != int(lvlm.image_mask(start).sum()):
            return None
        images.append(found[0][found[1][row]])
    ids = pad_left(shared.starts, lvlm.pad_token)
    mask = pad_left([torch.ones_like(start) for start in shared.starts], 0)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    begun = kept(lvlm.model(
        input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True, logits_to_keep=1,
        mm_encoder_outputs={"image": outputs_of(images, memo)},
    ))  # fmt: skip
    return None if begun is None else (begun, mask)


def _continued(lvlm: Layout, shared: Beginnings, rows: Layers, mask: Tensor, longest: int) -> Layers | None:
    """The rows' keys and values behind those of what follows their beginnings, padded on the right."""
    cache = cache_of(rows)
    fill = lambda rest, value: torch.cat([rest, rest.new_full((longest - len(rest),), value)])
    ids = torch.stack([fill(rest, lvlm.pad_token) for rest in shared.rests])
    real = torch.stack([fill(torch.ones_like(rest), 0) for rest in shared.rests])
    positions = mask.sum(1, keepdim=True) + torch.arange(longest, device=mask.device)
    return kept(lvlm.model(
        input_ids=ids, attention_mask=torch.cat([mask, real], 1), position_ids=positions, use_cache=True,
        logits_to_keep=1, **cache_argument(lvlm, cache),
    ))  # fmt: skip


def _moved(states: Tensor, source: Tensor, known: Tensor) -> Tensor:
    """States (row, head, position, size) at other positions; zero where there are none."""
    at = source.clamp(max=states.shape[2] - 1).to(states.device)[:, None, :, None]
    moved = states.gather(2, at.expand(-1, states.shape[1], -1, states.shape[3]))
    return moved.masked_fill(~known.to(states.device)[:, None, :, None], 0.0)
