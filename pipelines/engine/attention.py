"""One attention layer in one forward pass, computed only as far as somebody asks; and the one registered function."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .declarations import AttentionEdit, HeadEdit, Reading

if TYPE_CHECKING:
    from .hooks import Inside, Placed, Plan

NAME = "veridical"
MANY = 16  # queries from which on a map is made with its keys first
LARGEST = (2**18, 2**25)  # numbers in a map that is made for its sums alone: on a processor, where it should stay in
# the cache, and on an accelerator
UNUSED = frozenset(("cache_position", "position_ids", "sliding_window", "use_cache"))  # by transformers' sdpa function
CARRIES = "veridical_inside"  # a touched layer's attention carries what happens inside, under this name


@dataclass
class Sequences:
    """Where the image is in the rows' prompts, and how far the run has come.

    image, padding: (row, position) bool over the prompt. sample: (row,), whose sample a row belongs to: branches and
    beams have several rows of one sample. seen: positions fed so far, this pass included. given: tokens at the
    end of the pass that are scored rather than chosen (teacher forcing); 0 while generating. chosen: rows at the end
    that each chose a token: 1, or more where the queries of several steps are read together. real: (row, token) bool,
    which of the tokens of these rows come no later than an end; None where nobody can know. shared: what one layer
    worked out of the above and the next can use, for this pass.
    """

    image: Tensor
    padding: Tensor
    sample: Tensor
    seen: int = 0
    given: int = 0
    chosen: int = 1
    real: Tensor | None = None
    shared: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def advance(self, seen: int) -> None:
        """To the next pass."""
        self.seen = seen
        self.shared.clear()

    def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` returns, made by the first layer of a pass that asks."""
        if key not in self.shared:
            self.shared[key] = make()
        return self.shared[key]

    def rows(self, index: Tensor) -> Sequences:
        index = index.to(self.image.device)
        return replace(
            self, image=self.image[index], padding=self.padding[index], sample=self.sample[index],
            real=None if self.real is None else self.real[index],
        )  # fmt: skip

    def at_queries(self, prompt: Tensor, new: bool, queries: int) -> Tensor:
        """A (row, prompt position) mask at the positions of this pass: (row, query); `new` behind the prompt."""
        behind = prompt.new_full((prompt.shape[0], max(0, self.seen - prompt.shape[1])), new)
        return torch.cat([prompt, behind], dim=1)[:, self.seen - queries : self.seen]

    def align(self, prompt: Tensor, image: Tensor) -> Tensor:
        """A mask over the prompts of a method's own inputs for these rows: (sample, position) -> (row, position).

        image: (sample, position), those inputs' image mask. A branch's prompt may be longer or shorter: what comes up
        to the last image token is aligned at that token, what follows it at the right edge.
        """
        own, theirs = _last(image.to(self.sample.device))[self.sample], _last(self.image)
        wanted, size = prompt.to(self.sample.device)[self.sample], self.image.shape[1]
        place = torch.arange(size, device=self.sample.device)[None]
        before = (place <= theirs) & (theirs >= 0)
        source = torch.where(before, place - theirs + own, place - size + wanted.shape[1])
        known = (source >= 0) & (before | (source > own))
        return wanted.gather(1, source.clamp(0, wanted.shape[1] - 1)) & known

    def prompt(self, queries: int) -> slice:
        """The query rows of this pass that belong to the prompts: all, none, or those before the given tokens."""
        return slice(0, max(0, min(queries, self.image.shape[1] - (self.seen - queries))))

    def producing(self, queries: int) -> slice:
        """The query rows whose output chooses a token: the last, or those before each given token."""
        return slice(queries - self.chosen, queries) if not self.given else slice(queries - 1 - self.given, queries - 1)


def softmax(scores: Tensor) -> Tensor:
    """Over the last dimension, in float32 or better, in the scores' dtype."""
    return scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(scores.dtype)


def _last(mask: Tensor) -> Tensor:
    """(row, 1) place of the last True, -1 without one."""
    place = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    return (mask * place).amax(1, keepdim=True) - 1


@dataclass(frozen=True, eq=False)
class LayerCall:
    """What an edit of the residual stream knows about the pass: which layer, and whose rows these are."""

    layer: int
    sequences: Sequences

    def of(self, values: Tensor, like: Tensor) -> Tensor:
        """One entry per sample as one per row, on the device of `like`."""
        return values.to(like.device)[self.sequences.sample.to(like.device)]


@dataclass(frozen=True, eq=False)
class AttentionCall(LayerCall):
    """What an edit or a reading sees of one attention layer.

    query: (batch, head, query, head_dim). key, value: (batch, key-value head, key, head_dim). mask: what transformers
    passes: None, additive or bool (batch, 1, query, key), or 2-D padding (batch, key).
    """

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    scaling: float
    softcap: float | None = None
    window: int | None = None
    causal: bool = True

    def rows(self, index: Tensor) -> AttentionCall:
        index = index.to(self.query.device)
        mask = self.mask if self.mask is None or self.mask.shape[0] == 1 else self.mask[index]
        return replace(
            self, query=self.query[index], key=self.key[index], value=self.value[index], mask=mask,
            sequences=self.sequences.rows(index),
        )  # fmt: skip

    @property
    def groups(self) -> int:
        """Query heads per key-value head."""
        return self.query.shape[1] // self.key.shape[1]

    @property
    def producing(self) -> slice:
        """The query rows that produce tokens."""
        return self.sequences.producing(self.query.shape[2])

    @cached_property
    def real(self) -> Tensor:
        """(batch, producing row) float: 1 for rows whose tokens come no later than an end, 0 for what follows it."""
        if self.sequences.real is not None:
            return self.sequences.real.to(self.query.device).float()
        count = len(range(*self.producing.indices(self.query.shape[2])))
        return torch.ones(len(self.query), count, device=self.query.device)

    def columns(self, prompt: Tensor) -> Tensor:
        """A (batch, prompt position) bool mask as one over keys: (batch, key); also right for sliding caches."""
        keys, seen = self.key.shape[2], self.sequences.seen
        out = prompt.new_zeros(prompt.shape[0], max(seen, keys, prompt.shape[1]))
        out[:, : prompt.shape[1]] = prompt
        out = out[:, seen - keys : seen] if seen > keys else out[:, :keys]
        return out.to(self.query.device)

    @cached_property
    def image(self) -> Tensor:
        """(batch, key) bool: which keys are image tokens."""
        key = ("image", self.key.shape[2], self.query.device)
        return self.sequences.once(key, lambda: self.columns(self.sequences.image))

    @cached_property
    def generated(self) -> Tensor:
        """(batch, key) bool: which keys come after the prompt."""
        new = torch.ones_like(self.sequences.image[:, :1]).expand(-1, self.sequences.seen).clone()
        new[:, : self.sequences.image.shape[1]] = False
        return self.columns(new)

    def visible(self, queries: slice) -> Tensor | None:
        """What the asked rows may look at, as a mask that broadcasts to (batch, head, query, key)."""
        total, keys, mask, device = self.query.shape[2], self.key.shape[2], self.mask, self.query.device
        if mask is None and (total == 1 or not self.causal):
            return None
        if mask is None:  # causal from the first key on; later keys are empty slots of a static cache
            i, j = torch.arange(total, device=device)[:, None], torch.arange(keys, device=device)
            allowed = (j <= i) if self.window is None else (j <= i) & (j > i - self.window)
            return allowed[None, None, queries]
        if mask.dim() == 2:  # flash attention: padding only
            i, j = torch.arange(keys - total, keys, device=device)[:, None], torch.arange(keys, device=device)
            mask = (j <= i)[None, None] & mask[:, None, None, -keys:].bool()
        return mask[:, :, queries, :keys]

    def scores(self, queries: slice = slice(None)) -> Tensor:
        """Masked attention scores of the asked rows: (batch, head, query, key)."""
        query = self.query[:, :, queries]
        if self.groups == 1:
            scores = (query @ self.key.transpose(2, 3)).mul_(self.scaling)
        else:  # heads of a group as further queries, so that no key is copied
            together = query.reshape(query.shape[0], self.key.shape[1], -1, query.shape[3])
            scores = (together @ self.key.transpose(2, 3)).mul_(self.scaling).view(*query.shape[:3], -1)
        if self.softcap is not None:
            scores = self.softcap * torch.tanh(scores / self.softcap)
        seen = self.visible(queries)
        if seen is None:
            return scores
        if seen.dtype == torch.bool:
            return scores.masked_fill_(~seen, torch.finfo(scores.dtype).min)
        return scores.add_(seen) if seen.dtype == scores.dtype else scores + seen

    def probabilities(self, queries: slice = slice(None)) -> Tensor:
        """Attention after the softmax, in the query's dtype: (batch, head, query, key)."""
        return softmax(self.scores(queries))

    def maps(self, queries: slice = slice(None)) -> Iterator[tuple[slice, Tensor]]:
        """Attention of the asked rows in float32, a few batch rows at a time: which, and their map, keys first.

        A map is (row, key-value head, key, query), the queries of a group's first head before those of its second. For
        many queries in float32 it is made in this order, in which a processor does it in less time, and it is never
        larger than LARGEST numbers where several batch rows can be told apart.
        """
        count = len(range(*queries.indices(self.query.shape[2])))
        many = max(1, LARGEST[self.query.device.type != "cpu"] // (count * self.query.shape[1] * self.key.shape[2]))
        for first in range(0, len(self.query), many):
            here = slice(first, first + many)
            yield here, (self if many >= len(self.query) else self._part(here))._map(queries)

    def _part(self, here: slice) -> AttentionCall:
        mask = self.mask if self.mask is None or self.mask.shape[0] == 1 else self.mask[here]
        return replace(self, query=self.query[here], key=self.key[here], value=self.value[here], mask=mask)

    def _map(self, queries: slice) -> Tensor:
        query = self.query[:, :, queries]
        rows, _, count, size = query.shape
        if query.dtype != torch.float32 or self.softcap is not None or count < MANY:
            kept = self.probabilities(queries).float()
            return kept.view(rows, self.key.shape[1], -1, kept.shape[-1]).transpose(2, 3)
        together = query.reshape(rows, self.key.shape[1], -1, size)  # as in `scores`
        scores, seen = self.key @ together.transpose(2, 3), self.visible(queries)
        if seen is None:
            return scores.mul_(self.scaling).softmax(2)
        seen, apart = seen.transpose(2, 3).contiguous()[:, :, :, None], scores.unflatten(3, (self.groups, count))
        if seen.dtype == torch.bool:
            apart.mul_(self.scaling).masked_fill_(~seen, torch.finfo(scores.dtype).min)
        else:
            torch.add(seen, apart, alpha=self.scaling, out=apart)
        return scores.softmax(2)

    def sums(self, columns: Tensor, queries: slice = slice(None)) -> Tensor:
        """Attention of the asked rows added up over keys: (batch, key, column) -> (batch, query, head, column)."""
        heads = self.key.shape[1]
        make = lambda: (columns, columns.mT[:, None].expand(-1, heads, -1, -1).contiguous())
        _, sides = self.sequences.once(("sides", id(columns)), make)  # the columns are kept for their id's sake
        parts = [sides[here] @ part for here, part in self.maps(queries)]  # row, key-value head, column, query
        found = parts[0] if len(parts) == 1 else torch.cat(parts)
        return found.unflatten(3, (self.groups, -1)).permute(0, 4, 1, 3, 2).flatten(2, 3)

    def mix(self, probabilities: Tensor) -> Tensor:
        """Head outputs for given probabilities: (batch, query, head, head_dim)."""
        value = self.value.repeat_interleave(self.groups, dim=1) if self.groups > 1 else self.value
        return (probabilities @ value).transpose(1, 2)

    def attend(self) -> Tensor:
        """Head outputs through sdpa: (batch, query, head, head_dim)."""
        if self.softcap is not None:
            return self.mix(self.probabilities())
        repeat = lambda x: x.repeat_interleave(self.groups, dim=1) if self.groups > 1 else x
        mask = self.visible(slice(None))
        return scaled_dot_product_attention(
            self.query, repeat(self.key), repeat(self.value), attn_mask=mask, scale=self.scaling
        ).transpose(1, 2)


Given = tuple["Inside", nn.Module, Tensor, Tensor, Tensor, Tensor | None, float | None, Mapping[str, Any]]


def call_of(
    inside: Inside, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None,
    scaling: float | None, more: Mapping[str, Any],
) -> AttentionCall:  # fmt: skip
    """What a layer handed to its attention function, as a call."""
    return AttentionCall(
        inside.layer, inside.plan.sequences, query, key, value, mask, scaling or query.shape[-1] ** -0.5,
        more.get("softcap"), more.get("sliding_window"), getattr(module, "is_causal", True),
    )  # fmt: skip


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
            "a layer asks for veridical's attention outside veridical.generate. Either a run of another thread ended "
            "during this forward pass: repeat it; or the model was copied during a run: load it anew."
        )
    inside.plan.carry(inside.count)
    if attention_mask is not None and not isinstance(attention_mask, Tensor):
        raise ValueError(
            f"flex attention says what a layer may see by a program ({type(attention_mask).__name__}); a method that "
            "edits or reads attention needs it as a tensor: load the model with attention='sdpa'"
        )
    plan, now, waiting = inside.plan, inside.placed, inside.waiting
    given = (inside, module, query, key, value, attention_mask, scaling, kwargs)
    if inside.direct and query.shape[2] == 1 and not dropout and kwargs.keys() <= UNUSED:
        out = scaled_dot_product_attention(query, key, value, attn_mask=attention_mask, scale=scaling).transpose(1, 2)
    elif plan.implementation == "sdpa":  # the very function that the layer would have called
        out = ALL_ATTENTION_FUNCTIONS["sdpa"](
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )[0]
    else:
        out = call_of(*given).attend()
    if waiting is not None:
        if key.shape[2] >= plan.sequences.seen and kwargs.get("sliding_window") is None:  # no key was let go
            waiting.wait(given)
        else:
            now = [*now, *waiting.readings]
    if now:
        out = _carried_out(call_of(*given), out, now, plan)
    return out.contiguous(), None


def _carried_out(call: AttentionCall, out: Tensor, placed: Sequence[Placed], plan: Plan) -> Tensor:
    here = [(p.declaration, p.rows.to(out.device), p.method) for p in placed]
    edits = [item for item in here if isinstance(item[0], AttentionEdit)]
    if edits:
        out = _edited(call, out, edits, plan)
    for edit, rows, method in here:
        if isinstance(edit, HeadEdit):
            old = out[rows]
            new = edit.apply(old, call.rows(rows))
            plan.watch(method, rows, old, new)
            out = out.index_copy(0, rows, new.to(out.dtype))
    for reading, rows, method in here:
        if isinstance(reading, Reading) and reading.of == "attention":
            value = reading.keep(call if len(rows) == len(out) else call.rows(rows))
            plan.keep(reading, call.layer, value, method)
        elif isinstance(reading, Reading):
            span = call.producing if reading.queries == "last" else slice(None)
            plan.keep(reading, call.layer, reading.keep(out[rows][:, span]), method)
    return out


AttentionInterface.register(NAME, _attention)  # type: ignore[arg-type]
