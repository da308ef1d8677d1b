"""Which layers a method edits: those that are named, or its own in a model of any depth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..pipelines.checks import check_layers

if TYPE_CHECKING:
    from ..pipelines.model.layout import Layout


def chosen_layers(decoder: Any, lvlm: Layout, default: Callable[[int], Sequence[int]]) -> Sequence[int]:
    """The decoder's `layers`; where they are None, its default ones of a model of that many layers.

    Raises:
        ValueError: a layer that the model does not have.
    """
    count = len(lvlm.layers)
    return default(count) if decoder.layers is None else check_layers(decoder.layers, count, type(decoder).__name__)


def scaled_layers(first: int, last: int, count: int) -> range:
    """Layers ⌊first·D/32⌋ to ⌊last·D/32⌋, both included, D = min(count, 32): deeper models keep the numbers.

    >>> list(scaled_layers(5, 18, 6)), scaled_layers(5, 18, 40)
    ([0, 1, 2, 3], range(5, 19))
    """
    depth = min(count, 32)
    return range(first * depth // 32, last * depth // 32 + 1)
