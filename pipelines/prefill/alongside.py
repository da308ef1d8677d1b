"""Rows of a late branch that go along with the main rows: in a pass for one token a further row costs next to nothing.

The decoding loop knows the main rows alone. A hook in front of the model's pass adds the rows of branches, whose keys
and values stand in the same cache, and a hook behind it takes their logits away.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from transformers import Cache

from ..model.layout import Layout
from .growing import layers_of
from .late import LateBranch

FED = ("input_ids", "attention_mask", "position_ids")


@contextmanager
def alongside(lvlm: Layout, branches: Sequence[LateBranch], prompt: int) -> Iterator[Company | None]:
    """Within this block rows of these branches that were asked for again soon go along with the main rows.

    prompt: positions of the main rows' prompts.
    """
    if not branches:
        yield None
        return
    company = Company(branches, prompt)
    before = lvlm.model.register_forward_pre_hook(company.add, with_kwargs=True)
    after = lvlm.model.register_forward_hook(company.take)
    try:
        yield company
    finally:
        before.remove()
        after.remove()


class Company:
    """The rows that go along. members: (branch, row), in the order of their rows behind the main ones.

    going, places: samples whose text goes on, and where the main rows are in the pass at hand, if some have left it.
    """

    def __init__(self, branches: Sequence[LateBranch], prompt: int) -> None:
        self.branches, self.prompt = branches, prompt
        self.members: list[tuple[LateBranch, int]] = []
        self.main = 0  # main rows of the pass at hand, if rows were added to it
        self.going: Bool[Tensor, " sample"] | None = None
        self.places: Int[Tensor, " row"] | None = None

    def leave(self, going: Bool[Tensor, " sample"], places: Int[Tensor, " row"]) -> Int[Tensor, " member"]:
        """Members whose text has ended leave. Returns the others' numbers. places: of the main rows from now on."""
        self.going, self.places = going, places
        stay = [number for number, (_, row) in enumerate(self.members) if going[row]]
        self.members = [self.members[number] for number in stay]
        return torch.tensor(stay, dtype=torch.long)

    def add(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]] | None:
        if torch.compiler.is_compiling():  # a pass that is compiled as a whole keeps the rows that it has
            return None
        cache = next((value for value in kwargs.values() if isinstance(value, Cache)), None)
        if any(branch.reading for branch in self.branches) or args or cache is None or not _single(kwargs):
            return None
        ids, held = kwargs["input_ids"], cache.get_seq_length()
        self._join(cache, held)
        if not self.members:
            return None
        at = torch.tensor([row for _, row in self.members], device=ids.device)
        at = at if self.places is None else self.places[at]
        read = torch.tensor([int(branch.read[row]) for branch, row in self.members], device=ids.device)
        known = torch.arange(held + 1, device=ids.device) >= held - read[:, None]
        mine = {"input_ids": ids, "position_ids": kwargs["position_ids"]}
        more = {"input_ids": ids[at], "position_ids": read[:, None]}
        mask = kwargs.get("attention_mask")
        if mask is not None or not bool(known.all()):
            mine["attention_mask"] = ids.new_ones(len(ids), held + 1) if mask is None else mask
            more["attention_mask"] = known
        self.main = len(ids)
        return args, {**kwargs, **{name: torch.cat([mine[name], more[name].to(mine[name].dtype)]) for name in mine}}

    def _join(self, cache: Cache, held: int) -> None:
        """Rows that were asked for soon again, and have missed nothing, stand in the cache from now on."""
        new = [(branch, row) for branch in self.branches for row in branch.joining(held, held - self.prompt)]
        new = [(branch, row) for branch, row in new if self.going is None or self.going[row]]
        layers = layers_of(cache)
        if not new or not layers:
            return
        for number, layer in enumerate(layers):
            layer.add_rows([branch.keys_of(row, number) for branch, row in new])
        self.members += new
        for branch, row in new:
            branch.along[row] = True
        for branch in self.branches:
            if bool(branch.along.all()):
                branch.stores = []

    def take(self, module: nn.Module, args: tuple, output: Any) -> Any:
        if torch.compiler.is_compiling() or not self.main:
            return None
        logits, self.main, main = output.logits, 0, self.main
        for place, (branch, row) in enumerate(self.members, main):
            branch.go_on(row, logits[place : place + 1, -1])
        output.logits = logits[:main]
        return output


def _single(kwargs: Mapping[str, Any]) -> bool:
    """Whether a pass feeds one token per row, and nothing by row that is not known here."""
    given = [kwargs.get("input_ids"), kwargs.get("position_ids"), kwargs.get("attention_mask")]  # no mask: all ones
    if given[0] is None or given[1] is None or any(one is not None and one.dim() != 2 for one in given):
        return False
    tensors = {name for name, value in kwargs.items() if isinstance(value, Tensor) and value.dim()}
    return kwargs["input_ids"].shape[1] == 1 and tensors <= {*FED}
