"""What a model would attend to after each of several next tokens: all are tried in one pass, with a cache of its own.

The tries of a row stand side by side behind its text, each at the next position, and none sees another. What a text's
own tokens attend to does not change when another is appended, so that their rows are kept like their keys.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn.functional import pad
from transformers import Cache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from ..inputs.rows import extended
from ..model import families
from ..model.compiled import eager
from ..model.layout import Inputs, Layout
from ..prefill.memo import cache_of
from .call import AttentionCall, Sequences
from .declarations import Branch, Declaration, Reading, Step
from .hooks import applied
from .plan import Placed
from .rows import arrange, chosen_of, sequences
from .run import prefill

MASKED = ("sdpa", "eager")  # attention that takes a mask of any shape


def twin(lvlm: Layout) -> Layout:
    """The same model with the same weights, not copied, in modules of its own: it can be asked during a run."""
    weights = {id(tensor): tensor for tensor in chain(lvlm.model.parameters(), lvlm.model.buffers())}
    with eager(lvlm.model):  # a compiled `forward` would be copied as it is, and call the model itself
        return replace(lvlm, model=copy.deepcopy(lvlm.model, weights))


def last_rows(count: int, call: AttentionCall) -> Float[Tensor, "batch query key"]:
    """Attention of the last `count` queries: the largest of the heads, each row divided by its sum."""
    total = call.query.shape[2]
    if count == 0:
        return call.key.new_zeros(call.key.shape[0], 0, call.key.shape[2], dtype=torch.float32)
    rows = call.scores(slice(total - count, total)).softmax(-1, dtype=torch.float32).amax(1)
    return rows / rows.sum(-1, keepdim=True)


@dataclass
class Seen:
    """What a twin has read: prompts, and texts behind them.

    place: the position of a token behind the text. rows: attention of the text's newest tokens in the last layer.
    """

    text: Int[Tensor, "row new"]
    cache: Cache
    place: Int[Tensor, " row"]
    rows: Float[Tensor, "row query key"]


@dataclass
class Tried:
    """Tokens that stand in the cache behind what was read. rows: with the try's own as the last."""

    tokens: Int[Tensor, "row try"]
    rows: Float[Tensor, "row try query key"]


class Lookahead:
    """Tries tokens in a twin of the model, while one run lasts.

    It follows the run: what was chosen of what it had tried stays in its cache. Where something else was chosen, it
    reads prompt and text anew.

    Args:
        lvlm: a `twin`. inputs: the prompts, complete. window: rows of attention at most, the try's own included.
    """

    def __init__(self, lvlm: Layout, inputs: Inputs, window: int) -> None:
        self.lvlm, self.inputs, self.window = lvlm, inputs, window
        self.batch, self.prompt = inputs["input_ids"].shape
        self.image = lvlm.image_mask(inputs["input_ids"])
        self.room: float = math.inf if lvlm.attention_implementation in MASKED else 0  # keys that a layer keeps
        self.seen: Seen | None = None
        self.tried: Tried | None = None

    @torch.no_grad()
    def __call__(
        self, new: Int[Tensor, "row new"], tries: Int[Tensor, "row try"]
    ) -> tuple[Float[Tensor, "row try query key"], Bool[Tensor, "row key"]] | None:
        """The last layer's newest rows of attention after each try (see `last_rows`), and which keys are the image.

        new: the texts so far; rows are the main rows of a run, beams included. None where a cache cannot say it: a
        layer looks back over a window that the text has outgrown, keeps a state in place of keys, or takes no mask
        (flash attention).
        """
        length = self.prompt + new.shape[1] + 1
        if length <= self.room and not self._follow(new):
            self._read(new)
        if length > self.room or self.seen is None:
            self.seen = self.tried = None
            return None
        self.tried = Tried(tries, self._attention(self.seen, tries))
        image = self.image.repeat_interleave(len(new) // self.batch, dim=0)
        return self.tried.rows, pad(image, (0, length - self.prompt))

    def _follow(self, new: Int[Tensor, "row new"]) -> bool:
        """Keep of every row's tries the one that was chosen. False: some row goes on with another token."""
        seen, tried = self.seen, self.tried
        if seen is None or tried is None or seen.text.shape[1] + 1 != new.shape[1]:
            return False
        row, at = chosen_of(seen.text, tried.tokens, new, self.batch)
        idle = (row < 0) & self._ended(new)
        row, at = torch.where(idle, torch.arange(len(row), device=row.device), row), at.masked_fill(idle, 0)
        if bool((row < 0).any()):
            return False
        _keep(seen.cache, row, at, tried.tokens.shape[1])
        rows = tried.rows[row, at]  # row query key
        rows = rows[:, max(0, rows.shape[1] + 1 - self.window) :]
        self.seen, self.tried = Seen(new, seen.cache, seen.place[row] + 1, rows), None
        return True

    def _ended(self, new: Int[Tensor, "row new"]) -> Bool[Tensor, " row"]:
        """Rows that go on with padding behind an end token, at which nobody looks."""
        ends, own = new.new_tensor(self.lvlm.end_tokens), getattr(self.lvlm.generation_config, "pad_token_id", None)
        fills = new.new_tensor([*self.lvlm.end_tokens, self.lvlm.pad_token] + [own] * (own is not None))
        return torch.isin(new[:, :-1], ends).any(1) & torch.isin(new[:, -1], fills)

    def _read(self, new: Int[Tensor, "row new"]) -> None:
        """One pass over prompts and texts, images included. Rows that have no text yet are read once per sample."""
        kind = families.appended(self.lvlm.model, "token_type_ids")
        beams = len(new) // self.batch
        blocks = new.unflatten(0, (self.batch, beams)).unbind(1)[: beams if new.shape[1] else 1]  # sample new, each
        first, *others = (extended(self.inputs, block, kind) for block in blocks)
        keep = partial(last_rows, min(new.shape[1], self.window - 1))
        reading = Reading("rows", [len(self.lvlm.layers) - 1], keep, branch="all")
        declared: list[Declaration] = [reading, *(Branch(str(number), other) for number, other in enumerate(others))]
        arranged = arrange([(one, -1) for one in declared], first, self.lvlm.pad_token)
        step, where = Step(), families.direct_positions(self.lvlm.model, arranged.inputs)
        rows = sequences(self.lvlm, arranged)
        with applied(self.lvlm, arranged.placed, rows, step) as plan, _watched(self.lvlm.decoder) as fed:
            self.lvlm.model(**arranged.inputs, **where, use_cache=True, logits_to_keep=1)
            plan.check()
        ids = arranged.inputs["input_ids"]
        self.seen = self.tried = None
        self.room = min(self.room, _room(fed.get("cache"), ids.shape[1]))
        if self.room:
            place = _last(fed.get("position_ids"), ids) + 1
            order = torch.arange(len(ids), device=ids.device).view(len(blocks), self.batch).T  # sample block
            order = order.expand(-1, beams).flatten()
            self.seen = Seen(
                new, _in_order(fed["cache"], order), place[order], step.latest("rows")[0].to(new.device)[order]
            )

    def _attention(self, seen: Seen, tries: Int[Tensor, "row try"]) -> Float[Tensor, "row try query key"]:
        """One pass over the tries alone."""
        rows, count, known = *tries.shape, seen.rows.shape[2]
        sample = torch.arange(self.batch, device=tries.device).repeat_interleave(rows // self.batch)
        real = self.inputs["attention_mask"].bool()[sample]
        where = Sequences(self.image[sample], ~real, sample, seen=known)
        every = torch.arange(rows, device=tries.device)
        reading, step = Reading("rows", [len(self.lvlm.layers) - 1], partial(last_rows, count)), Step()
        with applied(self.lvlm, [Placed(reading, every)], where, step) as plan:
            self.lvlm.decoder(
                input_ids=tries, attention_mask=_apart(real, known, count, self.lvlm.dtype), use_cache=True,
                position_ids=seen.place[:, None].expand(-1, count), **{_cache_name(self.lvlm.decoder): seen.cache},
            )  # fmt: skip
            plan.check()
        own = step.latest("rows")[0].to(tries.device)  # row try key·try
        own = torch.cat([own[..., :known], own[..., known:].diagonal(dim1=1, dim2=2)[..., None]], 2)
        before = pad(seen.rows, (0, 1))[:, None].expand(-1, count, -1, -1)  # no text has looked at its try
        return torch.cat([before, own[:, :, None]], 2)


def without_cache(
    lvlm: Layout, inputs: Inputs, new: Int[Tensor, "row new"], tried: Int[Tensor, "row candidate"],
    keep: Callable[[AttentionCall], Tensor],
) -> Shaped[Tensor, "row candidate ..."]:  # fmt: skip
    """What `keep` says of the last layer after every candidate, each from a pass over prompt and whole text."""
    batch = inputs["input_ids"].shape[0]
    texts = torch.cat([new[:, None].expand(-1, tried.shape[1], -1), tried[..., None]], 2)
    blocks = texts.unflatten(0, (batch, -1)).flatten(1, 2)  # row candidate new -> sample beam·candidate new
    kind = families.appended(lvlm.model, "token_type_ids")
    first, *others = (extended(inputs, blocks[:, block], kind) for block in range(blocks.shape[1]))
    reading = Reading("tried", [len(lvlm.layers) - 1], keep, branch="all")
    branches = [Branch(str(number), other) for number, other in enumerate(others)]
    found = prefill(lvlm, first, [reading, *branches]).latest("tried")[0]  # block·sample ...
    return found.unflatten(0, (-1, batch)).transpose(0, 1).flatten(0, 1).unflatten(0, tuple(tried.shape))


# -- helpers -------------------------------------------------------------------------------------------------------
def _apart(real: Bool[Tensor, "row prompt"], known: int, count: int, dtype: torch.dtype) -> Tensor:
    """Mask of `count` tries that see prompt, text and themselves, as it is added to scores: (row, 1, try, key·try)."""
    text = pad(real, (0, known - real.shape[1]), value=True)[:, None].expand(-1, count, -1)
    itself = torch.eye(count, dtype=torch.bool, device=real.device).expand(len(real), -1, -1)
    allowed = torch.cat([text, itself], 2)[:, None]
    return torch.zeros(allowed.shape, dtype=dtype, device=real.device).masked_fill_(~allowed, torch.finfo(dtype).min)


def _keep(cache: Any, row: Int[Tensor, " row"], at: Int[Tensor, " row"], count: int) -> None:
    """Of these rows, the text and one of the `count` tries behind it: in each layer row head key·try head_dim."""
    for layer in cache.layers:
        row, at, known = row.to(layer.keys.device), at.to(layer.keys.device), layer.keys.shape[2] - count
        every = torch.arange(len(row), device=row.device)
        stays = torch.equal(row, every)
        for name in ("keys", "values"):
            held = getattr(layer, name) if stays else getattr(layer, name)[row]
            held[:, :, known] = held[every, :, known + at]
            setattr(layer, name, held[:, :, : known + 1])


def _room(cache: Any, length: int) -> float:
    """How many keys every layer of a cache keeps and sees; 0 if after `length` tokens some layer has others."""
    layers = getattr(cache, "layers", None)
    if not layers:
        return 0
    for layer in layers:
        if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) or layer.get_seq_length() != length:
            return 0
        if layer.keys is None or layer.keys.shape[2] != length:
            return 0
    return min((layer.sliding_window for layer in layers if layer.is_sliding), default=math.inf)


def _in_order(cache: Cache, order: Tensor) -> Cache:
    """These rows of a cache, as one whose layers keep every key: no window slides as long as there is room."""
    held: Any = cache.layers
    return cache_of((one.keys[order.to(one.keys.device)], one.values[order.to(one.keys.device)]) for one in held)


def _last(position_ids: Tensor | None, ids: Int[Tensor, "row position"]) -> Int[Tensor, " row"]:
    """The last token's position: the largest of its axes if there are several (M-RoPE), counted if none is given."""
    if position_ids is None:
        return torch.full_like(ids[:, 0], ids.shape[1] - 1)
    largest = position_ids[-3:].amax(0) if position_ids.dim() == 3 else position_ids
    return largest[:, -1].expand(len(ids)).to(ids.device)


def _cache_name(decoder: Any) -> str:
    """What a decoder calls its cache: transformers has renamed it."""
    return "cache" if "cache" in inspect.signature(decoder.forward).parameters else "past_key_values"


@contextmanager
def _watched(decoder: Any) -> Iterator[dict[str, Any]]:
    """The `position_ids` that a decoder is called with here, and the `cache` that it returns."""
    found: dict[str, Any] = {}

    def on_input(module: Any, args: tuple, kwargs: dict) -> None:
        found["position_ids"] = kwargs.get("position_ids")

    def on_output(module: Any, args: tuple, output: Any) -> None:
        values = output.values() if isinstance(output, Mapping) else ()
        found["cache"] = next((value for value in values if isinstance(value, Cache)), None)

    hooks = [decoder.register_forward_pre_hook(on_input, with_kwargs=True), decoder.register_forward_hook(on_output)]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
