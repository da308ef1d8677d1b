"""What a run has computed of its prompts so far, so that a later pass need not repeat it."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from ..model.layout import Layout

Layers = list[tuple[Tensor, Tensor]]  # keys and values of each decoder layer, (row, kv_head, position, head_dim)


@dataclass(frozen=True, eq=False)
class ReadPrompt:
    """Keys and values of the main prompt from a pass before decoding.

    ids: the very tensor of the main rows. methods: whose edits of the main rows the pass carried out; none is the
    plain model.
    """

    ids: Int[Tensor, "row position"]
    layers: Layers
    methods: frozenset[int] = frozenset()


@dataclass
class Memo:
    """One run's memo.

    separately: whether prompts may be computed apart from the decoding loop, so that keys and values are worth keeping.
    images: pixel tensor (by identity) -> the tensor, which is kept so that its identity is its own, its distinct
    images' features, and which of them each row has. stacked: whether the encoder returns features as one tensor.
    prompt: the main prompt as the newest pass read it. method: the number of the method that declares at the moment.
    """

    separately: bool = False
    images: dict[int, tuple[Tensor, list[Float[Tensor, "token hidden"]], list[int]]] = field(default_factory=dict)
    stacked: bool = False
    prompt: ReadPrompt | None = None
    method: int = -1


_CURRENT: ContextVar[Memo | None] = ContextVar("memo", default=None)


def current() -> Memo | None:
    """The memo of the run that this thread prepares; None outside one."""
    return _CURRENT.get()


@contextmanager
def remembered(separately: bool) -> Iterator[Memo]:
    """Within this block passes over prompts leave what they computed in a memo of their own."""
    memo = Memo(separately)
    token = _CURRENT.set(memo)
    try:
        yield memo
    finally:
        _CURRENT.reset(token)


def forget_edited() -> None:
    """Keep no prompt whose pass carried out edits: what declared them may undo them in the run, as a gate does."""
    memo = current()
    if memo is not None and memo.prompt is not None and memo.prompt.methods:
        memo.prompt = None


def kept(output: Any) -> Layers | None:
    """Keys and values that a pass leaves in its cache; None where a layer does not keep every position."""
    cache = output.get("cache", None) if "cache" in output else output.get("past_key_values", None)
    layers = getattr(cache, "layers", None)
    if not layers or any(type(layer).__name__ != "DynamicLayer" for layer in layers):
        return None
    return [(layer.keys, layer.values) for layer in layers]


def cache_of(layers: Iterable[tuple[Tensor, Tensor]]) -> DynamicCache:
    """A dynamic cache that holds these keys and values."""
    cache = DynamicCache()
    for number, (keys, values) in enumerate(layers):
        cache.update(keys, values, number)
    return cache


def cache_argument(lvlm: Layout, cache: Any) -> dict[str, Any]:
    """The cache under the name by which this transformers' models take it."""
    takes = inspect.signature(lvlm.model.forward).parameters
    return {"cache" if "cache" in takes else "past_key_values": cache}
