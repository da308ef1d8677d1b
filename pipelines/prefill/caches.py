"""The prompts' keys and values of a run, computed block by block, each over its own length, and only once.

transformers' loop would run every row block over the longest prompt, and the main prompt again after a pass that only
reads it. Where another way is cheaper, the blocks' keys and values are computed here, joined, and handed to the loop as
its cache; the loop's first pass then has the last position alone. Rows whose prompts begin with the same image and text
share that beginning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import Cache

from ..engine.declarations import AttentionEdit, HeadEdit, Reading, Step
from ..engine.hooks import Placed, applied
from ..engine.rows import Arrangement, sequences
from ..model import families
from ..model.layout import Layout
from . import beginnings
from .growing import growing
from .images import PIXELS, TEXT, encodable, encoded
from .memo import Layers, Memo, kept

EVERY, AFTER_IMAGE = "every", "after_image"  # what a block's edits leave as the plain model has it: nothing but …


@dataclass(frozen=True)
class Block:
    """One row block: its inputs, the edits of its rows, and from where on these change the prompt's positions.

    changes: "" only rows that produce tokens, or none; "after_image" only positions behind the last image token;
    "every" any position.
    """

    name: str
    inputs: Mapping[str, Tensor]
    placed: Sequence[Placed]
    changes: str

    @property
    def width(self) -> int:
        return self.inputs["input_ids"].shape[1]


@dataclass(frozen=True)
class Prompts:
    """What the loop gets: its cache, and how many positions at the end of the prompt are left to it."""

    cache: Any
    left: int
    changed: Mapping[int, Tensor]  # method -> main rows in which it changed anything while the cache was computed


def prompts(lvlm: Layout, arranged: Arrangement, memo: Memo) -> Prompts | None:
    """The cache of all row blocks' prompts, if computing it here is less work than leaving it to the loop."""
    blocks = _blocks(arranged)
    width = arranged.inputs["input_ids"].shape[1]
    known = {k: layers for k, block in enumerate(blocks) if (layers := _known(arranged, block, memo)) is not None}
    texts = [k for k, block in enumerate(blocks) if block.changes == AFTER_IMAGE]
    left = 1
    if texts:
        behind = {int(n) for k in texts for n in _behind(lvlm, blocks[k])}
        if len(behind) != 1 or any(k not in known for k in texts):
            return None
        left = max(1, behind.pop())
    free = [k for k, block in enumerate(blocks) if not block.changes and k not in known and PIXELS in block.inputs]
    shared = beginnings.find(lvlm, [blocks[k].inputs for k in free]) if encodable(lvlm, arranged.blocks) else None
    if not known and shared is None and not _much_shorter(blocks, width):
        return None
    changed: dict[int, Tensor] = {}
    found: dict[int, Layers] = dict(known)
    if shared is not None:
        joint = beginnings.layers(lvlm, shared, memo)
        if joint is None:
            return None
        found |= dict(zip(free, joint, strict=True))
    for k, block in enumerate(blocks):
        if k not in found:
            layers = _own_pass(lvlm, block, memo, changed if k == 0 else {})
            if layers is None:
                return None
            found[k] = layers
    return Prompts(_joined([found[k] for k in range(len(blocks))], width - left, left), left, changed)


def _blocks(arranged: Arrangement) -> list[Block]:
    blocks = []
    for k, name in enumerate(arranged.names):
        first, behind = arranged.batch * k, arranged.batch * (k + 1)
        placed = [
            Placed(p.declaration, rows - first, p.method)
            for p in arranged.placed
            if not isinstance(p.declaration, Reading)
            and len(getattr(p.declaration, "layers", ()))
            and len(rows := p.rows[(p.rows >= first) & (p.rows < behind)])
        ]
        blocks.append(Block(name, arranged.blocks[k], placed, _changes(placed)))
    return blocks


def _changes(placed: Sequence[Placed]) -> str:
    kinds = set()
    for one in placed:
        edit = one.declaration
        last = isinstance(edit, AttentionEdit) and edit.queries == "last"
        declared = edit.changes if isinstance(edit, AttentionEdit | HeadEdit) else "every"
        kinds.add("producing" if last else declared)
    return EVERY if EVERY in kinds else AFTER_IMAGE if AFTER_IMAGE in kinds else ""


def _known(arranged: Arrangement, block: Block, memo: Memo) -> Layers | None:
    """What an earlier pass left of the main prompt, where it carried out just what this run would."""
    read = memo.prompt
    if read is None or block.name != "main" or read.ids is not block.inputs["input_ids"]:
        return None
    touching = {p.method for p in block.placed if _changes([p]) == EVERY}
    behind = any(_changes([p]) == AFTER_IMAGE for p in block.placed)
    fits = touching == read.methods and not (touching and behind)
    return read.layers if fits else None


def _behind(lvlm: Layout, block: Block) -> list[int]:
    """Positions behind the last image token, row by row; all of them where there is no image."""
    image = lvlm.image_mask(block.inputs["input_ids"])
    return (image.flip(1).cumsum(1) == 0).sum(1).tolist()


def _much_shorter(blocks: Sequence[Block], width: int) -> bool:
    """Whether stacked rows would be padding for a tenth or more."""
    return sum(width - block.width for block in blocks) > 0.1 * width * len(blocks)


def _own_pass(lvlm: Layout, block: Block, memo: Memo, changed: dict[int, Tensor]) -> Layers | None:
    """Keys and values of a block's prompts, in one pass over their own length with their edits in place."""
    ids = block.inputs["input_ids"]
    if not block.changes:
        return forward(lvlm, [block.inputs], dict(block.inputs), memo)
    alone = Arrangement(["main"], dict(block.inputs), block.placed, [], len(ids), blocks=[block.inputs])
    with applied(lvlm, block.placed, sequences(lvlm, alone), Step(ids=ids)) as plan:
        layers = forward(lvlm, [block.inputs], dict(block.inputs), memo)
        plan.check()
    changed |= plan.changed
    return layers


def forward(
    lvlm: Layout, blocks: Sequence[Mapping[str, Tensor]], stacked: dict[str, Any], memo: Memo | None
) -> Layers | None:
    """Keys and values of a pass over whole prompts."""
    images = encoded(lvlm, blocks, memo)
    inputs = stacked if images is None else {name: stacked[name] for name in TEXT} | images
    where = families.direct_positions(lvlm.model, stacked)
    return kept(lvlm.model(**inputs, **where, use_cache=True, logits_to_keep=1))


def _joined(blocks: Sequence[Layers], length: int, left: int) -> Cache:
    """One cache for all rows: each block's keys and values without the last `left` positions, padded in front."""
    cache = growing()
    for layer in range(len(blocks[0])):
        sides = []
        for side in range(2):
            parts = [block[layer][side] for block in blocks]
            parts = [part[:, :, max(0, part.shape[2] - left - length) : max(0, part.shape[2] - left)] for part in parts]
            sides.append(torch.cat([pad(part, (0, 0, length - part.shape[2], 0)) for part in parts]))
        cache.update(sides[0], sides[1], layer)
    return cache
