"""What one run carries out: its declarations with their rows, layer by layer; and which models are in a run."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor, nn

from .call import AttentionCall, Sequences
from .declarations import Declaration, Reading, Step

BUSY: set[int] = set()  # models with methods in place: hooks belong to one run at a time
OWNERS: dict[int, int] = {}  # models that a run prepares or decodes with -> its thread
_CLAIM = threading.Lock()


def refuse_if_busy(model: Any) -> None:
    """Raise RuntimeError if the model is in a run with methods in place, or in any run of another thread."""
    if id(model) in BUSY or OWNERS.get(id(model), threading.get_ident()) != threading.get_ident():
        raise RuntimeError(
            f"{type(model).__name__} is already in a run with methods in place; "
            "finish that run first, or load the model a second time"
        )


@contextmanager
def claimed(model: Any) -> Iterator[None]:
    """Within this block no other thread can start a run of the model; raises as `refuse_if_busy`."""
    with _CLAIM:
        refuse_if_busy(model)
        first = id(model) not in OWNERS
        OWNERS[id(model)] = threading.get_ident()
    try:
        yield
    finally:
        if first:
            del OWNERS[id(model)]


@dataclass(frozen=True, eq=False)
class Placed:
    """A declaration, the rows it concerns, and the number of the method that made it.

    images: of a declaration of the vision tower, which of the run's images or tiles it concerns, and of how many.
    """

    declaration: Declaration
    rows: Int[Tensor, " row"]
    method: int = -1
    images: tuple[Int[Tensor, " image"], int] | None = None


@dataclass
class Plan:
    """What the hooks of one run carry out, and where they leave what they read.

    hooked: whether the run has any hook, which no compiled pass would call.
    expected: edits and readings of one pass, each layer's counted. met: those that were carried out in the newest pass;
    None before a pass and once `check` has looked at it. unseen: edits of the vision tower that were not carried out
    yet, which sees the images once in a run. rows: of the run. live: those that are in its passes, None for all.
    stand_in: for each row of the run its place in a pass, for one that has left that of another.
    """

    placed: Sequence[Placed]
    sequences: Sequences
    step: Step
    implementation: str = "sdpa"
    changed: dict[int, Bool[Tensor, " row"]] = field(default_factory=dict)  # by method, since the last token
    hooked: bool = False
    expected: int = 0
    met: int | None = None
    unseen: set[tuple[int, int]] = field(default_factory=set)
    thread: int = field(default_factory=threading.get_ident)
    paused: bool = False  # in passes that are no step of the run, which its hooks leave alone
    rows: int = field(init=False)
    live: Int[Tensor, " live"] | None = field(default=None, init=False)
    stand_in: Int[Tensor, " row"] = field(init=False)
    places: dict[int, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.rows = len(self.sequences.image)
        self.stand_in = torch.arange(self.rows, device=self.sequences.image.device)

    def leave(self, going: Bool[Tensor, " row"]) -> Int[Tensor, " live"]:
        """Further passes have these rows of the run alone. Returns their places in the passes so far."""
        before = torch.arange(self.rows, device=going.device) if self.live is None else self.live
        kept = going[before].nonzero()[:, 0]
        self.live = before[kept]
        self.stand_in = torch.zeros_like(going, dtype=torch.long)
        self.stand_in[self.live] = torch.arange(len(self.live), device=going.device)
        self.sequences = self.sequences.rows(kept)
        self.places.clear()
        return kept

    def here(self, placed: Placed) -> Int[Tensor, " place"]:
        """The places in a pass of the rows that a declaration concerns, without those that have left."""
        return placed.rows if self.live is None else self._places(placed)[0]

    def stand_ins(self, placed: Placed) -> Int[Tensor, " row"]:
        """A place in a pass for each row of a declaration: its own, or another's if it has left."""
        return placed.rows if self.live is None else self.stand_in[placed.rows.to(self.stand_in.device)]

    def every(self, value: Shaped[Tensor, "place ..."], placed: Placed) -> Shaped[Tensor, "row ..."]:
        """What was read at those places for all rows of the declaration; one that has left has another's."""
        return value if self.live is None else value[self._places(placed)[1].to(value.device)]

    def left(self, placed: Placed) -> Bool[Tensor, " row"] | None:
        """Which rows of a declaration have left; None for none."""
        return None if self.live is None else self._places(placed)[2]

    def _places(self, placed: Placed) -> tuple[Tensor, Tensor, Tensor]:
        if id(placed) not in self.places:
            assert self.live is not None
            rows = placed.rows.to(self.live.device)
            there = torch.isin(rows, self.live)
            self.places[id(placed)] = self.stand_in[rows[there]], (there.cumsum(0) - 1).clamp(min=0), ~there
        return self.places[id(placed)]

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Within this block the hooks of the run do nothing: a branch that is read late has passes of its own."""
        self.paused = True
        try:
            yield
        finally:
            self.paused = False

    def begin(self) -> None:
        """A pass begins: nothing is known of it yet, and what was read in the pass before is gone."""
        self.enter()
        self.step.readings.clear()
        self.met = 0

    def enter(self) -> None:
        """Raise RuntimeError in a forward pass of another thread than the run's: its hooks are not for that one.

        And in one that is being compiled: the hooks would act in plain passes after the run. torch then runs the code
        around them as it is.
        """
        if torch.compiler.is_compiling():
            raise RuntimeError("hooks of a run cannot be compiled: call the model itself, or load it anew.")
        if threading.get_ident() != self.thread:
            raise RuntimeError(
                "a forward pass of this thread met a run with methods in place in another thread, and would have been "
                "changed by them: wait until that run is over, or load the model a second time for this thread."
            )

    def carry(self, count: int = 1) -> None:
        """So many edits and readings are carried out now, in a pass of this thread."""
        self.enter()
        self.met = (self.met or 0) + count

    def check(self) -> None:
        """Raise RuntimeError unless all that was declared was carried out in a pass since the last check."""
        if self.unseen:
            raise RuntimeError(
                f"{len(self.unseen)} edits of the vision tower were not carried out before the first token: the images "
                "were encoded before the run, or by a tower that was compiled. Hand pixel_values over."
            )
        met, self.met = self.met or 0, None
        if met < self.expected:
            raise RuntimeError(
                f"{self.expected - met} of {self.expected} edits and readings were not carried out in the last forward "
                "pass, because it did not call the hooks of the model's layers, as code does that was compiled inside "
                "a function of one's own: call the model itself there, or load it anew."
            )

    def watch(
        self, method: int, rows: Int[Tensor, " row"], old: Shaped[Tensor, "row ..."], new: Shaped[Tensor, "row ..."]
    ) -> None:
        """Remember in which rows a method changed anything. rows: their places in the pass."""
        if method < 0:
            return
        flags = self.changed.setdefault(method, torch.zeros(self.rows, dtype=torch.bool, device=rows.device))
        rows = rows if self.live is None else self.live.to(rows.device)[rows]
        moved = (new != old).flatten(1).any(1).to(flags.device)
        self.changed[method] = flags.index_put((rows.to(flags.device),), moved, accumulate=True)

    def read(self, placed: Placed, layer: int, states: Shaped[Tensor, "place query ..."], span: slice) -> None:
        """Keep what a reading keeps of its rows of states, or of head outputs, at these positions, and that alone.

        What it returns may be a view, which would hold the states of a whole prompt until the text is finished.
        """
        assert isinstance(placed.declaration, Reading)
        states = states[:, span]
        if self.live is not None or len(placed.rows) < len(states):
            states = states[self.stand_ins(placed).to(states.device)]  # `keep` may hold something per sample
        value = placed.declaration.keep(states)
        mine, theirs = value.untyped_storage(), states.untyped_storage()
        view = mine.data_ptr() == theirs.data_ptr() or mine.nbytes() > value.nbytes
        self.keep(placed, layer, value.clone() if view else value)

    def keep(self, placed: Placed, layer: int, value: Tensor) -> None:
        """Under the method's own name, so that two methods of one class do not read each other's."""
        assert isinstance(placed.declaration, Reading)
        name = placed.declaration.name if placed.method < 0 else f"{placed.declaration.name}#{placed.method}"
        self.step.readings.setdefault(name, {})[layer] = value


# what a layer's attention is handed: the arguments of `call_of`
Handed = tuple["Inside", nn.Module, Tensor, Tensor, Tensor, Tensor | None, float | None, Mapping[str, Any]]


class DeferredLayer:
    """A layer with deferred readings of its attention, and what was handed to it in the newest pass."""

    def __init__(self, layer: int, readings: Sequence[Placed]) -> None:
        self.layer, self.readings = layer, readings
        self.newest: Handed | None = None

    def hold(self, handed: Handed) -> None:
        """Keep the query that chooses this step's token. handed: the arguments of `call_of`.

        This is called by every layer in every step, between products that leave nothing of it in the processor's
        caches, so that it does next to nothing; the work is done for all layers at once, before the next pass.
        """
        if handed[2].shape[2] > 1:  # of a prompt, whose other queries are not needed
            handed = (*handed[:2], handed[2][:, :, -1:].clone(), *handed[3:])
        self.newest = handed


@dataclass(frozen=True, eq=False)
class Inside:
    """What happens inside one layer's attention.

    deferred: this layer's deferred readings, if it has any. direct: with a single query, the layer's own function comes
    to one call of torch's, which may be made at once: the same heads to the last bit in less time.
    """

    plan: Plan
    layer: int
    placed: Sequence[Placed]
    deferred: DeferredLayer | None
    direct: bool = False
    count: int = 0  # edits and readings in this layer's attention


def call_of(
    inside: Inside, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None,
    scaling: float | None, more: Mapping[str, Any],
) -> AttentionCall:  # fmt: skip
    """What a layer handed to its attention function, as a call."""
    return AttentionCall(
        inside.layer, inside.plan.sequences, query, key, value, mask, scaling or query.shape[-1] ** -0.5,
        more.get("softcap"), more.get("sliding_window"), getattr(module, "is_causal", True),
    )  # fmt: skip
