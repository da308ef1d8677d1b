"""Readings of attention that nobody waits for, taken for several steps at once.

A step feeds one query, and to read its attention alone is a small product per layer with many small operations around
it. The keys of earlier steps are still there, so queries are kept until enough stand together, and one product of all
of them with the newest keys says the same for less.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from .applied import Inside
from .attention import AttentionCall, Given, Sequences, call_of
from .declarations import Reading

STEPS = 16  # read together; a query is as long as a state, so that what waits is kilobytes per layer and row


def together(call: AttentionCall, queries: Tensor, where: Sequences) -> AttentionCall:
    """The newest pass with the queries of the last steps, each of which sees the keys that there were at its step.

    call: of the newest. queries: (row, head, step, head_dim), one per step, the newest last. where: `joined`.
    """
    keys, newest = call.key.shape[2], call.visible(slice(-1, None))

    def mask() -> Tensor:
        ends = torch.arange(where.seen - where.chosen, where.seen, device=queries.device)
        reached = (torch.arange(keys, device=queries.device) <= ends[:, None])[None, None]  # 1 1 step key
        before = queries.new_zeros(())
        if newest is not None and newest.dtype == torch.bool:
            reached = reached & newest
        elif newest is not None:
            before = newest
        return torch.where(reached, before, torch.finfo(queries.dtype).min)  # added: less work than filling each head

    added = where.once(("together", id(call.mask), keys, queries.device), mask)
    return replace(call, query=queries, mask=added, sequences=where)


def joined(where: Sequences, steps: int) -> Sequences:
    """The newest pass as one in which the last `steps` rows each chose a token."""
    return replace(where, chosen=steps)


class _Waiting:
    """One layer's queries, what the newest was given, and who wants to see it.

    room: (step, row, head, head_dim), filled from the front with copies: no tensor of a step outlives it.
    """

    def __init__(self, inside: Inside, query: Tensor) -> None:
        self.readings, self.count = inside.waiting, 0
        self.newest: Given | None = None
        self.room = query.new_empty((STEPS, *query[:, :, -1:].shape))
        self.slots = self.room.unbind()

    def queries(self) -> Tensor:
        """(row, head, step, head_dim)."""
        return self.room[: self.count, :, :, 0].permute(1, 2, 0, 3)


class Postponed:
    """What waits, layer by layer, in one run."""

    def __init__(self) -> None:
        self.layers: dict[int, _Waiting] = {}

    def wait(self, given: Given) -> None:
        """Keep the query that chooses this step's token. given: what `call_of` makes the call of."""
        inside, module, query, key, value, mask, scaling, more = given
        waiting = self.layers.get(inside.layer)
        if waiting is None:
            waiting = self.layers[inside.layer] = _Waiting(inside, query)
        slot = waiting.slots[waiting.count]
        slot.copy_(query if query.shape[2] == 1 else query[:, :, -1:])
        waiting.newest = (inside, module, slot, key, value, mask, scaling, more)  # not a whole prompt's queries
        waiting.count += 1

    def release(self) -> None:
        """Let go of the last pass's keys before the next makes its own."""
        for waiting in self.layers.values():
            waiting.newest = None

    def read(self) -> Iterator[tuple[str, int, Tensor]]:
        """Every reading of every layer since the last time: name, layer, (row, step, ...).

        Raises:
            ValueError: a reading that does not give one entry per step.
        """
        where: Sequences | None = None  # one for all layers: what the first works out is there for the next
        for layer, waiting in self.layers.items():
            steps = waiting.count
            if waiting.newest is None or not steps:
                continue
            newest = call_of(*waiting.newest)
            where = joined(newest.sequences, steps) if where is None else where
            call = together(newest, waiting.queries(), where)
            for placed in waiting.readings:
                reading, rows = placed.declaration, placed.rows.to(call.query.device)
                assert isinstance(reading, Reading)
                value = reading.keep(call if len(rows) == len(call.query) else call.rows(rows))
                if value.dim() < 2 or value.shape[1] != steps:
                    raise ValueError(
                        f"reading {reading.name!r} gave {tuple(value.shape)} for {steps} tokens: `keep` must give "
                        "(row, token, ...), a token for each row in call.producing"
                    )
                yield reading.name, layer, value
            waiting.count = 0
