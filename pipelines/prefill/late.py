"""A branch that is read late: its prompt when its logits are first asked for, then what it has missed of the text.

A row that is asked for is read in one pass: prompt and text at the first time, the tokens since the last one later.
Rows that are not asked for are not read. The tokens that rows have missed are padded on the left to one length.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..inputs.rows import pad_left
from ..model import families
from ..model.layout import Layout
from .growing import ROOM, layers_of, resumed, states_of
from .images import PIXELS, TEXT, encoded
from .memo import Layers, Memo, cache_argument, kept
from .row_cost import CHEAP, further_row

BEFORE = 4  # steps without a reading that are counted for each row beside those seen: one early reading is not a habit


def can_wait(inputs: Mapping[str, Tensor]) -> bool:
    """Whether rows of these inputs can be read apart from each other: every row has text, and one image or none."""
    rows = len(inputs["input_ids"])
    whole = inputs.keys() <= {*TEXT, PIXELS} and (PIXELS not in inputs or len(inputs[PIXELS]) == rows)
    return whole or rows == 1


class LateBranch:
    """The rows of one branch, none of which is read yet.

    Args:
        inputs: of the branch. memo: of the run, for images that are encoded already. main: what the run's cache holds
            of the main prompts, which the branch may begin like; None where that is not the plain model's.

    read: (row,) positions whose keys and values are here, prompt included. newest: (row, vocab) logits behind them.
    soon: rows that are read at so large a share of the steps that a row in every pass costs less (`row_cost.py`), and
    may go along with the main rows from now on. along: rows that do (`alongside.py`). reading: whether a pass of its
    own is under way.
    """

    def __init__(self, lvlm: Layout, inputs: Mapping[str, Tensor], memo: Memo, main: MainPrompts | None = None) -> None:
        self.lvlm, self.inputs, self.memo, self.main = lvlm, inputs, memo, main
        ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
        self.prompts = [row[real] for row, real in zip(ids, mask, strict=True)]
        self.read = torch.zeros(len(ids), dtype=torch.long)
        self.soon, self.along = (torch.zeros(len(ids), dtype=torch.bool) for _ in range(2))
        self.since, self.passes = (torch.zeros(len(ids), dtype=torch.long) for _ in range(2))  # first read at; further
        self.reading = False
        self.stores: Layers = []
        self.newest: Float[Tensor, "row vocab"] | None = None
        self.paused: Callable[[], AbstractContextManager[None]] | None = None  # a run's hooks, during these passes

    def length(self, text: Int[Tensor, "row token"]) -> Int[Tensor, " row"]:
        """Positions of each row's prompt and text."""
        return torch.tensor([len(prompt) + text.shape[1] for prompt in self.prompts])

    def logits(
        self, text: Int[Tensor, "row token"], wanted: Bool[Tensor, " row"] | None
    ) -> Float[Tensor, "row vocab"]:
        """Logits of the next token. text: the main rows' so far. wanted: rows to read; the others' logits may be old.

        Rows that were never read have zeros.
        """
        assert self.paused is not None
        missed = self.length(text) - self.read
        due = (missed > 0) & (torch.ones(len(missed), dtype=torch.bool) if wanted is None else wanted.cpu())
        if self.main is not None and bool((due & (self.read == 0)).any()):
            self._begin_like_main(self.main, (due & (self.read == 0)).nonzero()[:, 0].tolist())
        fresh = due & (self.read == 0)
        self.reading = True
        with self.paused():
            for rows, reads in ((fresh, self._first), (due & ~fresh, self._further)):
                if bool(rows.any()):
                    index = rows.nonzero()[:, 0]
                    tokens = [torch.cat([self.prompts[i], text[i]])[self.read[i] :] for i in index.tolist()]
                    self._keep(index, reads(index, tokens))
            self._judge(fresh, due & ~fresh, text.shape[1])
        self.reading = False
        assert self.newest is not None
        return self.newest

    def _judge(self, fresh: Bool[Tensor, " row"], again: Bool[Tensor, " row"], step: int) -> None:
        """Which rows would cost less in every pass than in passes of their own."""
        self.since[fresh] = step
        self.passes += again
        share = self.passes / (step - self.since + BEFORE)
        if bool((again & (share >= CHEAP)).any()):
            self.soon |= again & (share >= further_row(self.lvlm, len(self.prompts)))

    def joining(self, held: int, fed: int) -> list[int]:
        """Rows that can go along from the pass at hand on. held: positions in the main cache; fed: of the text."""
        up_to_date = self.read == torch.tensor([len(prompt) + fed for prompt in self.prompts])
        return (self.soon & ~self.along & up_to_date & (self.read <= held)).nonzero()[:, 0].tolist()

    def keys_of(self, row: int, layer: int) -> tuple[Tensor, Tensor]:
        """A row's keys and values in a layer, (kv_head, position, head_dim)."""
        keys, values = self.stores[layer]
        return keys[row, :, : self.read[row]], values[row, :, : self.read[row]]

    def go_on(self, row: int, logits: Float[Tensor, "1 vocab"]) -> None:
        """A row has read one token more, along with the main rows."""
        self.read[row] += 1
        self._keep(torch.tensor([row]), logits.float().to(self.lvlm.device))

    def _keep(self, index: Int[Tensor, " some"], logits: Float[Tensor, "some vocab"]) -> None:
        if self.newest is None:
            self.newest = logits.new_zeros(len(self.prompts), logits.shape[1])
        self.newest = self.newest.index_copy(0, index.to(logits.device), logits)

    def _first(self, index: Int[Tensor, " some"], tokens: list[Tensor]) -> Float[Tensor, "some vocab"]:
        """Read prompts and texts from the beginning."""
        block = dict(self.inputs)
        if len(index) < len(self.prompts) and PIXELS in block:
            block[PIXELS] = block[PIXELS][index.to(block[PIXELS].device)]
        block["input_ids"] = pad_left(tokens, self.lvlm.pad_token)
        block["attention_mask"] = pad_left([torch.ones_like(row) for row in tokens], 0)
        images = encoded(self.lvlm, [block], self.memo)
        inputs = block if images is None else {name: block[name] for name in TEXT} | images
        where = families.direct_positions(self.lvlm.model, block)
        output = self.lvlm.model(**inputs, **where, use_cache=True, logits_to_keep=1)
        layers = kept(output)
        assert layers is not None  # of a model whose prompts can be computed apart
        self._write(index, block["attention_mask"], layers, 0)
        return output.logits[:, -1].float().to(self.lvlm.device)

    def _further(self, index: Int[Tensor, " some"], tokens: list[Tensor]) -> Float[Tensor, "some vocab"]:
        """Read on from what was read."""
        before = self.read[index].to(tokens[0].device)
        held = int(before.max())
        ids = pad_left(tokens, self.lvlm.pad_token)
        new = pad_left([torch.ones_like(row) for row in tokens], 0)
        known = (torch.arange(held, device=ids.device) < before[:, None]).to(new.dtype)
        every = len(index) == len(self.prompts)
        stores = self.stores if every else [_rows(self.stores, index, layer, held) for layer in range(len(self.stores))]
        cache = resumed(stores, held)
        output = self.lvlm.model(
            input_ids=ids, attention_mask=torch.cat([known, new], 1), use_cache=True, logits_to_keep=1,
            position_ids=(before[:, None] + new.cumsum(1) - 1).clamp(min=0), **cache_argument(self.lvlm, cache),
        )  # fmt: skip
        layers = layers_of(cache)
        if every and bool((before == held).all()) and bool(new.all()):
            self.stores = [layer.stores for layer in layers if layer.stores is not None]
            self.read[index] += ids.shape[1]
        else:
            self._write(index, new, [states_of(layer) for layer in layers], held)
        return output.logits[:, -1].float().to(self.lvlm.device)

    def _write(self, index: Int[Tensor, " some"], new: Int[Tensor, "some token"], layers: Layers, first: int) -> None:
        """Put keys and values of real tokens behind what there is of their rows. first: the place of their first."""
        row, token = new.nonzero(as_tuple=True)
        place = (self.read.to(new.device)[index.to(new.device)][:, None] + new.cumsum(1) - 1)[row, token]
        longest = int(place.max()) + 1
        if not self.stores:
            empty = lambda one: one.new_zeros(len(self.prompts), one.shape[1], 0, one.shape[3])
            self.stores = [(empty(keys), empty(values)) for keys, values in layers]
        to = index.to(new.device)[row]
        for number, (mine, sides) in enumerate(zip(self.stores, layers, strict=True)):
            pair = [_with_room(store, longest) for store in mine]
            for store, side in zip(pair, sides, strict=True):
                at = [one.to(store.device) for one in (to, place, row, first + token)]
                store[at[0], :, at[1]] = side[at[2], :, at[3]]
            self.stores[number] = pair[0], pair[1]
        self.read[index] += new.sum(1).to(self.read.device)

    def _begin_like_main(self, main: MainPrompts, rows: list[int]) -> None:
        """Take over what the main rows have read, up to where the prompts part, if that is behind the image."""
        for row in rows:
            ours, theirs = self.prompts[row], main.prompts[row]
            shorter = min(len(ours) - 1, len(theirs))
            same = int((ours[:shorter] == theirs[:shorter]).long().cumprod(0).sum())
            image = self.lvlm.image_mask(ours).nonzero()
            if len(image) and int(image[-1]) < same:
                layers = main.beginning(row, same)
                self._write(torch.tensor([row]), torch.ones(1, same, dtype=torch.long), layers, 0)


class MainPrompts:
    """What a run's cache holds of the main prompts. cache: of growing layers; padding: in front of each prompt."""

    def __init__(self, inputs: Mapping[str, Tensor], cache: Any) -> None:
        mask = inputs["attention_mask"].bool()
        self.prompts = [row[real] for row, real in zip(inputs["input_ids"], mask, strict=True)]
        self.padding, self.cache = (~mask).sum(1).tolist(), cache
        self.place: Callable[[int], int] = lambda row: row  # in the cache, which rows may have left

    def beginning(self, row: int, length: int) -> Layers:
        """Keys and values of a prompt's first tokens."""
        at, place = slice(self.padding[row], self.padding[row] + length), self.place(row)
        states = [states_of(layer) for layer in layers_of(self.cache)]
        return [(keys[place : place + 1, :, at], values[place : place + 1, :, at]) for keys, values in states]


def _rows(stores: Layers, index: Tensor, layer: int, held: int) -> tuple[Tensor, Tensor]:
    keys, values = (side[index.to(side.device), :, :held] for side in stores[layer])
    return keys, values


def _with_room(store: Tensor, length: int) -> Tensor:
    """The same with so many positions at least."""
    if store.shape[2] >= length:
        return store
    out = store.new_zeros(*store.shape[:2], length + ROOM, store.shape[3])
    out[:, :, : store.shape[2]] = store
    return out
