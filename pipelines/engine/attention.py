"""The one attention function that is registered: it carries out what is declared inside a layer's attention."""

from __future__ import annotations

from collections.abc import Sequence

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


def _edited(call: AttentionCall, out: Tensor, edits: list, plan: Plan) -> Tensor:
    queries = slice(None) if any(e.queries == "all" for e, _, _ in edits) else slice(-1, None)
    weights = call.scores(queries)
    for on in ("scores", "probabilities"):
        for edit, rows, method in edits:
            if edit.on == on:
                span = slice(-1, None) if edit.queries == "last" else slice(None)
                old = weights[rows]
                new = old.clone()
                new[:, :, span] = edit.apply(new[:, :, span], call.rows(rows))
                plan.watch(method, rows, old, new)
                weights = weights.index_copy(0, rows, new)
        if on == "scores":
            weights = softmax(weights)
    out = out.clone()
    out[:, queries] = call.mix(weights)
    return out


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
    if inside.direct and query.shape[2] == 1 and not dropout and kwargs.keys() <= UNUSED:
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
    here = [(p.declaration, plan.here(p).to(out.device), p.method) for p in placed]
    edits = [item for item in here if isinstance(item[0], AttentionEdit)]
    if edits:
        out = _edited(call, out, edits, plan)
    for edit, rows, method in here:
        if isinstance(edit, HeadEdit):
            old = out[rows]
            new = edit.apply(old, call.rows(rows))
            plan.watch(method, rows, old, new)
            out = out.index_copy(0, rows, new.to(out.dtype))
    for one, (reading, rows, _) in zip(placed, here, strict=True):
        if isinstance(reading, Reading) and reading.of == "attention":
            value = reading.keep(call if len(rows) == len(out) else call.rows(rows))
            plan.keep(one, call.layer, plan.every(value, one))
        elif isinstance(reading, Reading):
            span = call.producing if reading.queries == "last" else slice(None)
            plan.read(one, call.layer, out, span)
    return out


AttentionInterface.register(NAME, _attention)  # type: ignore[arg-type]
