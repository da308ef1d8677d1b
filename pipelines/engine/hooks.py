"""Puts declarations in place around forward passes and takes every one away again, whatever happens."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import Cache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .attention import CARRIES, NAME, LayerCall, Sequences
from .declarations import AttentionEdit, Declaration, HeadEdit, Reading, ResidualEdit, Step
from .plan import BUSY, refuse_if_busy

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
    """

    placed: Sequence[Placed]
    sequences: Sequences
    step: Step
    implementation: str = "sdpa"
    later: Postponed | None = None
    changed: dict[int, Tensor] = field(default_factory=dict)  # method -> (row,) bool, since the last token

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

    for placed in here:
        bound = lambda hook, placed=placed: lambda *given: hook(*given, placed)
        declared = placed.declaration
        if isinstance(declared, ResidualEdit) and declared.at == "input":
            undo.callback(layer.register_forward_pre_hook(bound(on_input), with_kwargs=True).remove)
        elif isinstance(declared, ResidualEdit):
            target = layer if declared.at == "block" else layer.mlp
            undo.callback(target.register_forward_hook(bound(on_output)).remove)
        elif isinstance(declared, Reading) and declared.of == "block":
            undo.callback(layer.register_forward_hook(bound(on_output_reading)).remove)
        elif isinstance(declared, Reading) and declared.of == "input":
            undo.callback(layer.register_forward_pre_hook(bound(on_input_reading), with_kwargs=True).remove)


def _hook_attention(
    plan: Plan, undo: ExitStack, layer: Any, index: int, inside: list[Placed], own: _Configurations
) -> None:
    """This layer, and only touched layers, ask for our attention: a copy of their configuration names it."""
    attention = layer.self_attn
    may_wait = [p for p in inside if plan.later is not None and _may_wait(p)]
    waiting = plan.later.of(index, may_wait) if plan.later is not None and may_wait else None
    direct = plan.implementation == "sdpa" and _adds_nothing(attention)
    setattr(attention, CARRIES, Inside(plan, index, [p for p in inside if p not in may_wait], waiting, direct))
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
        RuntimeError: the model is already inside such a block; it can serve one run at a time.
    """
    refuse_if_busy(lvlm.model)
    plan = Plan(placed, sequences, step, lvlm.attention_implementation, later)
    with ExitStack() as undo:
        BUSY.add(id(lvlm.model))
        undo.callback(BUSY.discard, id(lvlm.model))

        def count(module: nn.Module, args: tuple, kwargs: dict) -> None:
            found = (kwargs.get("inputs_embeds"), kwargs.get("input_ids"), *args)
            fed = next(fed for fed in found if fed is not None).shape[1]
            cached = any(isinstance(value, Cache) for value in kwargs.values())
            sequences.advance(sequences.seen + fed if cached else fed)
            if later is not None:
                later.release()

        undo.callback(lvlm.decoder.register_forward_pre_hook(count, with_kwargs=True).remove)
        base = lvlm.model.base_model
        if hasattr(base, "rope_deltas"):  # Qwen keeps the last pass's; its owner may have a cache to go on with
            undo.callback(setattr, base, "rope_deltas", base.rope_deltas)
        own = _Configurations()
        for index, layer in enumerate(lvlm.layers):
            here = [p for p in placed if index in getattr(p.declaration, "layers", ())]
            inside = [p for p in here if _in_attention(p.declaration)]
            if inside:
                _hook_attention(plan, undo, layer, index, inside, own)
            _hook_layer(plan, undo, layer, index, here)
        yield plan


def _in_attention(declared: Declaration) -> bool:
    looks = isinstance(declared, Reading) and declared.of in IN_ATTENTION
    return looks or isinstance(declared, AttentionEdit | HeadEdit)


def _may_wait(placed: Placed) -> bool:
    """A reading of attention by a run's own detectors: no method asks for it while the run lasts."""
    declared = placed.declaration
    return isinstance(declared, Reading) and declared.of == "attention" and placed.method < 0
