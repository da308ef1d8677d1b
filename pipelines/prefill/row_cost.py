"""What a further row costs in a pass that is computed anyway, as the share of a pass of its own."""

from __future__ import annotations

import time
from weakref import WeakKeyDictionary

import torch
from torch import nn

from ..model.layout import Layout

CHEAP, DEAR = 1 / 12, 1 / 2
BETWEEN = 1 / 3  # of one row's time: above it a second row is dear
PASSES = 5  # of one row and of two, in turns; the fastest of each counts
_found: WeakKeyDictionary[nn.Module, float] = WeakKeyDictionary()


def further_row(lvlm: Layout, rows: int) -> float:
    """The cost of one row more beside so many, for one token: CHEAP, or DEAR.

    The weights are read once for all rows, so that a further one is cheap on an accelerator and in a batch. Beside a
    single row on a processor it may be dear: some libraries multiply one row by another, faster way than two. That is
    measured, once per model, by passes of one token; two values alone, so that every run on a machine decides alike.
    """
    if rows > 1 or lvlm.device.type != "cpu":
        return CHEAP
    if lvlm.model not in _found:
        _found[lvlm.model] = DEAR if _second_row(lvlm) > BETWEEN else CHEAP
    return _found[lvlm.model]


@torch.no_grad()
def _second_row(lvlm: Layout) -> float:
    """The time that a second row adds, in times of one row."""
    best = {1: float("inf"), 2: float("inf")}
    for turn in range(2 * (PASSES + 1)):
        rows = 1 + turn % 2
        ids = torch.full((rows, 1), lvlm.pad_token, device=lvlm.device)
        began = time.perf_counter()
        lvlm.model(input_ids=ids, use_cache=False)
        if turn > 1:  # the first of each sets things up
            best[rows] = min(best[rows], time.perf_counter() - began)
    return best[2] / best[1] - 1
