"""A family's model, two prompts for it, and what is compared between runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

import veridical
from veridical.pipelines.engine.declarations import LogitsEdit, Reading
from veridical.pipelines.engine.run import run

from ..contract.setting import Declares
from .models.tiny_families import FAMILIES, Family
from .models.tiny_prompts import batch, two_prompts

STEPS = 3
NEW_KIND = {"paligemma": 1}  # token_type_ids of generated tokens; 0 in every other family that has them


@dataclass
class Setting:
    """A model, two prompts of different lengths alone, and the two as one left-padded batch."""

    family: Family
    model: Any
    lvlm: veridical.LVLM
    prompts: list[dict[str, Tensor]]
    inputs: dict[str, Tensor]
    known: dict[str, Any] = field(default_factory=dict)

    @property
    def layers(self) -> range:
        return range(len(self.lvlm.layers))

    def generate(self, decoders: Any = (), inputs: Any = None, **options: Any) -> veridical.Generation:
        options = {"max_new_tokens": STEPS, "do_sample": False, **options}
        return veridical.generate(self.lvlm, self.inputs if inputs is None else inputs, decoders, **options)

    def logits(self, decoders: Any = (), inputs: Any = None, **options: Any) -> Tensor:
        """(batch, step, vocab) of what the choice was made from."""
        return self.generate(decoders, inputs, return_logits=True, **options).logits

    def plain(self) -> Tensor:
        """The same from transformers' own generate, without us."""
        if "plain" not in self.known:
            self.known["plain"] = transformers_logits(self.model, self.inputs)
        return self.known["plain"]

    def once(self, name: str, decoder: Any) -> veridical.Generation:
        """A decoder's run over the batch, made once."""
        if name not in self.known:
            self.known[name] = self.generate([decoder], return_logits=True)
        return self.known[name]


@cache
def setting(name: str, dtype: torch.dtype = torch.float32) -> Setting:
    """Each family is built once per test run and precision."""
    family = FAMILIES[name]
    model = family.build().to(dtype)
    prompts = [cast(one, dtype) for one in two_prompts(family)]
    return Setting(family, model, veridical.LVLM(model), prompts, batch(family, prompts))


def cast(inputs: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in inputs.items()}


def transformers_generate(model: Any, inputs: Mapping[str, Tensor], **options: Any) -> Any:
    options = {"max_new_tokens": STEPS, "do_sample": False, **options}
    return model.generate(**inputs, **options, output_logits=True, return_dict_in_generate=True)


def transformers_logits(model: Any, inputs: Mapping[str, Tensor], **options: Any) -> Tensor:
    return torch.stack(transformers_generate(model, inputs, **options).logits, 1)


def forward(model: Any, inputs: Mapping[str, Tensor], **options: Any) -> Any:
    """One uncached pass. PaliGemma's labels would ask for a loss."""
    given = {name: value for name, value in inputs.items() if name != "labels"}
    with torch.no_grad():
        return model(**given, use_cache=False, **options)


def appended(family: Family, inputs: Mapping[str, Tensor], tokens: Sequence[int]) -> dict[str, Tensor]:
    """A prompt with generated tokens behind it, for an uncached pass."""
    new = inputs["input_ids"].new_tensor([list(tokens)])
    out = {**inputs, "input_ids": torch.cat([inputs["input_ids"], new], 1)}
    out["attention_mask"] = torch.cat([inputs["attention_mask"], torch.ones_like(new)], 1)
    for name in ("token_type_ids", "mm_token_type_ids"):
        if name in inputs:
            kind = NEW_KIND.get(family.name, 0)
            out[name] = torch.cat([inputs[name], torch.full_like(new, kind)], 1)
    return out


def hidden(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def steered(layers: Any, vectors: Tensor) -> ExitStack:
    """Add one vector per layer to every position of its output, through nothing but torch's own hooks."""
    stack = ExitStack()

    def add(vector: Tensor) -> Callable:
        def hook(module: Any, args: Any, output: Any) -> Any:
            moved = hidden(output) + vector
            return moved if isinstance(output, Tensor) else (moved, *output[1:])

        return hook

    for layer, vector in zip(layers, vectors, strict=True):
        stack.callback(layer.register_forward_hook(add(vector)).remove)
    return stack


def identity(logits: Tensor, *given: Any) -> Tensor:
    return logits.clone()


def watch(
    case: Setting, reading: Reading, see: Callable[[Any], None], inputs: Any = None, **options: Any
) -> veridical.Generation:
    """Generate with one reading and show what it has read to `see`, layer -> tensor, at every step."""

    def show(logits: Tensor, step: Any) -> Tensor:
        see(dict(step.by_layer(reading.name)))
        return logits

    return case.generate([Declares([reading, LogitsEdit(show)])], inputs, return_logits=True, **options)


def all_rows(case: Setting, decoders: Sequence[Any], **options: Any) -> Tensor:
    """(block, batch, new) tokens of every row block of a run, main rows first."""
    output, fold, prompt = run(case.lvlm, case.inputs, decoders, max_new_tokens=STEPS, **options)
    return torch.stack(output[:, prompt:].chunk(len(fold.arranged.names)))
