"""A model, prompts of different lengths for it, and what is compared between runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

import veridical
from veridical.pipelines.engine.declarations import Declaration
from veridical.pipelines.engine.run import run
from veridical.pipelines.registry import DETECTORS

from ..parity.tiny import BOS, batch, plant_sinks, prompt, tiny_llava
from . import table

STEPS = 4
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
    embedded: bool = False
    known: dict[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> Any:
        return self.lvlm.model

    def acting(self, name: str) -> Any:
        return table.acting(name, self.embedded)

    def detector(self, name: str) -> Any:
        """The name; for a detector that needs a probe, one with weights of the right size that were drawn."""
        if self.embedded or not getattr(DETECTORS.type(name), "needs_probe", False):
            return name
        if name not in self.known:
            bare = DETECTORS.make(name)
            features = bare.features(self.lvlm, self.inputs, torch.full((3, 2), 9)).flatten(1)
            draw = torch.Generator().manual_seed(0)
            items = features.repeat(8, 1) * torch.rand(24, features.shape[1], generator=draw) * 2
            self.known[name] = bare.fit(items, torch.arange(24) % 2, lvlm=self.lvlm, epochs=1)
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
        if "plain" not in self.known:
            self.known["plain"] = self.logits()
        return self.known["plain"]


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
    from veridical.datasets.world import scene

    lvlm = veridical.load("embedded", device="cpu")
    lvlm.model.generation_config.eos_token_id = lvlm.text_config.eos_token_id = None
    images = [scene("test", index).image for index in range(3)]
    questions = ["Please describe this image in detail.", "Is there a dog in the image?", "What is this?"]
    prompts = [lvlm.prepare([image], [question]) for image, question in zip(images, questions, strict=True)]
    return Setting(lvlm, prompts, lvlm.prepare(images, questions), embedded=True)


def scale(logits: Tensor) -> float:
    """The largest finite logit, at least 1: float32 rounding of logits is in proportion to it."""
    return max(1.0, float(logits[logits.isfinite()].abs().max()))


def difference(a: Tensor, b: Tensor) -> float:
    """The largest difference of finite logits; infinite where one cut a token that the other kept."""
    assert a.shape == b.shape
    if a.isnan().any() or b.isnan().any() or not torch.equal(a.isfinite(), b.isfinite()):
        return float("inf")
    finite = a.isfinite()
    return float((a[finite].double() - b[finite].double()).abs().max())


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
    return torch.stack(run(setting.lvlm, setting.inputs, [], declarations, return_logits=True, **options)[1].logits, 1)


def snapshot(lvlm: veridical.LVLM) -> dict[str, Any]:
    """Everything of a model that a run could leave changed."""
    modules = dict(lvlm.model.named_modules())
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs")
    return {
        "weights": {name: value.clone() for name, value in lvlm.model.state_dict().items()},
        "hooks": {name: [tuple(getattr(module, kind)) for kind in hooks] for name, module in modules.items()},
        "attributes": {name: sorted(vars(module)) for name, module in modules.items()},
        "configs": [layer.self_attn.config for layer in lvlm.layers],
        "attention": [layer.self_attn.config._attn_implementation for layer in lvlm.layers],
        "config": lvlm.model.config.to_dict(),
        "generation_config": lvlm.model.generation_config.to_dict(),
        "training": [module.training for module in modules.values()],
    }


def assert_unchanged(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    weights, now = before["weights"], after["weights"]
    assert list(weights) == list(now)
    assert [name for name in weights if not torch.equal(weights[name], now[name])] == []
    assert [name for name in before["hooks"] if before["hooks"][name] != after["hooks"].get(name)] == []
    same = [one is two for one, two in zip(before["configs"], after["configs"], strict=True)]
    assert all(same), f"layers with another configuration object: {[i for i, s in enumerate(same) if not s]}"
    for what in ("attributes", "attention", "config", "generation_config", "training"):
        assert before[what] == after[what], what
