"""Which model this is: what a trained detector is bound to, and where the shipped detectors are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch

SAMPLED = 64  # values of every weight that tell models apart
_KNOWN: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def fingerprint(model: Any) -> str:
    """SHA-256 over name, shape and 64 evenly spaced values of every weight, in bfloat16; read once per model object.

    Quick also for large models, the same in float32 and in the bfloat16 it was saved in, and another after any
    training that moves a weight by more than bfloat16's rounding.
    """
    if model not in _KNOWN:
        digest = hashlib.sha256()
        for name, weight in sorted(model.named_parameters()):
            flat = weight.detach().flatten()
            digest.update(f"{name} {tuple(weight.shape)}".encode())
            if flat.numel() and weight.device.type != "meta":
                values = flat[:: max(1, flat.numel() // SAMPLED)][:SAMPLED]
                digest.update(values.to("cpu", torch.bfloat16).view(torch.int16).numpy().tobytes())
        _KNOWN[model] = digest.hexdigest()
    return _KNOWN[model]


def identity(lvlm: Any) -> dict[str, Any]:
    """Name, type, layers, heads, dtype and fingerprint of a model, as plain values."""
    return {
        "name": lvlm.name, "revision": lvlm.revision, "type": lvlm.model.config.model_type,
        "layers": len(lvlm.layers), "heads": lvlm.heads, "dtype": str(lvlm.dtype).removeprefix("torch."),
        "weights": fingerprint(lvlm.model),
    }  # fmt: skip


def misfit(stored: Mapping[str, Any], lvlm: Any) -> str | None:
    """Why something made for the stored model does not fit this one; None where it does.

    Other weights under the same name and in another dtype fit: rounding and quantisation change them too.
    """
    shape = {"type": lvlm.model.config.model_type, "layers": len(lvlm.layers), "heads": lvlm.heads}
    if wrong := [f"{name} {stored.get(name)}, here {here}" for name, here in shape.items() if stored.get(name) != here]:
        return f"made for {stored.get('name')!r}, which differs: {'; '.join(wrong)}"
    here = identity(lvlm)
    if stored.get("weights") == here["weights"]:
        return None
    if stored.get("name") == here["name"] and stored.get("dtype") != here["dtype"]:
        return None
    return f"made for {stored.get('name')!r}, and {here['name']!r} has other weights"


def shipped(name: str, lvlm: Any = None) -> Path | None:
    """The folder of the shipped detector of that name for a model, `embedded` if none is given; None: there is none."""
    from ...models import DETECTORS, EMBEDDED_SMOLLM2

    return _fitting((DETECTORS / name, EMBEDDED_SMOLLM2 / "detectors" / name), lvlm)


def shipped_directions(name: str, lvlm: Any = None) -> Path | None:
    """The folder of the shipped directions of the decoder of that name; as `shipped`."""
    from ...models import DIRECTIONS, EMBEDDED_SMOLLM2

    return _fitting((DIRECTIONS / name, EMBEDDED_SMOLLM2 / "directions" / name), lvlm)


def _fitting(folders: Sequence[Path], lvlm: Any) -> Path | None:
    """The first folder whose weights were made for the model; without a model, the first that is there."""
    for folder in folders:
        path = folder / "config.json"
        if path.is_file() and (lvlm is None or misfit(json.loads(path.read_text("utf-8"))["model"], lvlm) is None):
            return folder
    return None
