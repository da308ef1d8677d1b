"""Decoders as weights: an ordinary checkpoint whose plain decoding is what the decoders did by hooks.

A decoder can be baked where it offers `baked(lvlm)`: parameter name -> new tensor, exact for every input.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AutoModelForImageTextToText, PreTrainedConfig

from ..chain import decoders_alone, name_of
from ..engine.declarations import Step
from ..engine.hooks import applied
from ..engine.plan import claimed
from ..engine.rows import arrange, sequences
from ..engine.run import complete, declare
from ..inputs.prepare import prepare
from ..inputs.prompts import DETAIL
from ..prefill.memo import remembered
from ..results import versions
from . import families
from .layout import Layout
from .output_weights import CannotBake

RECORD, CARD = "veridical.json", "README.md"
CLOSE, MOST_KL = 1e-5, 1e-3  # of 1 + |logit| in float32; in nats in 16 bit


@dataclass(frozen=True)
class Baked:
    """A checkpoint that was written and read back.

    changed: names of the tensors that were written. On a prompt with an image, at every position, between hooked source
    and checkpoint, error: the largest |Δ|/(1 + |logit|); kl: the largest KL in nats; flips: other likeliest tokens.
    """

    folder: Path
    changed: tuple[str, ...]
    error: float
    kl: float
    flips: int


def bake(
    lvlm: Layout, decoders: Any, folder: str | Path, inputs: Mapping[str, Tensor] | None = None
) -> Baked:
    """Write a checkpoint with the decoders in its weights, and read it back before success is reported.

    Args:
        decoders: names, "name:field=value" or instances, applied in order; each must be exact as weights.
        folder: empty or new. inputs: a prompt with an image, on which hooked source and checkpoint are compared; by
            default a scene of the embedded world.

    Raises:
        CannotBake: a decoder that no weights can carry, quantised, offloaded or shared weights, or a checkpoint that
            does not do what the hooks do. ValueError: no decoder. FileExistsError: the folder holds something.
    """
    chain, folder = decoders_alone(decoders, "veridical.bake", lvlm.name), Path(folder)
    chain = [one for one in chain if not getattr(one, "is_neutral", False)]
    check(lvlm, chain)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} holds something already: give --out a folder that is new or empty.")
    inputs = complete(lvlm, _scene(lvlm) if inputs is None else inputs)
    hooked = logits_of(lvlm, inputs, chain)
    source = {name: value.detach().clone() for name, value in lvlm.model.state_dict().items()}
    with changed(lvlm, chain) as names, _same_config(lvlm.model.config):
        folder.mkdir(parents=True, exist_ok=True)
        lvlm.model.save_pretrained(folder)
    if lvlm.processor is not None:
        lvlm.processor.save_pretrained(folder)
    again = Layout(_plain(folder, lvlm), lvlm.processor, name=str(folder))
    _only_these_differ(source, again.model.state_dict(), names)
    found = Baked(folder, tuple(sorted(names)), *distance(hooked, logits_of(again, inputs, [])))
    exact = lvlm.dtype in (torch.float32, torch.float64)
    if not (found.error <= CLOSE if exact else found.kl <= MOST_KL and not found.flips):
        raise CannotBake(
            f"the checkpoint in {folder} is not what the hooks do: logits differ by {found.error:.1e} of 1 + |logit|, "
            f"KL {found.kl:.1e}, {found.flips} likeliest tokens; allowed: "
            f"{f'{CLOSE:.0e}' if exact else f'KL {MOST_KL:.0e} and no other token'}. Do not use it."
        )
    _record(lvlm, chain, found)
    return found


def check(lvlm: Layout, chain: list[Any]) -> None:
    """Raise CannotBake for decoders and models that cannot be baked, ValueError without a decoder."""
    if not chain:
        raise ValueError("no decoder is to be baked, or each is at its neutral strength: name one, such as nullu.")
    for one in chain:
        if not callable(getattr(one, "baked", None)):
            raise CannotBake(
                f"{name_of(one)} cannot be baked: what it does depends on the input, and weights are the same for all. "
                "Exact as weights are nullu, and vhr and spin with fixed heads; run the others by veridical, or in "
                "transformers by veridical.mitigate."
            )
    if lvlm.quantization is not None:
        raise CannotBake(f"{lvlm.name} is quantised ({lvlm.quantization}): load it in 16 or 32 bit to bake it.")
    if any(value.device.type == "meta" for value in lvlm.model.parameters()):
        raise CannotBake(f"weights of {lvlm.name} are offloaded: load it whole, on one device or the CPU.")


@contextmanager
def changed(lvlm: Layout, chain: list[Any]) -> Iterator[set[str]]:
    """Within this block the model has the decoders in its weights; yields the changed parameters' names.

    Raises:
        CannotBake: a decoder that no weights can carry, or a changed weight that another part of the model shares.
    """
    parameters = dict(lvlm.model.named_parameters(remove_duplicate=False))
    kept: dict[str, Tensor] = {}
    try:
        for decoder in chain:
            for name, value in decoder.baked(lvlm).items():
                mine = parameters[name]
                for other, one in parameters.items():
                    if other != name and one.data_ptr() == mine.data_ptr():
                        raise CannotBake(f"{name} is shared with {other}, which would change too.")
                kept.setdefault(name, mine.detach().clone())
                mine.data.copy_(value)
        yield set(kept)
    finally:
        for name, value in kept.items():
            parameters[name].data.copy_(value)


@torch.no_grad()
def logits_of(
    lvlm: Layout, inputs: Mapping[str, Tensor], chain: list[Any]
) -> Float[Tensor, "position vocab"]:
    """Logits of every real position of prompts with the decoders' hooks in place."""
    with claimed(lvlm.model), remembered(False) as memo:
        arranged = arrange(declare(lvlm, inputs, chain, memo), inputs, lvlm.pad_token)
    with applied(lvlm, arranged.placed, sequences(lvlm, arranged), Step(ids=inputs["input_ids"])) as plan:
        where = families.direct_positions(lvlm.model, arranged.inputs)
        logits = lvlm.model(**arranged.inputs, **where, use_cache=False).logits
        plan.check()
    return logits[arranged.inputs["attention_mask"].bool().to(logits.device)]


def distance(
    one: Float[Tensor, "position vocab"], other: Float[Tensor, "position vocab"]
) -> tuple[float, float, int]:
    """The largest |Δ|/(1 + |logit|), the largest KL(one ‖ other) in nats, and how often the arg-max is another."""
    a, b = one.double().cpu(), other.double().cpu()
    p, q = a.log_softmax(-1), b.log_softmax(-1)
    kl = (p.exp() * (p - q)).sum(-1).max().clamp(min=0)
    return float(((a - b).abs() / (1 + a.abs())).max()), float(kl), int((a.argmax(-1) != b.argmax(-1)).sum())


# -- helpers -------------------------------------------------------------------------------------------------------
def _scene(lvlm: Layout) -> dict[str, Tensor]:
    from ...datasets.world import scene

    if lvlm.processor is None:
        raise ValueError(f"{lvlm.name} has no processor: give veridical.bake inputs, a prompt with an image.")
    return prepare(lvlm, [scene("test", 1).image], [DETAIL])


@contextmanager
def _same_config(config: Any) -> Iterator[None]:
    """Saving a model notes its class and dtype in its configuration; afterwards that is as it was."""
    parts = [config, *(one for one in vars(config).values() if isinstance(one, PreTrainedConfig))]
    held = [(one, dict(vars(one))) for one in parts]
    try:
        yield
    finally:
        for one, values in held:
            vars(one).clear()
            vars(one).update(values)


def _plain(folder: Path, lvlm: Layout) -> Any:
    """The checkpoint as transformers alone reads it."""
    read: Any = AutoModelForImageTextToText.from_pretrained(
        folder, dtype=lvlm.dtype, use_safetensors=True, attn_implementation=lvlm.attention_implementation
    )
    return read.to(lvlm.device).eval()


def _only_these_differ(source: Mapping[str, Tensor], found: Mapping[str, Tensor], names: set[str]) -> None:
    if set(source) != set(found):
        raise CannotBake(f"the checkpoint has other tensors than the model: {sorted(set(source) ^ set(found))[:3]}.")
    differ = {name for name, value in source.items() if not torch.equal(value.cpu(), found[name].cpu())}
    if more := sorted(differ - names):
        raise CannotBake(f"other tensors than those of the decoders differ in the checkpoint: {', '.join(more[:3])}.")


def _record(lvlm: Layout, chain: list[Any], found: Baked) -> None:
    """veridical.json, and the card."""
    decoders = [repr(one) for one in chain]
    record = {
        "source": lvlm.name, "revision": lvlm.revision, "decoders": decoders, "changed": list(found.changed),
        "error": found.error, "kl": found.kl, "flips": found.flips, "versions": versions(),
    }  # fmt: skip
    (found.folder / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    lines = "\n".join(f"- `{one}`" for one in decoders)
    (found.folder / CARD).write_text(CARD_TEXT.format(
        source=lvlm.name, lines=lines, count=len(found.changed), error=found.error, kl=found.kl,
        names="\n".join(f"- `{name}`" for name in found.changed),
    ), encoding="utf-8")  # fmt: skip


CARD_TEXT = """# {source}, with a method against hallucination in its weights

An ordinary checkpoint of its family, written by `veridical bake` from `{source}`. It needs no veridical: transformers
and servers load it as they load the source.

## What was done

These methods, in this order, are in the weights:

{lines}

{count} tensors differ from the source; all others are the same to the bit:

{names}

On a prompt with an image, logits of the source with the methods by hooks and of this checkpoint differ by
{error:.1e} of 1 + |logit| at most, KL {kl:.1e} nats.

## What cannot be baked

Weights are the same for every input, so that a method whose edit depends on the image, the prompt or the tokens so far
is not in them: contrasts with a second branch, edits of attention, heads chosen for each image, directions scaled by
the state at hand, gates, and procedures that call the model several times. Run those with veridical.

Detectors that were trained on the source may not fit this checkpoint: train them on it.
"""
