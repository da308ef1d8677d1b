"""The rows of a run: the main rows, a block of rows per branch, and which rows every declaration concerns.

Beams change places between steps, and what was kept of a row follows its text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ..inputs.rows import stack
from ..model.layout import Layout
from ..prefill.late import can_wait
from .call import Sequences
from .declarations import Branch, Declaration, LogitsEdit, Reading, ResidualEdit
from .plan import Placed


@dataclass(frozen=True)
class Arrangement:
    """The rows of a run: block names, stacked inputs, every declaration with the rows it concerns, each block's own
    inputs. late: branches that have no rows here, because they are read when an edit asks for them."""

    names: Sequence[str]
    inputs: dict[str, Tensor]
    placed: Sequence[Placed]
    edits: Sequence[tuple[LogitsEdit, int]]
    batch: int
    methods: frozenset[int] = frozenset()  # the numbers of the methods that declared anything
    own: Mapping[int, Mapping[str, str]] = field(default_factory=dict)  # method -> its branch -> name among all
    blocks: Sequence[Mapping[str, Tensor]] = ()
    late: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)


def arrange(
    declared: Sequence[tuple[Declaration, int]], inputs: Mapping[str, Tensor], pad: int, late: bool = False
) -> Arrangement:
    """Main rows first, then a block per branch. A branch inherits the edits declared before it.

    late: whether branches that can be read late have no rows.

    Raises:
        ValueError: two branches of one name, an edit of a branch that nobody opened, or a branch with another number
            of rows.
    """
    batch, device = inputs["input_ids"].shape[0], inputs["input_ids"].device
    opened: dict[str, int] = {}
    own: dict[int, dict[str, str]] = {}  # method -> its name of a branch -> the name among all
    every: dict[str, Branch] = {}
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
            every[name] = declaration
    wide = [_scope(at, one, opened, own.get(method, {})) for at, (one, method) in enumerate(declared)]
    waits = {name for name, one in every.items() if late and one.late and can_wait(one.inputs)}.difference(*wide)
    names = ["main", *(name for name in opened if name not in waits)]
    blocks: list[Mapping[str, Tensor]] = [inputs, *(every[name].inputs for name in names[1:])]
    rows = {name: torch.arange(batch * k, batch * (k + 1), device=device) for k, name in enumerate(names)}
    placed = []
    for at, (declaration, method) in enumerate(declared):
        if isinstance(declaration, Branch | LogitsEdit):
            continue
        scope = wide[at]
        if unknown := [name for name in scope if name not in rows]:
            raise ValueError(f"no branch {unknown[0]!r}; opened here: {', '.join(names)}")
        seen = None
        if isinstance(declaration, ResidualEdit) and declaration.at == "vision_mlp":
            seen = _image_places([names.index(name) for name in scope], blocks, device)
        placed.append(Placed(declaration, torch.cat([rows[name] for name in scope]), method, seen))
    edits = [(d, method) for d, method in declared if isinstance(d, LogitsEdit)]
    methods = frozenset(method for _, method in declared)
    aside = {name: every[name].inputs for name in opened if name in waits}
    return Arrangement(names, stack(blocks, pad), placed, edits, batch, methods, own, blocks, aside)


def _scope(at: int, one: Declaration, opened: Mapping[str, int], own: Mapping[str, str]) -> list[str]:
    """The row blocks that one declaration concerns. opened: branch -> its place. own: its method's branches."""
    if isinstance(one, Branch | LogitsEdit):
        return []
    if one.branch == "all":
        return ["main", *opened]
    if one.branch is not None:
        return [own.get(one.branch, one.branch)]
    if isinstance(one, Reading):
        return ["main"]
    return ["main", *(name for name, when in opened.items() if when > at)]


def _image_places(
    scope: Sequence[int], blocks: Sequence[Mapping[str, Tensor]], device: torch.device
) -> tuple[Int[Tensor, " image"], int]:
    """The places of some blocks' images among all of a run, and how many there are.

    Raises:
        ValueError: images that are not one entry of `pixel_values` each, (image, colour, height, width).
    """
    pixels = [block.get("pixel_values") for block in blocks]
    if odd := [tuple(one.shape) for one in pixels if one is not None and one.dim() != 4]:
        raise ValueError(
            "edits of the vision tower need pixel_values of (image, colour, height, width), each encoded alone; this "
            f"model's are {odd[0]}."
        )
    counts = [0 if one is None else len(one) for one in pixels]
    parts = [torch.arange(sum(counts[:at]), sum(counts[: at + 1]), device=device) for at in scope]
    return torch.cat(parts), sum(counts)


def sequences(lvlm: Layout, arranged: Arrangement, repeat: int = 1, forced: int = 0) -> Sequences:
    """Where the image is in every row of a run. forced: tokens that were appended to the prompts."""
    ids, mask = arranged.inputs["input_ids"], arranged.inputs["attention_mask"]
    prompt = ids.shape[1] - forced
    sample = torch.arange(arranged.batch, device=ids.device).repeat(len(arranged.names)).repeat_interleave(repeat)
    image = lvlm.image_mask(ids[:, :prompt]).repeat_interleave(repeat, dim=0)
    padding = (mask[:, :prompt] == 0).repeat_interleave(repeat, dim=0)
    return Sequences(image, padding, sample, forced=forced)


def same_text(
    now: Int[Tensor, "row position"], before: Int[Tensor, "old position"], samples: int
) -> Bool[Tensor, "row old"]:
    """Which of the earlier rows belong to a row's sample and have its text."""
    sample = lambda rows: torch.arange(len(rows), device=now.device) * samples // len(rows)
    return (now[:, None] == before[None]).all(-1) & (sample(now)[:, None] == sample(before)[None])


def came_from(
    before: Int[Tensor, "row position"], now: Int[Tensor, "row position"], samples: int
) -> Int[Tensor, " row"]:
    """For each row, the earlier row of its sample whose text it goes on with: itself if it can be, else the first.

    Rows of one sample and one text have one history, so that it does not matter which of them is named.
    """
    rows = torch.arange(now.shape[0], device=now.device)
    if torch.equal(before, now):
        return rows
    same = same_text(now, before, samples)
    return torch.where(same[rows, rows], rows, same.to(torch.int8).argmax(1))


def chosen_of(
    before: Int[Tensor, "row new"], tried: Int[Tensor, "row try"], now: Int[Tensor, "row longer"], samples: int
) -> tuple[Int[Tensor, " row"], Int[Tensor, " row"]]:
    """For each row, the earlier row of its sample and that row's try with which its text goes on; (−1, −1): none does.

    Which of several rows with one history is named does not matter, as in `came_from`.
    """
    same = same_text(now[:, :-1], before, samples)
    fits = (same[..., None] & (now[:, -1, None, None] == tried[None])).flatten(1)  # row, row·try
    at, found = fits.to(torch.int8).argmax(1), fits.any(1)
    return torch.where(found, at // tried.shape[1], -1), torch.where(found, at % tried.shape[1], -1)
