"""Puts declarations in place around forward passes and takes every one away again, whatever happens."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ..model.compiled import eager
from ..model.layout import Layout
from .attention import CARRIES, NAME
from .call import LayerCall, Sequences
from .declarations import AttentionEdit, Declaration, HeadEdit, Reading, ResidualEdit, Step
from .deferred_readings import DeferredReadings
from .plan import BUSY, Inside, Placed, Plan, claimed

IN_ATTENTION = ("attention", "heads")


def _hidden(output: Tensor | tuple) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def _replaced(output: Tensor | tuple, hidden: Tensor) -> Tensor | tuple:
    return hidden if isinstance(output, Tensor) else (hidden, *output[1:])


def _residual(plan: Plan, placed: Placed, layer: int, hidden: Tensor) -> Tensor:
    here, edit = plan.here(placed), placed.declaration
    rows = here.to(hidden.device)
    assert isinstance(edit, ResidualEdit)
    old = hidden[rows]
    new = edit.apply(old, LayerCall(layer, plan.sequences.rows(here))).to(hidden.dtype)
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
        plan.read(placed, index, hidden, span)

    def bound(hook: Callable, placed: Placed) -> Callable:
        def carried(*values: Any) -> Any:
            if plan.paused:
                return None
            plan.carry()
            return hook(*values, placed)

        plan.expected += 1
        return carried

    for placed in here:
        declared = placed.declaration
        if isinstance(declared, ResidualEdit) and declared.at == "input":
            undo.callback(layer.register_forward_pre_hook(bound(on_input, placed), with_kwargs=True).remove)
        elif isinstance(declared, ResidualEdit) and declared.at != "vision_mlp":
            target = layer if declared.at == "block" else layer.mlp
            undo.callback(target.register_forward_hook(bound(on_output, placed)).remove)
        elif isinstance(declared, Reading) and declared.of == "block":
            undo.callback(layer.register_forward_hook(bound(on_output_reading, placed)).remove)
        elif isinstance(declared, Reading) and declared.of == "input":
            undo.callback(layer.register_forward_pre_hook(bound(on_input_reading, placed), with_kwargs=True).remove)


def _hook_tower(plan: Plan, undo: ExitStack, layer: Any, index: int, here: Sequence[Placed]) -> None:
    """Edits of one layer of the vision tower, which sees every image once, before the first pass or within it."""

    def on_output(module: nn.Module, args: tuple, output: Tensor | tuple, placed: Placed) -> Tensor | tuple:
        if plan.paused:
            return output
        plan.enter()
        edit, (mine, total) = placed.declaration, placed.images or (placed.rows, 0)
        assert isinstance(edit, ResidualEdit)
        hidden = _hidden(output)
        if hidden.dim() != 3 or not total or len(hidden) % total:
            raise ValueError(
                f"an edit of the vision tower expects (image, token, hidden) of {total} images; layer {index} of "
                f"this tower has {tuple(hidden.shape)}."
            )
        times = len(hidden) // total  # beams may have repeated the images, one behind the other
        places = (mine[:, None].to(hidden.device) * times + torch.arange(times, device=hidden.device)).flatten()
        old = hidden[places]
        new = edit.apply(old, LayerCall(index, plan.sequences.rows(placed.rows))).to(hidden.dtype)
        plan.unseen.discard((id(placed), index))
        if bool((new != old).any()):
            rows = placed.rows
            plan.watch(placed.method, rows, torch.zeros(len(rows), 1), torch.ones(len(rows), 1))
        return _replaced(output, hidden.index_copy(0, places, new))

    for placed in here:
        plan.unseen.add((id(placed), index))
        hook = lambda module, args, output, placed=placed: on_output(module, args, output, placed)
        undo.callback(layer.mlp.register_forward_hook(hook).remove)


def _hook_attention(inside: Inside, undo: ExitStack, attention: Any, own: _Configurations) -> None:
    """This layer, and touched layers alone, call our attention: a copy of their configuration names it."""
    setattr(attention, CARRIES, inside)
    inside.plan.expected += inside.count
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
        self.copies: dict[int, tuple[Any, Any]] = {}  # the original is kept, so that its id is its own

    def get(self, original: Any) -> Any:
        if id(original) not in self.copies:
            own = copy.copy(original)
            own._attn_implementation = NAME
            self.copies[id(original)] = original, own
        return self.copies[id(original)][1]


@contextmanager
def applied(
    lvlm: Layout, placed: Sequence[Placed], sequences: Sequences, step: Step, deferred: DeferredReadings | None = None
) -> Iterator[Plan]:
    """Within this block the model's forward passes carry out what was declared.

    Raises:
        RuntimeError: the model is already inside such a block, or in a run of another thread; it can serve one run at
            a time.

    A run that declares nothing but branches and edits of logits needs no hook: its passes are left as they are,
    compiled or not.
    """
    plan = Plan(placed, sequences, step, lvlm.attention_implementation)
    with claimed(lvlm.model), ExitStack() as undo:
        BUSY.add(id(lvlm.model))
        undo.callback(BUSY.discard, id(lvlm.model))
        base = lvlm.model.base_model
        if stored := hasattr(base, "rope_deltas"):  # Qwen keeps the last pass's, and a caller's cache may need them
            undo.callback(setattr, base, "rope_deltas", base.rope_deltas)
        if placed or stored:
            plan.hooked = True
            undo.enter_context(eager(lvlm.model))
            _hook(plan, undo, lvlm, deferred)
        yield plan


def _hook(plan: Plan, undo: ExitStack, lvlm: Layout, deferred: DeferredReadings | None) -> None:
    """Put all that was declared in place, and watch over the decoder's passes."""

    def count(module: nn.Module, args: tuple, kwargs: dict) -> None:
        if plan.paused:
            return
        plan.begin()
        found = (kwargs.get("inputs_embeds"), kwargs.get("input_ids"), *args)
        fed = next(fed for fed in found if fed is not None).shape[1]
        cached = any(isinstance(value, Cache) for value in kwargs.values())
        plan.sequences.advance(plan.sequences.seen + fed if cached else fed)
        if deferred is not None:
            deferred.release()

    undo.callback(lvlm.decoder.register_forward_pre_hook(count, with_kwargs=True).remove)
    own = _Configurations()
    tower = [p for p in plan.placed if p.images is not None]
    if tower:
        for index, layer in enumerate(lvlm.vision_layers):
            _hook_tower(plan, undo, layer, index, [p for p in tower if index in getattr(p.declaration, "layers", ())])
    inner = [p for p in plan.placed if p.images is None]
    for index, layer in enumerate(lvlm.layers):
        here = [p for p in inner if index in getattr(p.declaration, "layers", ())]
        inside = [p for p in here if _in_attention(p.declaration)]
        if inside:
            later = [] if deferred is None else [p for p in inside if _deferrable(p)]
            held = deferred.of(index, later) if deferred is not None and later else None
            direct = plan.implementation == "sdpa" and _adds_nothing(layer.self_attn)
            now = [p for p in inside if p not in later]
            _hook_attention(Inside(plan, index, now, held, direct, len(inside)), undo, layer.self_attn, own)
        _hook_layer(plan, undo, layer, index, here)


def _in_attention(declared: Declaration) -> bool:
    reads = isinstance(declared, Reading) and declared.of in IN_ATTENTION
    return reads or isinstance(declared, AttentionEdit | HeadEdit)


def _deferrable(placed: Placed) -> bool:
    """Whether this is a reading of attention by a run's own detectors, which no method uses while the run lasts."""
    declared = placed.declaration
    return isinstance(declared, Reading) and declared.of == "attention" and placed.method < 0
