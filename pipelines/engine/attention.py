"""The one attention function that is registered: it carries out what is declared inside a layer's attention."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .call import AttentionCall, softmax
from .declarations import AttentionEdit, HeadEdit, Reading
from .plan import Inside, Placed, Plan, call_of

NAME = "veridical"
UNUSED = frozenset(("cache_position", "position_ids", "sliding_window", "use_cache"))  # by transformers' sdpa function
CARRIES = "veridical_inside"  # a touched layer's attention carries what happens inside, under this name


def _first(call: AttentionCall, edit: AttentionEdit | HeadEdit) -> int:
    """The first query of the pass that an edit may change."""
    queries = call.query.shape[2]
    if isinstance(edit, AttentionEdit) and edit.queries == "last":
        return queries - 1
    return call.sequences.first_changed(edit.changes, queries)


def _edited(call: AttentionCall, out: Tensor, edits: list, plan: Plan) -> Tensor:
    """The heads' outputs with the attention of the queries that edits may change computed anew, and of these alone."""
    begins = [_first(call, edit) for edit, _, _, _ in edits]
    first, whole = min(begins), len(out)
    weights = call.scores(slice(first, None))
    for on in ("scores", "probabilities"):
        for begin, (edit, rows, method, concerned) in zip(begins, edits, strict=True):
            if edit.on == on:
                old = weights[:, :, begin - first :]
                old = old if len(rows) == whole else old[rows]
                new = edit.apply(old.clone(), concerned).to(weights.dtype)
                plan.watch(method, rows, old, new)
                if new.shape == weights.shape:
                    weights = new
                else:
                    weights = weights.clone()
                    weights[rows, :, begin - first :] = new
        if on == "scores":
            weights = softmax(weights)
    mixed = call.mix(weights)
    return mixed if mixed.shape == out.shape else torch.cat([out[:, :first], mixed], 1)


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float | None = None, dropout: float = 0.0, **kwargs: object,
) -> tuple[Tensor, None]:  # fmt: skip
    """The attention of the layers a method touches; every other layer keeps its own implementation."""
    inside: Inside | None = getattr(module, CARRIES, None)
    if inside is None:
        raise RuntimeError(
            "a layer calls veridical's attention outside veridical.generate. Either a run of another thread ended "
            "during this forward pass: repeat it; or the model was copied during a run: load it anew."
        )
    if attention_mask is not None and not isinstance(attention_mask, Tensor):
        raise ValueError(
            f"flex attention has a program for a mask ({type(attention_mask).__name__}); a method that "
            "edits or reads attention needs it as a tensor: load the model with attention='sdpa'"
        )
    plan, now, deferred = inside.plan, inside.placed, inside.deferred
    if plan.paused:
        now, deferred = (), None
    else:
        plan.carry(inside.count)
    handed = (inside, module, query, key, value, attention_mask, scaling, kwargs)
    if query.shape[2] == 1 and any(isinstance(one.declaration, AttentionEdit) for one in now):
        out = query.new_empty(len(query), 1, query.shape[1], value.shape[3])  # all of it is computed with the edits
    elif inside.direct and query.shape[2] == 1 and not dropout and kwargs.keys() <= UNUSED:
        out = scaled_dot_product_attention(query, key, value, attn_mask=attention_mask, scale=scaling).transpose(1, 2)
    elif plan.implementation == "sdpa":  # the very function that the layer would have called
        out = ALL_ATTENTION_FUNCTIONS["sdpa"](
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )[0]
    else:
        out = call_of(*handed).attend()
    if deferred is not None:
        if key.shape[2] >= plan.sequences.seen and kwargs.get("sliding_window") is None:  # every key is kept
            deferred.hold(handed)
        else:
            now = [*now, *deferred.readings]
    if now:
        out = _carried_out(call_of(*handed), out, now, plan)
    return out.contiguous(), None


def _carried_out(call: AttentionCall, out: Tensor, placed: Sequence[Placed], plan: Plan) -> Tensor:
    here = []
    for one in placed:  # which rows, and what these see of the layer
        rows = plan.here(one)
        concerned = call if len(rows) == len(out) else call.rows(rows)
        here.append((one.declaration, rows.to(out.device), one.method, concerned))
    edits = [item for item in here if isinstance(item[0], AttentionEdit)]
    if edits:
        out = _edited(call, out, edits, plan)
    for edit, rows, method, concerned in here:
        if isinstance(edit, HeadEdit):
            begin = _first(call, edit)
            old = out[:, begin:] if len(rows) == len(out) else out[rows, begin:]
            new = edit.apply(old, concerned)
            plan.watch(method, rows, old, new)
            out = out.clone()
            out[rows, begin:] = new.to(out.dtype)
    for one, (reading, _, _, concerned) in zip(placed, here, strict=True):
        if isinstance(reading, Reading) and reading.of == "attention":
            value = reading.keep(concerned)
            plan.keep(one, call.layer, plan.every(value, one))
        elif isinstance(reading, Reading):
            span = call.producing if reading.queries == "last" else slice(None)
            plan.read(one, call.layer, out, span)
    return out


AttentionInterface.register(NAME, _attention)  # type: ignore[arg-type]
