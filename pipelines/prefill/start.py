"""Passes over prompts: what methods read before they decode, and what a run starts from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from ..engine.declarations import Declaration, Reading, Step
from ..engine.hooks import Placed, applied
from ..engine.rows import Arrangement, arrange, sequences
from ..inputs.complete import complete
from ..model import families
from ..model.layout import Layout
from . import caches
from .growing import growing
from .images import IMAGES, PIXELS, TEXT, encoded, repeated
from .late import LateBranch, MainPrompts
from .memo import Memo, ReadPrompt, cache_argument, current, kept

APART = ("heads", "input", "block")  # readings of rows, which other rows' lengths do not touch


@dataclass(frozen=True)
class Start:
    """What the decoding loop starts from.

    inputs: arguments of generate. seen: positions of the prompt that its cache holds already. changed: method -> rows
    of the run in which it changed anything while that cache was computed.
    """

    inputs: dict[str, Any]
    seen: int = 0
    changed: Mapping[int, Tensor] = field(default_factory=dict)


def separately(lvlm: Layout, inputs: Mapping[str, Tensor], generation: Mapping[str, Any], config: Any) -> bool:
    """Whether a run's prompts can be computed apart from the decoding loop.

    No beams, no cache of the caller's or of fixed size, and no outputs of the whole first pass.
    """
    if not apart(lvlm, inputs) or any(generation.get(name) is not None for name in ("cache", "past_key_values")):
        return False
    fixed = (config.cache_implementation, config.prefill_chunk_size)
    whole = config.output_attentions or config.output_hidden_states
    return bool((config.num_beams or 1) == 1 and config.use_cache and fixed == (None, None) and not whole)


def begin(lvlm: Layout, arranged: Arrangement, memo: Memo, beams: int) -> Start:
    """The cheapest start of a run: the prompts' joined cache, or encoded images, or the inputs as they are."""
    if beams > 1 or _in_tower(arranged):
        return Start(arranged.inputs)
    inputs = {name: value for name, value in arranged.inputs.items() if name in TEXT}
    reads = [p.declaration for p in arranged.placed if isinstance(p.declaration, Reading)]
    if memo.separately and all(reading.queries == "last" for reading in reads):
        found = caches.prompts(lvlm, arranged, memo)
        if found is not None:
            rows = len(arranged.names) * arranged.batch
            changed = {m: torch.cat([f, f.new_zeros(rows - len(f))]) for m, f in found.changed.items()}
            seen = inputs["input_ids"].shape[1] - found.left
            return Start({**inputs, **cache_argument(lvlm, found.cache)}, seen, changed)
    every = [*arranged.blocks, *arranged.late.values()]
    images = encoded(lvlm, arranged.blocks, memo) if repeated(every, memo) else None
    own = cache_argument(lvlm, growing()) if memo.separately else {}
    return Start({**(arranged.inputs if images is None else {**inputs, **images}), **own})


def late_branches(lvlm: Layout, arranged: Arrangement, memo: Memo, begun: Start) -> dict[str, LateBranch]:
    """The branches of a run that are read late.

    One with the main rows' own images goes on from their prompts, where these are read as the plain model reads them.
    """
    rows = {name: value[: arranged.batch] for name, value in arranged.inputs.items() if name in TEXT}
    cache = next((value for value in begun.inputs.values() if isinstance(value, Cache)), None)
    plain = all(isinstance(p.declaration, Reading) or not _reaches_main(p, arranged.batch) for p in arranged.placed)
    main = MainPrompts(rows, cache) if cache is not None and plain else None
    own = arranged.blocks[0].get(PIXELS)
    return {
        name: LateBranch(lvlm, inputs, memo, main if own is not None and inputs.get(PIXELS) is own else None)
        for name, inputs in arranged.late.items()
    }


def _reaches_main(placed: Placed, batch: int) -> bool:
    return bool((placed.rows < batch).any())


def _in_tower(arranged: Arrangement) -> bool:
    """Whether images are encoded with edits in place, image by image: then none is encoded elsewhere."""
    return any(p.images is not None for p in arranged.placed)


def apart(lvlm: Layout, inputs: Mapping[str, Tensor]) -> bool:
    """Whether positions of a prompt can be computed in several passes: text is counted from 0, all keys are kept."""
    own, base = families.family(lvlm.model), lvlm.model.base_model
    if hasattr(base, "get_rope_index") or own.generates or own.needs_image:
        return False
    kinds = getattr(lvlm.text_config, "layer_types", None) or ()
    return all(kind == "full_attention" for kind in kinds) and inputs.keys() <= {*TEXT, *IMAGES}


@torch.no_grad()
def prefill(
    lvlm: Layout, inputs: Mapping[str, Tensor], declarations: Sequence[Declaration], final: bool = False
) -> Step:
    """One pass over the prompt, for methods that decide something before they decode.

    Returns the step with its readings and, per branch, the logits of the last position, (batch, vocab).
    final: the edits leave the main rows as the run will have them, so that it need not compute them again.
    """
    inputs = complete(lvlm, inputs)
    arranged = arrange([(d, -1) for d in declarations], inputs, lvlm.pad_token)
    if _separable(arranged) and not families.family(lvlm.model).needs_image:
        return _block_by_block(lvlm, arranged)
    edits = any(not isinstance(p.declaration, Reading) for p in arranged.placed)
    step = Step(ids=inputs["input_ids"])
    logits = _pass(lvlm, arranged, step, reuse=final or not edits, edited=edits)
    step.branches = dict(zip(arranged.names, logits.chunk(len(arranged.names)), strict=True))
    return step


def _separable(arranged: Arrangement) -> bool:
    """Whether the blocks differ in length and are only read, row by row."""
    widths = {block["input_ids"].shape[1] for block in arranged.blocks}
    reads = [p.declaration for p in arranged.placed]
    return len(widths) > 1 and all(
        isinstance(r, Reading) and r.of in APART and r.queries == "last" for r in reads
    )


def _block_by_block(lvlm: Layout, arranged: Arrangement) -> Step:
    """The same as one pass over all blocks, each over its own length."""
    whole = Step(ids=arranged.blocks[0]["input_ids"])
    branches: dict[str, Tensor] = {}
    parts: dict[str, dict[int, list[Tensor]]] = {}
    for k, (name, block) in enumerate(zip(arranged.names, arranged.blocks, strict=True)):
        placed = [p.declaration for p in arranged.placed if bool((p.rows // arranged.batch == k).any())]
        mine = [replace(reading, branch=None) for reading in placed if isinstance(reading, Reading)]
        own = arrange([(reading, -1) for reading in mine], block, lvlm.pad_token)
        step = Step(ids=block["input_ids"])
        branches[name] = _pass(lvlm, own, step, reuse=k == 0, edited=False)
        for reading, layers in step.readings.items():
            for layer, value in layers.items():
                parts.setdefault(reading, {}).setdefault(layer, []).append(value)
    whole.branches = branches
    whole.readings = {name: {k: torch.cat(v) for k, v in layers.items()} for name, layers in parts.items()}
    return whole


def _pass(lvlm: Layout, arranged: Arrangement, step: Step, reuse: bool, edited: bool) -> Tensor:
    """One pass over all blocks; the last position's logits. reuse: the run may go on from what it computes."""
    memo = current()
    keep = reuse and memo is not None and memo.separately
    with applied(lvlm, arranged.placed, sequences(lvlm, arranged), step) as plan:
        images = None if _in_tower(arranged) else encoded(lvlm, arranged.blocks, memo)
        where = families.direct_positions(lvlm.model, arranged.inputs)
        inputs = arranged.inputs if images is None else {name: arranged.inputs[name] for name in TEXT} | images
        output = lvlm.model(**inputs, **where, use_cache=keep, logits_to_keep=1)
        plan.check()
    if keep and memo is not None and (layers := kept(output)) is not None:
        batch, width = arranged.blocks[0]["input_ids"].shape
        mine = [(keys[:batch, :, -width:], values[:batch, :, -width:]) for keys, values in layers]
        methods = frozenset([memo.method]) if edited else frozenset()
        memo.prompt = ReadPrompt(arranged.blocks[0]["input_ids"], mine, methods)
    return output.logits[:, -1].to(lvlm.device)
