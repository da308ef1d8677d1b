"""Puts declarations in place around forward passes and takes every one away again, whatever happens."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import Cache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ..model.compiled import eager
from .attention import CARRIES, NAME, LayerCall, Sequences
from .declarations import AttentionEdit, Declaration, HeadEdit, Reading, ResidualEdit, Step
from .plan import BUSY, claimed

if TYPE_CHECKING:
    from ..model.layout import Layout
    from .deferred_readings import Postponed, Waiting

IN_ATTENTION = ("attention", "heads")


@dataclass(frozen=True, eq=False)
class Placed:
    """A declaration, the rows it concerns, and the number of the method that made it."""

    declaration: Declaration
    rows: Tensor
    method: int = -1


@dataclass
class Plan:
    """What the hooks of one run need to know and where they leave what they saw.

    later: where readings of attention wait that a run's detectors want when it is over; None takes them at once.
    hooked: whether the run has any hook, which no compiled pass would call.
    expected: edits and readings of one pass, each layer's counted. met: those that were carried out in the newest pass;
    None before a pass and once `check` has looked at it.
    """

    placed: Sequence[Placed]
    sequences: Sequences
    step: Step
    implementation: str = "sdpa"
    later: Postponed | None = None
    changed: dict[int, Tensor] = field(default_factory=dict)  # method -> (row,) bool, since the last token
    hooked: bool = False
    expected: int = 0
    met: int | None = None
    thread: int = field(default_factory=threading.get_ident)

    def begin(self) -> None:
        """A pass begins: nothing is known of it yet, and what was read in the pass before is gone."""
        self.enter()
        self.step.readings.clear()
        self.met = 0

    def enter(self) -> None:
        """Raise RuntimeError in a forward pass of another thread than the run's: its hooks are not for that one."""
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
        met, self.met = self.met or 0, None
        if met < self.expected:
            raise RuntimeError(
                f"{self.expected - met} of {self.expected} edits and readings were not carried out in the last forward "
                "pass, because it did not call the hooks of the model's layers, as code does that was compiled inside "
                "a function of one's own: call the model itself there, or load it anew."
            )

    def watch(self, method: int, rows: Tensor, old: Tensor, new: Tensor) -> None:
        """Remember in which rows a method changed anything."""
        if method < 0:
            return
        total = self.sequences.image.shape[0]
        flags = self.changed.setdefault(method, torch.zeros(total, dtype=torch.bool, device=rows.device))
        moved = (new != old).flatten(1).any(1).to(flags.device)
        self.changed[method] = flags.index_put((rows.to(flags.device),), moved, accumulate=True)

    def keep(self, reading: Reading, layer: int, value: Tensor, method: int) -> None:
        """Under the method's own name, so that two methods of one class do not read each other's."""
        name = reading.name if method < 0 else f"{reading.name}#{method}"
        self.step.readings.setdefault(name, {})[layer] = value


@dataclass(frozen=True, eq=False)
class Inside:
    """What happens inside one layer's attention.

    waiting: where readings wait for the steps to come, if any may. direct: with a single query, what the layer's own
    function does comes to one call of torch's, which may be made at once: the same heads to the last bit in less time.
    """

    plan: Plan
    layer: int
    placed: Sequence[Placed]
    waiting: Waiting | None
    direct: bool = False
    count: int = 0  # edits and readings in this layer's attention


def _hidden(output: Tensor | tuple) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def _replaced(output: Tensor | tuple, hidden: Tensor) -> Tensor | tuple:
    return hidden if isinstance(output, Tensor) else (hidden, *output[1:])


def _residual(plan: Plan, placed: Placed, layer: int, hidden: Tensor) -> Tensor:
    edit, rows = placed.declaration, placed.rows.to(hidden.device)
    assert isinstance(edit, ResidualEdit)
    old = hidden[rows]
    new = edit.apply(old, LayerCall(layer, plan.sequences.rows(placed.rows))).to(hidden.dtype)
    plan.watch(placed.method, rows, old, new)
    return hidden.index_copy(0, rows, new)


def _hook_layer(plan: Plan, undo: ExitStack, layer: Any, index: int, here: Sequence[Placed]) -> None:
    def on_input(module: nn.Module, args: tuple, kwargs: dict, placed: Placed) -> tuple[tuple, dict]:
        if args:
            return (_residual(plan, placed, index, args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": _residual(plan, placed, index, kwargs["hidden_states"])}

    def on_output(module: nn.Module, args: tuple, output: Tensor | tuple, placed: Placed) -> Tensor | tuple:
        return _replaced(output, _residual(plan, placed, index, _hidden(output)))

    def on_output_reading(module: nn.Module, args: tuple, output: Tensor | tuple, placed: Placed) -> None:
        read(_hidden(output), placed)

    def on_input_reading(module: nn.Module, args: tuple, kwargs: dict, placed: Placed) -> None:
        read(args[0] if args else kwargs["hidden_states"], placed)

    def read(hidden: Tensor, placed: Placed) -> None:
        reading = placed.declaration
        assert isinstance(reading, Reading)
        spans = {"last": plan.sequences.producing, "prompt": plan.sequences.prompt}
        span = spans[reading.queries](hidden.shape[1]) if reading.queries in spans else slice(None)
        plan.keep(reading, index, reading.keep(hidden[placed.rows.to(hidden.device)][:, span]), placed.method)

    def bound(hook: Callable, placed: Placed) -> Callable:
        def carried(*given: Any) -> Any:
            plan.carry()
            return hook(*given, placed)

        plan.expected += 1
        return carried

    for placed in here:
        declared = placed.declaration
        if isinstance(declared, ResidualEdit) and declared.at == "input":
            undo.callback(layer.register_forward_pre_hook(bound(on_input, placed), with_kwargs=True).remove)
        elif isinstance(declared, ResidualEdit):
            target = layer if declared.at == "block" else layer.mlp
            undo.callback(target.register_forward_hook(bound(on_output, placed)).remove)
        elif isinstance(declared, Reading) and declared.of == "block":
            undo.callback(layer.register_forward_hook(bound(on_output_reading, placed)).remove)
        elif isinstance(declared, Reading) and declared.of == "input":
            undo.callback(layer.register_forward_pre_hook(bound(on_input_reading, placed), with_kwargs=True).remove)


def _hook_attention(
    plan: Plan, undo: ExitStack, layer: Any, index: int, inside: list[Placed], own: _Configurations
) -> None:
    """This layer, and only touched layers, ask for our attention: a copy of their configuration names it."""
    attention = layer.self_attn
    may_wait = [p for p in inside if plan.later is not None and _may_wait(p)]
    waiting = plan.later.of(index, may_wait) if plan.later is not None and may_wait else None
    direct = plan.implementation == "sdpa" and _adds_nothing(attention)
    now = [p for p in inside if p not in may_wait]
    setattr(attention, CARRIES, Inside(plan, index, now, waiting, direct, len(inside)))
    plan.expected += len(inside)
    undo.callback(delattr, attention, CARRIES)
    undo.callback(setattr, attention, "config", attention.config)
    attention.config = own.get(attention.config)


def _adds_nothing(attention: nn.Module) -> bool:
    """Whether transformers' own sdpa function, and no other in its place, hands one query on to torch as it is."""
    own = ALL_ATTENTION_FUNCTIONS["sdpa"] is sdpa_attention_forward
    return own and getattr(attention, "num_key_value_groups", 1) == 1


class _Configurations:
    """Copies of configurations that name our attention, one for all layers that share the original."""

    def __init__(self) -> None:
        self.made: dict[int, tuple[Any, Any]] = {}  # the original is kept, so that its id is its own

    def get(self, original: Any) -> Any:
        if id(original) not in self.made:
            own = copy.copy(original)
            own._attn_implementation = NAME
            self.made[id(original)] = original, own
        return self.made[id(original)][1]


@contextmanager
def applied(
    lvlm: Layout, placed: Sequence[Placed], sequences: Sequences, step: Step, later: Postponed | None = None
) -> Iterator[Plan]:
    """Within this block the model's forward passes carry out what was declared.

    Raises:
        RuntimeError: the model is already inside such a block, or in a run of another thread; it can serve one run at
            a time.

    A run that declares nothing but branches and edits of logits needs no hook: its passes are left as they are,
    compiled or not.
    """
    plan = Plan(placed, sequences, step, lvlm.attention_implementation, later)
    with claimed(lvlm.model), ExitStack() as undo:
        BUSY.add(id(lvlm.model))
        undo.callback(BUSY.discard, id(lvlm.model))
        base = lvlm.model.base_model
        if stored := hasattr(base, "rope_deltas"):  # Qwen keeps the last pass's, and somebody's cache may need them
            undo.callback(setattr, base, "rope_deltas", base.rope_deltas)
        if placed or stored:
            plan.hooked = True
            undo.enter_context(eager(lvlm.model))
            _hook(plan, undo, lvlm)
        yield plan


def _hook(plan: Plan, undo: ExitStack, lvlm: Layout) -> None:
    """Put all that was declared in place, and watch over the decoder's passes."""

    def count(module: nn.Module, args: tuple, kwargs: dict) -> None:
        plan.begin()
        found = (kwargs.get("inputs_embeds"), kwargs.get("input_ids"), *args)
        fed = next(fed for fed in found if fed is not None).shape[1]
        cached = any(isinstance(value, Cache) for value in kwargs.values())
        plan.sequences.advance(plan.sequences.seen + fed if cached else fed)
        if plan.later is not None:
            plan.later.release()

    undo.callback(lvlm.decoder.register_forward_pre_hook(count, with_kwargs=True).remove)
    own = _Configurations()
    for index, layer in enumerate(lvlm.layers):
        here = [p for p in plan.placed if index in getattr(p.declaration, "layers", ())]
        inside = [p for p in here if _in_attention(p.declaration)]
        if inside:
            _hook_attention(plan, undo, layer, index, inside, own)
        _hook_layer(plan, undo, layer, index, here)


def _in_attention(declared: Declaration) -> bool:
    looks = isinstance(declared, Reading) and declared.of in IN_ATTENTION
    return looks or isinstance(declared, AttentionEdit | HeadEdit)


def _may_wait(placed: Placed) -> bool:
    """A reading of attention by a run's own detectors: no method asks for it while the run lasts."""
    declared = placed.declaration
    return isinstance(declared, Reading) and declared.of == "attention" and placed.method < 0
