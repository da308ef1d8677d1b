"""Everything of a model that a run could leave changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from ..pipelines.model.layout import Layout

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs")


def snapshot(lvlm: Layout) -> dict[str, Any]:
    """Weights, hooks, attributes and configurations of a model."""
    modules = dict(lvlm.model.named_modules())
    return {
        "weights": {name: value.clone() for name, value in lvlm.model.state_dict().items()},
        "hooks": {name: [tuple(getattr(module, kind)) for kind in HOOKS] for name, module in modules.items()},
        "attributes": {name: sorted(vars(module)) for name, module in modules.items()},
        "configs": [layer.self_attn.config for layer in lvlm.layers],
        "attention": [layer.self_attn.config._attn_implementation for layer in lvlm.layers],
        "config": lvlm.model.config.to_dict(),
        "generation_config": lvlm.model.generation_config.to_dict(),
        "training": [module.training for module in modules.values()],
    }


def assert_unchanged(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Raise AssertionError for the first part of a model that two snapshots differ in."""
    weights, now = before["weights"], after["weights"]
    assert list(weights) == list(now)
    assert [name for name in weights if not torch.equal(weights[name], now[name])] == []
    assert [name for name in before["hooks"] if before["hooks"][name] != after["hooks"].get(name)] == []
    same = [one is two for one, two in zip(before["configs"], after["configs"], strict=True)]
    assert all(same), f"layers with another configuration object: {[i for i, s in enumerate(same) if not s]}"
    for what in ("attributes", "attention", "config", "generation_config", "training"):
        assert before[what] == after[what], what
