"""Contrastive decoding as its papers' programs have it: the model is called twice for each token, image by image.

What a batch of branches is compared with. Logits (1 + α)·l − α·l′ without a cut: the cost is what counts here.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

import veridical


@torch.no_grad()
def two_calls(
    lvlm: veridical.LVLM, inputs: Mapping[str, Tensor], other: Mapping[str, Tensor], tokens: int, alpha: float = 1.0
) -> Tensor:
    """Greedy tokens (batch, tokens) of a loop that keeps one cache for the prompt and one for the other prompt."""
    fed = [dict(inputs), dict(other)]
    caches: list[object] = [None, None]
    chosen = []
    for _ in range(tokens):
        logits = []
        for side, inputs in enumerate(fed):
            positions = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)[:, -inputs["input_ids"].shape[1] :]
            cache = {} if caches[side] is None else {lvlm_cache(lvlm): caches[side]}
            out = lvlm.model(**inputs, position_ids=positions, use_cache=True, logits_to_keep=1, **cache)
            caches[side] = out["cache"] if "cache" in out else out["past_key_values"]
            logits.append(out.logits[:, -1])
        token = ((1 + alpha) * logits[0] - alpha * logits[1]).argmax(-1, keepdim=True)
        chosen.append(token)
        fed = [
            {"input_ids": token, "attention_mask": torch.cat([g["attention_mask"], torch.ones_like(token)], 1)}
            for g in fed
        ]
    return torch.cat(chosen, 1)


def lvlm_cache(lvlm: veridical.LVLM) -> str:
    """Under which name this transformers' models take a cache."""
    import inspect

    return "cache" if "cache" in inspect.signature(lvlm.model.forward).parameters else "past_key_values"
