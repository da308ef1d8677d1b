"""Deferred attention readings, evaluated in blocks of steps.

A step feeds one query, whose attention alone is a small product per layer with many small operations around it. The
keys of earlier steps are still there, so that queries are kept for a block of steps, and one product of all of them
with the newest keys gives the same attention in less time.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from .call import AttentionCall, Sequences
from .declarations import Reading
from .plan import DeferredLayer, Placed, Plan, call_of

STEPS = 32  # in a block; a query is as long as a state, so that a block holds kilobytes per layer and row


def together(
    call: AttentionCall, queries: Float[Tensor, "row head step head_dim"], where: Sequences
) -> AttentionCall:
    """The newest pass with the queries of the last steps, each of which attends to the keys of its step.

    call: of the newest. queries: one per step, the newest last. where: `joined`.
    """
    keys, newest = call.key.shape[2], call.visible(slice(-1, None))

    def mask() -> tuple[Tensor | None, Tensor]:
        ends = torch.arange(where.seen - where.chosen, where.seen, device=queries.device)
        reached = (torch.arange(keys, device=queries.device)[:, None] <= ends)[None, None]  # 1 1 key step
        before = queries.new_zeros(())
        if newest is not None and newest.dtype == torch.bool:
            reached = reached & newest.mT
        elif newest is not None:
            before = newest.mT
        lowest = torch.finfo(queries.dtype).min
        return call.mask, torch.where(reached, before, lowest).contiguous().mT  # added, and as `maps` wants it

    _, added = where.once(("together", id(call.mask), keys, queries.device), mask)  # the mask is kept for its id's sake
    return replace(call, query=queries, mask=added, sequences=where)


def joined(plan: Plan, steps: int, real: Bool[Tensor, "sample token"] | None) -> Sequences:
    """The newest pass as one in which the last queries each chose a token. real: which tokens count."""
    where = plan.sequences
    if real is not None:
        real = real[:, real.shape[1] - steps :].repeat(plan.rows // len(real), 1)
        real = real if plan.live is None else real[plan.live.to(real.device)]
    return replace(where, chosen=steps, real=real)


class QueryBlock:
    """Queries of layers that are alike, step after step: (step, layer · row, head, 1, head_dim).

    It is filled from the front with copies, a step's by one call: no tensor of a step outlives it.
    """

    def __init__(self, layers: Sequence[DeferredLayer]) -> None:
        queries = [_query(layer) for layer in layers]
        self.layers, self.count, self.rows = layers, 0, len(queries[0])
        self.room = queries[0].new_empty((STEPS, len(layers) * self.rows, *queries[0].shape[1:]))
        self.slots = self.room.unbind()

    def add(self) -> None:
        """Copy the newest queries to the others."""
        torch.cat([_query(layer) for layer in self.layers], out=self.slots[self.count])
        self.count += 1

    def take(self) -> Iterator[tuple[DeferredLayer, Tensor]]:
        """Each layer with its queries, (row, head, step, head_dim); the block is empty afterwards."""
        filled, self.count = self.room[: self.count, :, :, 0], 0
        for layer, queries in zip(self.layers, filled.split(self.rows, 1), strict=True):
            yield layer, queries.permute(1, 2, 0, 3)


def _query(layer: DeferredLayer) -> Float[Tensor, "row head 1 head_dim"]:
    assert layer.newest is not None
    return layer.newest[2]


class DeferredReadings:
    """The deferred readings of one run, layer by layer."""

    def __init__(self) -> None:
        self.layers: dict[int, DeferredLayer] = {}
        self.here: list[DeferredLayer] = []  # the layers that `blocks` are for
        self.blocks: list[QueryBlock] = []

    def restart(self) -> None:
        """Forget every pass so far: the run starts over."""
        self.layers, self.here, self.blocks = {}, [], []

    def rows_leave(self) -> None:
        """The next passes have other rows; `read` has taken what was kept of the last ones."""
        self.here, self.blocks = [], []

    def of(self, index: int, readings: Sequence[Placed]) -> DeferredLayer:
        """The layer of that number with these readings of its attention."""
        layer = self.layers.setdefault(index, DeferredLayer(index, readings))
        layer.readings = readings
        return layer

    def settle(self) -> None:
        """Copy the newest queries to the others, those of layers that are alike at once.

        Raises:
            RuntimeError: a layer with deferred readings has lost keys.
        """
        here = [layer for layer in self.layers.values() if layer.newest is not None]
        if here and not self.blocks:
            alike: dict[Hashable, list[DeferredLayer]] = {}
            for layer in here:
                query = _query(layer)
                alike.setdefault((query.shape, query.dtype, query.device), []).append(layer)
            self.here, self.blocks = here, [QueryBlock(layers) for layers in alike.values()]
        if here == self.here:
            for block in self.blocks:
                block.add()
        elif here or any(block.count for block in self.blocks):
            raise RuntimeError(
                "a layer's cache let keys go in the middle of a run, before the attention to them was read; use a "
                "cache that keeps them, such as transformers' DynamicCache."
            )

    def release(self) -> None:
        """Copy the newest queries to the others and let go of the pass's keys, before the next makes its own."""
        if self.layers:
            self.settle()
            for layer in self.layers.values():
                layer.newest = None

    def read(self, real: Tensor | None) -> Iterator[tuple[str, int, Tensor]]:
        """Every reading of every layer since the last time: name, layer, (row, step, ...), or (row, 1, ...) of a total.

        real: (sample, token) bool, which of the tokens so far come no later than an end; used by totals alone.

        Raises:
            ValueError: a reading that does not give one entry per step.
        """
        where: Sequences | None = None  # one for all layers: what the first works out is there for the next
        self.settle()
        for block in self.blocks:
            steps = block.count
            for layer, queries in block.take():
                if layer.newest is None:
                    continue
                plan, newest, layer.newest = layer.newest[0].plan, call_of(*layer.newest), None
                where = joined(plan, steps, real) if where is None else where
                call = together(newest, queries, where)
                for placed in layer.readings:
                    yield _read(placed, call, steps, plan)


def _read(
    placed: Placed, call: AttentionCall, steps: int, plan: Plan
) -> tuple[str, int, Shaped[Tensor, "row token ..."]]:
    """What a reading keeps of a call in which several steps are read together; returns and raises as `read`.

    A row of the run that has left the pass gets zeros, which add nothing to a total.
    """
    reading, rows = placed.declaration, plan.here(placed).to(call.query.device)
    assert isinstance(reading, Reading)
    value = reading.keep(call if len(rows) == len(call.query) else call.rows(rows))
    if value.dim() < 2 or value.shape[1] != (1 if reading.total else steps):
        raise ValueError(
            f"reading {reading.name!r} gave {tuple(value.shape)} for {steps} tokens: `keep` must give "
            "(row, token, ...), a token for each row in call.producing"
            + (", or of a total (row, 1, ...)" if reading.total else "")
        )
    value, left = plan.every(value, placed), plan.left(placed)
    if left is not None:
        value = value.masked_fill(left.to(value.device).view(-1, *[1] * (value.dim() - 1)), 0)
    return reading.name, call.layer, value
