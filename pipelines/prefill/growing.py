"""A cache with room for further tokens: a step writes its keys and values beside those that are there.

transformers' dynamic cache copies every key and value at each step. With a long prompt that is a tenth of the time of a
token, in every row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

ROOM = 64  # further positions that a layer makes room for when it is full

States = Float[Tensor, "row kv_head position head_dim"]


class GrowingLayer(DynamicLayer):
    """A dynamic layer whose keys and values are the first positions of larger tensors."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stores: tuple[Tensor, Tensor] | None = None
        self.views: tuple[Tensor, Tensor] | None = None  # what keys and values are while nobody has replaced them

    def update(self, key_states: States, value_states: States, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        before = self.get_seq_length()
        after = before + key_states.shape[2]
        if not self._has_room(after):
            old = (self.keys, self.values) if before else (None, None)
            self.stores = self._grown(old[0], key_states, after), self._grown(old[1], value_states, after)
        assert self.stores is not None
        for store, states in zip(self.stores, (key_states, value_states), strict=True):
            store[:, :, before:after] = states
        self.keys, self.values = self.views = self.stores[0][:, :, :after], self.stores[1][:, :, :after]
        return self.keys, self.values

    def hold(self, stores: tuple[Tensor, Tensor], length: int) -> None:
        """Take these stores over, of which the first positions are keys and values."""
        self.lazy_initialization(*stores)
        self.stores = stores
        self.keys, self.values = self.views = stores[0][:, :, :length], stores[1][:, :, :length]

    def add_rows(self, rows: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Further rows, each of its keys and values (kv_head, position, head_dim), aligned at the right edge."""
        length, stores = self.get_seq_length(), []
        assert self.keys is not None
        assert self.values is not None
        sides = self.keys, self.values
        for number, side in enumerate(sides):
            store = side.new_zeros(len(side) + len(rows), side.shape[1], length + ROOM, side.shape[3])
            store[: len(side), :, :length] = side
            for place, row in enumerate(rows, len(side)):
                store[place, :, length - row[number].shape[1] : length] = row[number]
            stores.append(store)
        self.hold((stores[0], stores[1]), length)

    def _has_room(self, length: int) -> bool:
        """Whether the stores hold what the layer has, which others may have cut or put in another order, and more."""
        if self.stores is None or self.views is None or self.stores[0].shape[2] < length:
            return False
        return self.keys is self.views[0] and self.values is self.views[1]

    def _grown(self, old: Tensor | None, states: Tensor, length: int) -> Tensor:
        store = states.new_empty((*states.shape[:2], length + ROOM, states.shape[3]))
        if old is not None:
            store[:, :, : old.shape[2]] = old
        return store


def growing() -> Cache:
    """An empty cache of such layers, as many as a model has."""
    return Cache(layer_class_to_replicate=GrowingLayer)


def resumed(stores: Sequence[tuple[Tensor, Tensor]], length: int) -> Cache:
    """A cache of the first positions of these keys and values, layer by layer, which goes on in the same tensors."""
    layers = [GrowingLayer() for _ in stores]
    for layer, pair in zip(layers, stores, strict=True):
        layer.hold(pair, length)
    return Cache(layers=list(layers))


def layers_of(cache: Any) -> list[GrowingLayer]:
    """The growing layers of a cache; none where it has others."""
    layers = [layer for layer in cache.layers if isinstance(layer, GrowingLayer)]
    return layers if len(layers) == len(cache.layers) else []


def states_of(layer: GrowingLayer) -> tuple[Tensor, Tensor]:
    """The keys and values of a layer that has some."""
    assert layer.views is not None
    return layer.views
