"""The rows of a run: the main rows, a block of rows per branch, and which rows every declaration concerns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..inputs.rows import stack
from ..model.layout import Layout
from .call import Sequences
from .declarations import Branch, Declaration, LogitsEdit, Reading
from .plan import Placed


@dataclass(frozen=True)
class Arrangement:
    """The rows of a run: block names, stacked inputs and every declaration with the rows it concerns."""

    names: Sequence[str]
    inputs: dict[str, Tensor]
    placed: Sequence[Placed]
    edits: Sequence[tuple[LogitsEdit, int]]
    batch: int
    methods: frozenset[int] = frozenset()  # the numbers of the methods that declared anything
    own: Mapping[int, Mapping[str, str]] = field(default_factory=dict)  # method -> its branch -> name among all


def arrange(declared: Sequence[tuple[Declaration, int]], inputs: Mapping[str, Tensor], pad: int) -> Arrangement:
    """Main rows first, then a block per branch. A branch inherits the edits declared before it.

    Raises:
        ValueError: two branches of one name, an edit of a branch that nobody opened, or a branch with another number
            of rows.
    """
    batch, device = inputs["input_ids"].shape[0], inputs["input_ids"].device
    opened: dict[str, int] = {}
    own: dict[int, dict[str, str]] = {}  # method -> its name of a branch -> the name among all
    blocks: list[Mapping[str, Tensor]] = [inputs]
    for at, (declaration, method) in enumerate(declared):
        if isinstance(declaration, Branch):
            names_here = own.setdefault(method, {})
            if declaration.name in ("main", "all"):
                raise ValueError(f"a branch is called {declaration.name!r}, which is taken: give it another name")
            if declaration.name in names_here:
                raise ValueError(f"two branches are called {declaration.name!r}; give one of them another name")
            if declaration.inputs["input_ids"].shape[0] != batch:
                found = declaration.inputs["input_ids"].shape[0]
                raise ValueError(f"branch {declaration.name!r} has {found} rows, the main inputs {batch}")
            name = declaration.name if declaration.name not in opened else f"{declaration.name}#{method}"
            opened[name], names_here[declaration.name] = at, name
            blocks.append(declaration.inputs)
    names = ["main", *opened]
    rows = {name: torch.arange(batch * k, batch * (k + 1), device=device) for k, name in enumerate(names)}
    placed = []
    for at, (declaration, method) in enumerate(declared):
        if isinstance(declaration, Branch | LogitsEdit):
            continue
        wanted = declaration.branch
        if wanted == "all":
            scope = names
        elif wanted is not None:
            scope = [own.get(method, {}).get(wanted, wanted)]
        elif isinstance(declaration, Reading):
            scope = ["main"]
        else:
            scope = ["main", *(name for name, when in opened.items() if when > at)]
        if unknown := [name for name in scope if name not in rows]:
            raise ValueError(f"no branch {unknown[0]!r}; opened here: {', '.join(names)}")
        placed.append(Placed(declaration, torch.cat([rows[name] for name in scope]), method))
    edits = [(d, method) for d, method in declared if isinstance(d, LogitsEdit)]
    methods = frozenset(method for _, method in declared)
    return Arrangement(names, stack(blocks, pad), placed, edits, batch, methods, own)


def sequences(lvlm: Layout, made: Arrangement, repeat: int = 1, given: int = 0) -> Sequences:
    """Where the image is in every row of a run. given: tokens that were appended to the prompts."""
    ids, mask = made.inputs["input_ids"], made.inputs["attention_mask"]
    prompt = ids.shape[1] - given
    sample = torch.arange(made.batch, device=ids.device).repeat(len(made.names)).repeat_interleave(repeat)
    image = lvlm.image_mask(ids[:, :prompt]).repeat_interleave(repeat, dim=0)
    padding = (mask[:, :prompt] == 0).repeat_interleave(repeat, dim=0)
    return Sequences(image, padding, sample, given=given)
