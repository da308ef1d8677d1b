"""Rows whose text has ended leave the passes of a run, with all their branches; the loop around them sees every row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from transformers import Cache

from ..prefill.alongside import Company
from .choice import MainCriteria
from .plan import Plan

LAYERS = ("DynamicLayer", "DynamicSlidingWindowLayer", "GrowingLayer")  # of a cache whose rows can be chosen among
ELSEWHERE = 8  # steps between two looks at an accelerator, which would wait for it each time


@contextmanager
def leaving(
    model: nn.Module, plan: Plan, stops: MainCriteria, settled: Callable[[], None] = lambda: None,
    company: Company | None = None,
) -> Iterator[None]:  # fmt: skip
    """Within this block a pass of the decoding loop computes the rows of unfinished texts alone.

    The keys and values of the others are dropped, and their logits are those of a row that goes on: nothing is chosen
    from them, for the loop writes padding behind an end. Passes without the loop's own cache are left as they are.

    Args:
        model: whose generate is the loop. plan: what acts in its passes. stops: knows which texts have ended.
        settled: called before rows leave: what is kept of earlier passes of all rows is worked out there.
        company: rows of late branches in the same passes, behind the loop's own; a row leaves with its text.
    """
    leave = _Leaving(plan, stops, settled, company)
    hooks = [  # before the company comes, and when it has gone
        model.register_forward_pre_hook(leave.before, prepend=True, with_kwargs=True),
        model.register_forward_hook(leave.behind, with_kwargs=True),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Leaving:
    def __init__(
        self, plan: Plan, stops: MainCriteria, settled: Callable[[], None], company: Company | None
    ) -> None:
        self.plan, self.stops, self.settled, self.company = plan, stops, settled, company
        self.cache: Any = None
        self.looks = 0

    def before(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]] | None:
        if torch.compiler.is_compiling():  # a pass that is compiled as a whole keeps the rows that it has
            return None
        ids, cache = kwargs.get("input_ids"), _cache(kwargs)
        if self.cache is None:
            self.cache = cache if self.stops.done is None else None
        if ids is None or cache is None or cache is not self.cache or self.stops.done is None:
            return None
        rows = self.plan.rows
        if len(ids) != rows:
            return None
        self.looks += 1
        if ids.device.type == "cpu" or self.looks % ELSEWHERE == 0:
            self._drop(cache)
        live = self.plan.live
        if live is None:
            return None
        return args, {name: _chosen(name, value, live, rows) for name, value in kwargs.items()}

    def _drop(self, cache: Any) -> None:
        """Take the rows that have ended since the last look out of the cache and the plan, if any row goes on."""
        assert self.stops.done is not None
        going: Bool[Tensor, " sample"] = ~self.stops.done
        there = self.plan.rows if self.plan.live is None else len(self.plan.live)
        count = int(going.sum()) * self.stops.blocks
        if not 0 < count < there or any(type(layer).__name__ not in LAYERS for layer in cache.layers):
            return
        self.settled()
        kept = self.plan.leave(going.repeat(self.stops.blocks))
        if self.company is not None:
            others = self.company.leave(going, self.plan.stand_in)
            kept = torch.cat([kept, there + others.to(kept.device)])
        for layer in cache.layers:
            if layer.get_seq_length():
                layer.batch_select_indices(kept.to(layer.keys.device))

    def behind(self, module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> Any:
        if torch.compiler.is_compiling():
            return output
        live = self.plan.live
        if live is None or _cache(kwargs) is not self.cache or len(output.logits) != len(live):
            return output
        output.logits = output.logits[self.plan.stand_in.to(output.logits.device)]
        return output


def _cache(kwargs: Mapping[str, Any]) -> Any:
    return next((value for value in kwargs.values() if isinstance(value, Cache)), None)


def _chosen(name: str, value: Any, live: Tensor, rows: int) -> Any:
    """Of an argument of a pass, the rows that go on. Positions of several axes have these in front of the rows."""
    if not isinstance(value, Tensor):
        return value
    axis = 1 if name == "position_ids" and value.dim() == 3 else 0
    if value.dim() <= axis or value.shape[axis] != rows:
        return value
    return value.index_select(axis, live.to(value.device))
