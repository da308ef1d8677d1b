"""Readings of attention that nobody waits for, taken for several steps at once.

A step feeds one query, and to read its attention alone is a small product per layer with many small operations around
it. The keys of earlier steps are still there, so queries are kept until enough stand together, and one product of all
of them with the newest keys says the same for less.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .attention import AttentionCall, Given, Sequences, call_of
from .declarations import Reading

if TYPE_CHECKING:
    from .hooks import Placed

STEPS = 32  # read together; a query is as long as a state, so that what waits is kilobytes per layer and row


def together(call: AttentionCall, queries: Tensor, where: Sequences) -> AttentionCall:
    """The newest pass with the queries of the last steps, each of which sees the keys that there were at its step.

    call: of the newest. queries: (row, head, step, head_dim), one per step, the newest last. where: `joined`.
    """
    keys, newest = call.key.shape[2], call.visible(slice(-1, None))

    def mask() -> tuple[Tensor | None, Tensor]:
        ends = torch.arange(where.seen - where.chosen, where.seen, device=queries.device)
        reached = (torch.arange(keys, device=queries.device) <= ends[:, None])[None, None]  # 1 1 step key
        before = queries.new_zeros(())
        if newest is not None and newest.dtype == torch.bool:
            reached = reached & newest
        elif newest is not None:
            before = newest
        lowest = torch.finfo(queries.dtype).min
        return call.mask, torch.where(reached, before, lowest).mT.contiguous().mT  # added, and as `maps` wants it

    _, added = where.once(("together", id(call.mask), keys, queries.device), mask)  # the mask is kept for its id's sake
    return replace(call, query=queries, mask=added, sequences=where)


def joined(where: Sequences, steps: int, real: Tensor | None) -> Sequences:
    """The newest pass as one in which the last rows each chose a token. real: (sample, token), which tokens count."""
    if real is not None:
        real = real[:, real.shape[1] - steps :].repeat(len(where.image) // len(real), 1)
    return replace(where, chosen=steps, real=real)


class Waiting:
    """A layer whose queries wait: what it was given in the newest pass, and who wants to see its attention."""

    def __init__(self, layer: int, readings: Sequence[Placed]) -> None:
        self.layer, self.readings = layer, readings
        self.newest: Given | None = None

    def wait(self, given: Given) -> None:
        """Keep the query that chooses this step's token. given: what `call_of` makes the call of.

        Every layer of every step comes by here, between products that leave nothing of it in the processor's caches,
        so that it does next to nothing; what costs is done for all layers at once, before the next pass.
        """
        if given[2].shape[2] > 1:  # of a prompt, whose other queries may go
            given = (*given[:2], given[2][:, :, -1:].clone(), *given[3:])
        self.newest = given


class Room:
    """Queries of layers that are alike, step after step: (step, layer · row, head, 1, head_dim).

    It is filled from the front with copies, a step's by one call: no tensor of a step outlives it.
    """

    def __init__(self, layers: Sequence[Waiting]) -> None:
        queries = [_query(waiting) for waiting in layers]
        self.layers, self.count, self.rows = layers, 0, len(queries[0])
        self.room = queries[0].new_empty((STEPS, len(layers) * self.rows, *queries[0].shape[1:]))
        self.slots = self.room.unbind()

    def add(self) -> None:
        """Copy the newest queries to the others."""
        torch.cat([_query(waiting) for waiting in self.layers], out=self.slots[self.count])
        self.count += 1

    def take(self) -> Iterator[tuple[Waiting, Tensor]]:
        """Each layer with its queries, (row, head, step, head_dim), which then wait no more."""
        filled, self.count = self.room[: self.count, :, :, 0], 0
        for waiting, queries in zip(self.layers, filled.split(self.rows, 1), strict=True):
            yield waiting, queries.permute(1, 2, 0, 3)


def _query(waiting: Waiting) -> Tensor:
    assert waiting.newest is not None
    return waiting.newest[2]


class Postponed:
    """What waits, layer by layer, in one run."""

    def __init__(self) -> None:
        self.layers: dict[int, Waiting] = {}
        self.here: list[Waiting] = []  # the layers that `rooms` are for
        self.rooms: list[Room] = []

    def of(self, layer: int, readings: Sequence[Placed]) -> Waiting:
        """Where a layer's queries wait for these readings."""
        waiting = self.layers.setdefault(layer, Waiting(layer, readings))
        waiting.readings = readings
        return waiting

    def settle(self) -> None:
        """Copy the newest queries to the others, those of layers that are alike at once.

        Raises:
            RuntimeError: a layer whose attention waited to be read has lost keys.
        """
        here = [waiting for waiting in self.layers.values() if waiting.newest is not None]
        if here and not self.rooms:
            alike: dict[Hashable, list[Waiting]] = {}
            for waiting in here:
                query = _query(waiting)
                alike.setdefault((query.shape, query.dtype, query.device), []).append(waiting)
            self.here, self.rooms = here, [Room(layers) for layers in alike.values()]
        if here == self.here:
            for room in self.rooms:
                room.add()
        elif here or any(room.count for room in self.rooms):
            raise RuntimeError(
                "a layer's cache let keys go in the middle of a run, before the attention to them was read; use a "
                "cache that keeps them, such as transformers' DynamicCache."
            )

    def release(self) -> None:
        """Copy the newest queries to the others and let go of the pass's keys, before the next makes its own."""
        if self.layers:
            self.settle()
            for waiting in self.layers.values():
                waiting.newest = None

    def read(self, real: Tensor | None) -> Iterator[tuple[str, int, Tensor]]:
        """Every reading of every layer since the last time: name, layer, (row, step, ...), or (row, 1, ...) of a total.

        real: (sample, token) bool, which of the tokens so far come no later than an end; only totals ask.

        Raises:
            ValueError: a reading that does not give one entry per step.
        """
        where: Sequences | None = None  # one for all layers: what the first works out is there for the next
        self.settle()
        for room in self.rooms:
            steps = room.count
            for waiting, queries in room.take():
                if waiting.newest is None:
                    continue
                newest, waiting.newest = call_of(*waiting.newest), None
                where = joined(newest.sequences, steps, real) if where is None else where
                call = together(newest, queries, where)
                for placed in waiting.readings:
                    yield _read(placed, call, steps)


def _read(placed: Placed, call: AttentionCall, steps: int) -> tuple[str, int, Tensor]:
    """What a reading keeps of a call in which several steps are read together; returns and raises as `read`."""
    reading, rows = placed.declaration, placed.rows.to(call.query.device)
    assert isinstance(reading, Reading)
    value = reading.keep(call if len(rows) == len(call.query) else call.rows(rows))
    if value.dim() < 2 or value.shape[1] != (1 if reading.total else steps):
        raise ValueError(
            f"reading {reading.name!r} gave {tuple(value.shape)} for {steps} tokens: `keep` must give "
            "(row, token, ...), a token for each row in call.producing"
            + (", or of a total (row, 1, ...)" if reading.total else "")
        )
    return reading.name, call.layer, value
