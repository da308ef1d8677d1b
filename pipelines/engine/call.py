"""One attention layer in one forward pass, computed only as far as it is asked for, and where the run stands."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

MANY = 16  # queries from which on a map is made with its keys first
LARGEST = (2**18, 2**22)  # numbers in a map that is made for its sums alone: on a processor, where it should stay in
# the cache, and on an accelerator, where it should be a few megabytes


@dataclass
class Sequences:
    """Where the image is in the rows' prompts, and how far the run has come.

    image, padding: over the prompt. sample: whose sample a row belongs to: branches and beams have several rows of one
    sample. seen: positions fed so far, this pass included. forced: tokens at the end of the pass that are scored rather
    than chosen (teacher forcing); 0 while generating. chosen: rows at the end that each chose a token: 1, or more where
    the queries of several steps are read together. real: which of the tokens of these rows come no later than an end;
    None where that is not known yet. shared: what one layer worked out of the above and the next can use, for this
    pass.
    """

    image: Bool[Tensor, "row position"]
    padding: Bool[Tensor, "row position"]
    sample: Int[Tensor, " row"]
    seen: int = 0
    forced: int = 0
    chosen: int = 1
    real: Bool[Tensor, "row token"] | None = None
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

    def rows(self, index: Int[Tensor, " row"]) -> Sequences:
        index = index.to(self.image.device)
        return replace(
            self, image=self.image[index], padding=self.padding[index], sample=self.sample[index],
            real=None if self.real is None else self.real[index],
        )  # fmt: skip

    def part(self, index: Int[Tensor, " row"], span: slice | None) -> Sequences:
        """The same as `rows`, for all layers of a pass once where the rows are neighbours."""
        if span is None:
            return self.rows(index)
        return self.once(("part", span.start, span.stop), lambda: self.rows(index))

    def at_queries(
        self, prompt: Bool[Tensor, "row position"], new: bool, queries: int
    ) -> Bool[Tensor, "row query"]:
        """A mask over the prompt at the positions of this pass; `new` behind the prompt."""
        behind = prompt.new_full((prompt.shape[0], max(0, self.seen - prompt.shape[1])), new)
        return torch.cat([prompt, behind], dim=1)[:, self.seen - queries : self.seen]

    def align(
        self, prompt: Bool[Tensor, "sample own"], image: Bool[Tensor, "sample own"]
    ) -> Bool[Tensor, "row position"]:
        """A mask over the prompts of a method's own inputs as one over the prompts of these rows.

        image: those inputs' image mask. A branch's prompt may be longer or shorter: what comes up
        to the last image token is aligned at that token, what follows it at the right edge.
        """
        own, theirs = _last(image.to(self.sample.device))[self.sample], _last(self.image)
        wanted, size = prompt.to(self.sample.device)[self.sample], self.image.shape[1]
        place = torch.arange(size, device=self.sample.device)[None]
        before = (place <= theirs) & (theirs >= 0)
        source = torch.where(before, place - theirs + own, place - size + wanted.shape[1])
        known = (source >= 0) & (before | (source > own))
        return wanted.gather(1, source.clamp(0, wanted.shape[1] - 1)) & known

    def by_position(self, mask: Bool[Tensor, "*any key"]) -> Bool[Tensor, "*any position"]:
        """A mask over a layer's keys as one over all positions so far: a sliding cache has let the first ones go, and a
        static one holds empty keys behind them."""
        return pad(mask[..., : self.seen], (max(0, self.seen - mask.shape[-1]), 0))

    def by_key(self, mask: Bool[Tensor, "*any position"], keys: int) -> Bool[Tensor, "*any key"]:
        """A mask over all positions so far as one over the keys of a layer that holds so many."""
        return pad(mask, (min(0, keys - self.seen), max(0, keys - self.seen)))

    def own_key(self, queries: int, keys: int) -> Bool[Tensor, "query key"]:
        """The key of each query's own position."""
        own = torch.zeros(queries, keys, dtype=torch.bool)
        own.diagonal(min(self.seen, keys) - queries).fill_(True)
        return own

    def first_changed(self, changes: str, queries: int) -> int:
        """The first query row of this pass that an edit with these `changes` may concern; the last if none."""
        before, prompt = self.seen - queries, self.image.shape[1]
        if changes == "every" or queries == 1 or before >= prompt:
            return 0
        if changes == "producing":
            first = prompt - 1
        else:  # behind the image, in the row where that begins first
            first = self.once("behind image", lambda: int((_last(self.image) + 1).min()))
        return min(max(0, first - before), queries - 1)

    def prompt(self, queries: int) -> slice:
        """The query rows of this pass that belong to the prompts: all, none, or those before the forced tokens."""
        return slice(0, max(0, min(queries, self.image.shape[1] - (self.seen - queries))))

    def producing(self, queries: int) -> slice:
        """The query rows whose output chooses a token: the last, or those before each forced token."""
        end = queries - 1 if self.forced else queries
        return slice(end - (self.forced or self.chosen), end)


def softmax(scores: Float[Tensor, "*any key"]) -> Float[Tensor, "*any key"]:
    """Over the last dimension, in float32 or better, in the scores' dtype."""
    return scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(scores.dtype)


def _neighbours(index: Int[Tensor, " row"]) -> slice | None:
    """The rows as a slice, where they follow each other and are known without waiting for an accelerator."""
    if index.device.type != "cpu" or not len(index) or not bool((index.diff() == 1).all()):
        return None
    return slice(int(index[0]), int(index[-1]) + 1)


def _last(mask: Bool[Tensor, "row position"]) -> Int[Tensor, "row 1"]:
    """The place of the last True, -1 without one."""
    place = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    return (mask * place).amax(1, keepdim=True) - 1


@dataclass(frozen=True, eq=False)
class LayerCall:
    """What an edit of the residual stream knows about the pass: which layer, and whose rows these are."""

    layer: int
    sequences: Sequences

    def of(self, values: Shaped[Tensor, "sample ..."], like: Tensor) -> Shaped[Tensor, "row ..."]:
        """One entry per sample as one per row, on the device of `like`."""
        return values.to(like.device)[self.sequences.sample.to(like.device)]


@dataclass(frozen=True, eq=False)
class AttentionCall(LayerCall):
    """What an edit or a reading sees of one attention layer.

    mask: what transformers passes: None, additive or bool (row, 1, query, key), or 2-D padding (row, key).
    """

    query: Float[Tensor, "row head query head_dim"]
    key: Float[Tensor, "row kv_head key head_dim"]
    value: Float[Tensor, "row kv_head key head_dim"]
    mask: Tensor | None
    scaling: float
    softcap: float | None = None
    window: int | None = None
    causal: bool = True

    def rows(self, index: Int[Tensor, " row"]) -> AttentionCall:
        """The same of some rows: views where they are neighbours, for keys and values are what a step reads most of."""
        some = index.to(self.query.device) if (span := _neighbours(index)) is None else span
        mask = self.mask if self.mask is None or self.mask.shape[0] == 1 else self.mask[some]
        return replace(
            self, query=self.query[some], key=self.key[some], value=self.value[some], mask=mask,
            sequences=self.sequences.part(index, span),
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
    def real(self) -> Float[Tensor, "row query"]:
        """1 for producing queries whose tokens come no later than an end, 0 for what follows it."""
        if self.sequences.real is not None:
            return self.sequences.real.to(self.query.device).float()
        count = len(range(*self.producing.indices(self.query.shape[2])))
        return torch.ones(len(self.query), count, device=self.query.device)

    def columns(self, prompt: Bool[Tensor, "row position"]) -> Bool[Tensor, "row key"]:
        """A mask over the prompt as one over keys; also right for sliding caches."""
        keys, seen = self.key.shape[2], self.sequences.seen
        out = prompt.new_zeros(prompt.shape[0], max(seen, keys, prompt.shape[1]))
        out[:, : prompt.shape[1]] = prompt
        out = out[:, seen - keys : seen] if seen > keys else out[:, :keys]
        return out.to(self.query.device)

    @cached_property
    def image(self) -> Bool[Tensor, "row key"]:
        """Which keys are image tokens."""
        key = ("image", self.key.shape[2], self.query.device)
        return self.sequences.once(key, lambda: self.columns(self.sequences.image))

    @cached_property
    def generated(self) -> Bool[Tensor, "row key"]:
        """Which keys come after the prompt."""
        new = torch.ones_like(self.sequences.image[:, :1]).expand(-1, self.sequences.seen).clone()
        new[:, : self.sequences.image.shape[1]] = False
        return self.columns(new)

    def visible(self, queries: slice) -> Tensor | None:
        """What these queries may attend to, as a mask that broadcasts to (row, head, query, key)."""
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

    def scores(self, queries: slice = slice(None)) -> Float[Tensor, "row head query key"]:
        """Masked attention scores of these queries."""
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

    def probabilities(self, queries: slice = slice(None)) -> Float[Tensor, "row head query key"]:
        """Attention after the softmax, in the query's dtype."""
        return softmax(self.scores(queries))

    def maps(self, queries: slice = slice(None)) -> Iterator[tuple[tuple[slice, slice], Tensor]]:
        """Attention of these queries in float32, a few rows at a time: which, and their map, keys first.

        A map is (row, key-value head, key, query), the queries of a group's first head before those of its second. For
        many queries in float32 it is made in this order, in which a processor does it in less time, and it is never
        larger than LARGEST numbers where rows, and the key-value heads of a row, can be taken apart. "Which" is a
        slice of the rows and one of the key-value heads.
        """
        count, heads = len(range(*queries.indices(self.query.shape[2]))), self.key.shape[1]
        size = max(1, count * self.groups * self.key.shape[2])  # of a key-value head of one row
        pieces = max(1, LARGEST[self.query.device.type != "cpu"] // size)
        some, many = min(heads, pieces), max(1, pieces // heads)
        for first in range(0, len(self.query), many):
            for head in range(0, heads, some):
                here = slice(first, first + many), slice(head, head + some)
                yield here, (self if many >= len(self.query) and some == heads else self._part(*here))._map(queries)

    def _part(self, here: slice, heads: slice) -> AttentionCall:
        mask = self.mask if self.mask is None or self.mask.shape[0] == 1 else self.mask[here]
        asking = slice(heads.start * self.groups, heads.stop * self.groups)
        return replace(
            self, query=self.query[here, asking], key=self.key[here, heads], value=self.value[here, heads], mask=mask
        )

    def _map(self, queries: slice) -> Float[Tensor, "row kv_head key group_query"]:
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

    def sums(
        self, columns: Float[Tensor, "row key column"], queries: slice = slice(None)
    ) -> Float[Tensor, "row query head column"]:
        """Attention of these queries added up over keys, once for each column of weights."""
        heads = self.key.shape[1]
        make = lambda: (columns, columns.mT[:, None].expand(-1, heads, -1, -1).contiguous())
        _, sides = self.sequences.once(("sides", id(columns)), make)  # the columns are kept for their id's sake
        found = self.joined([(here, sides[here] @ part) for here, part in self.maps(queries)])
        return found.unflatten(3, (self.groups, -1)).permute(0, 4, 1, 3, 2).flatten(2, 3)

    def joined(self, parts: Sequence[tuple[tuple[slice, slice], Tensor]]) -> Shaped[Tensor, "row kv_head ..."]:
        """What was worked out of every map, put together."""
        if len(parts) == 1:
            return parts[0][1]
        out = parts[0][1].new_empty(len(self.query), self.key.shape[1], *parts[0][1].shape[2:])
        for here, value in parts:
            out[here] = value
        return out

    def mix(self, probabilities: Float[Tensor, "row head query key"]) -> Float[Tensor, "row query head head_dim"]:
        """Head outputs for given probabilities."""
        value = self.value.repeat_interleave(self.groups, dim=1) if self.groups > 1 else self.value
        return (probabilities @ value).transpose(1, 2)

    def attend(self) -> Float[Tensor, "row query head head_dim"]:
        """Head outputs through sdpa."""
        if self.softcap is not None:
            return self.mix(self.probabilities())
        repeat = lambda x: x.repeat_interleave(self.groups, dim=1) if self.groups > 1 else x
        mask = self.visible(slice(None))
        return scaled_dot_product_attention(
            self.query, repeat(self.key), repeat(self.value), attn_mask=mask, scale=self.scaling
        ).transpose(1, 2)
