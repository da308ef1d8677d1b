"""Checks of where things are in a model: image positions, final norm and head, attention rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..engine.declarations import Reading
from ..engine.run import prefill
from ..lvlm import LVLM
from ..model import families
from .case import MOVED, Case, Finding, distance, tolerance


@torch.no_grad()
def embedded(lvlm: LVLM, inputs: Mapping[str, Tensor]) -> Float[Tensor, "row position hidden"]:
    """What enters the language model: word embeddings, and the image's features in their places."""
    seen: list[Tensor] = []

    def record(module: Any, args: tuple, kwargs: dict) -> None:
        seen.append(kwargs["inputs_embeds"])

    hook = lvlm.decoder.register_forward_pre_hook(record, with_kwargs=True)
    try:
        lvlm.model(**_unlabelled(inputs), use_cache=False, logits_to_keep=1)
    finally:
        hook.remove()
    return seen[0]


def image_mask(case: Case) -> Iterator[Finding]:
    """Our image mask, against the processor's tokens, the places that got features, and those that pixels move."""
    lvlm, inputs = case.lvlm, case.inputs
    real_token = inputs["attention_mask"].bool()
    mask = lvlm.image_mask(inputs["input_ids"]) & real_token
    counts = mask.sum(1).tolist()
    where = f"{' and '.join(map(str, counts))} image positions of {inputs['input_ids'].shape[1]}"
    yield Finding("image positions in every prompt", float(min(counts)), 1, where, at_least=True)
    token = _processor_token(lvlm)
    if token is not None:
        theirs = ((inputs["input_ids"] == token) & real_token).sum(1)
        wrong = int((theirs - mask.sum(1)).abs().max())
        yield Finding("as many as the processor put in", float(wrong), 0, f"its image token is {token}")
    states = embedded(lvlm, inputs)
    table = lvlm.model.get_input_embeddings()
    ids = inputs["input_ids"].clamp(max=table.weight.shape[0] - 1)
    replaced = ((states - table(ids).to(states)) != 0).any(-1) & real_token
    wrong = int((replaced != mask).sum())
    yield Finding("they are where the model puts the image", float(wrong), 0, "positions that differ")
    first, other = embedded(lvlm, case.alone[0]), embedded(lvlm, case.inverted)
    mask = lvlm.image_mask(case.alone[0]["input_ids"])
    moved = (first != other).any(-1) if first.shape == other.shape else torch.ones_like(mask)
    yield Finding("other pixels change nothing elsewhere", float((moved & ~mask).sum()), 0, "positions that differ")
    yield Finding("other pixels change image positions", float((moved & mask).sum()), 1, "positions", at_least=True)
    error = distance(case.logits(inputs=case.inverted)[0, :1], case.plain[:1])
    yield Finding("other pixels change the logits", error, MOVED, "the image's negative", at_least=True)


def _processor_token(lvlm: LVLM) -> int | None:
    """Id of the token with which the processor fills image positions; not of the placeholder in a prompt, which it
    replaces (Gemma 3's `image_token`)."""
    tokenizer = lvlm.processor.tokenizer
    for source in (tokenizer, lvlm.processor):
        if getattr(source, "image_token_id", None) is not None:
            return source.image_token_id
    name = getattr(lvlm.processor, "image_token", None)
    return None if name is None else tokenizer.convert_tokens_to_ids(str(name))


@torch.no_grad()
def unembed(case: Case) -> Finding:
    """Final norm and head of the last block's output are the model's logits, with an image in the prompt."""
    seen: list[Tensor] = []
    hook = case.lvlm.layers[-1].register_forward_hook(
        lambda module, args, output: seen.append(output if isinstance(output, Tensor) else output[0])
    )
    try:
        logits = case.lvlm.model(**_unlabelled(case.alone[0]), use_cache=False).logits
    finally:
        hook.remove()
    error = distance(case.lvlm.unembed(seen[0]), logits)
    return Finding("unembed(last block) = logits", error, tolerance(case.lvlm.dtype, same=True))


@torch.no_grad()
def readings(case: Case) -> Finding:
    """The last prompt row's attention, as readings see it, is that of eager attention, layer by layer."""
    lvlm, inputs = case.lvlm, case.alone[0]
    layers = range(len(lvlm.layers))
    row = Reading("checkup", layers, keep=lambda call: call.probabilities(slice(-1, None))[:, :, 0].float())
    ours = prefill(lvlm, inputs, [row]).by_layer("checkup")
    theirs = eager_rows(lvlm, inputs)
    errors = {layer: (ours[layer].cpu() - theirs[layer].cpu()).abs().max().item() for layer in layers}
    worst = max(errors, key=lambda layer: errors[layer])
    return Finding("readings = eager attentions", errors[worst], tolerance(lvlm.dtype), f"most in layer {worst}")


@torch.no_grad()
def eager_rows(lvlm: LVLM, inputs: Mapping[str, Tensor]) -> dict[int, Float[Tensor, "row head key"]]:
    """layer -> the last row of its attention probabilities, by transformers' own eager attention.

    Raises:
        RuntimeError: a layer hands out no probabilities under eager attention.
    """
    found: dict[int, Tensor] = {}

    def keeper(layer: int) -> Callable:
        def keep(module: Any, args: tuple, output: Any) -> None:
            weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
            if weights is None:
                raise RuntimeError(f"layer {layer} hands out no probabilities under eager attention")
            found[layer] = weights[:, :, -1].float()

        return keep

    hooks = [layer.self_attn.register_forward_hook(keeper(number)) for number, layer in enumerate(lvlm.layers)]
    try:
        with eager(lvlm):
            where = families.direct_positions(lvlm.model, inputs)
            lvlm.model(**_unlabelled(inputs), **where, use_cache=False, logits_to_keep=1)
    finally:
        for hook in hooks:
            hook.remove()
    return found


@contextmanager
def eager(lvlm: LVLM) -> Iterator[None]:
    """The language model with eager attention, for this block alone."""
    before = lvlm.attention_implementation
    lvlm.decoder.set_attn_implementation("eager")
    try:
        yield
    finally:
        lvlm.decoder.set_attn_implementation(before)


def _unlabelled(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in inputs.items() if name != "labels"}
