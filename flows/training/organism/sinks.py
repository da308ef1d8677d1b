"""Attention sinks of a model: what VAR (ICLR 2025) acts on, and what a model that was never pretrained lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ....datasets.examples import world_captions
from ....datasets.prompts import DETAIL_PROMPT
from ....decoders.var import SINK_DIMS, relative
from ....metrics.estimate import Estimate, ratio

if TYPE_CHECKING:
    from ....pipelines.lvlm import LVLM

TAU = 20.0  # VAR's


def sinks(lvlm: LVLM, images: int = 50, split: str = "test") -> dict[str, Estimate]:
    """Sinks of the caption prompts of the first scenes, mean over layers from the third to the last but one.

    φ as in `decoders/var.py`, in the two dimensions that are largest on the first token; sinks have φ ≥ 20. The model
    is run in eager attention. Returns, each with its 95 % interval over images: sink_attention: share of the last
    prompt token's attention on sinks, mean over heads; sink_image_tokens: share of the image tokens
    that are sinks; phi_first: φ of the first token; phi_image: largest φ of an image token; var_acted: share of steps
    at which VAR changes attention in greedy captions.
    """
    model: Any = lvlm.model
    before = lvlm.attention_implementation
    found: dict[str, list[float]] = {}
    examples = world_captions(split, images)
    try:
        model.set_attn_implementation("eager")
        for example in examples:
            for name, value in _of_prompt(lvlm, example).items():
                found.setdefault(name, []).append(value)
    finally:
        model.set_attn_implementation(before)
    opened = [example.open() for example in examples]
    answers = lvlm.caption(opened, "var", prompt=DETAIL_PROMPT, batch_size=16, max_new_tokens=64)
    acted = [answer.acted["var"] for answer in answers]
    found["var_acted"] = [one["acted"] / max(one["steps"], 1) for one in acted]
    once = [1.0] * len(examples)
    return {name: ratio(values, once, share=not name.startswith("phi")) for name, values in found.items()}


@torch.no_grad()
def _of_prompt(lvlm: LVLM, example: Any) -> dict[str, float]:
    inputs = lvlm.prepare([example.open()], [DETAIL_PROMPT])
    out: Any = lvlm.model(**inputs, output_hidden_states=True, output_attentions=True)
    image = lvlm.image_mask(inputs["input_ids"])[0]
    layers = range(2, len(out.attentions) - 1)
    scaled = torch.stack([relative(out.hidden_states[layer][0]) for layer in layers])  # (layer, position, hidden)
    dims = scaled[:, 0].topk(SINK_DIMS, dim=-1).indices
    phi = scaled.gather(2, dims[:, None].expand(-1, scaled.shape[1], -1)).amax(-1)
    attention = torch.stack([out.attentions[layer][0, :, -1].float().mean(0) for layer in layers])
    there = phi >= TAU
    return {
        "sink_attention": float((attention * there).sum(1).mean()),
        "sink_image_tokens": float(there[:, image].float().mean()),
        "phi_first": float(phi[:, 0].mean()),
        "phi_image": float(phi[:, image].amax(1).mean()),
    }
