"""The files of a saved detector, read with limits and checked before anything is computed with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from .deep_probe import Deep
from .probe import MLP, Linear, Probe

MOST_CONFIG, MOST_HEADER = 1 << 20, 1 << 16  # bytes of config.json, and of what describes a probe's few tensors
KINDS: Mapping[str, Any] = {"linear": Linear, "mlp": MLP, "deep": Deep}
_MODEL = ("name", "type", "layers", "heads", "weights")  # what tells whether a probe fits a model


def kind_of(probe: Probe) -> str:
    """The name of a probe's kind, as config.json has it."""
    return next(name for name, cls in KINDS.items() if type(probe) is cls)


def read_config(path: Path) -> Mapping[str, Any]:
    """What a config.json says, with all that is needed.

    Raises:
        ValueError: it is too large, no JSON, or lacks something; says what.
    """
    try:
        if (size := path.stat().st_size) > MOST_CONFIG:
            raise ValueError(f"it has {size:,} bytes; possible: up to {MOST_CONFIG:,}")
        config = json.loads(path.read_text(encoding="utf-8"))
        missing = [name for name in ("detector", "format", "fields") if name not in config]
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is not the configuration of a trained detector ({error}).") from error
    if missing or not isinstance(config, Mapping) or not isinstance(config["fields"], Mapping):
        lacking = ", ".join(missing) or "fields"
        raise ValueError(f"{path} is not the configuration of a trained detector (no {lacking}).")
    model = config.get("model")
    absent = [name for name in _MODEL if not isinstance(model, Mapping) or name not in model]
    if absent:
        raise ValueError(
            f"{path} does not say which model the detector was trained on (no {', '.join(absent)} in its `model`), so "
            "that it may not fit any; train it again with `veridical train-detector`."
        )
    return config


def read_probe(path: Path, kind: str, features: int | None = None) -> Probe:
    """The probe of a file of tensors. features: how many its configuration says that it reads.

    Raises:
        ValueError: an unknown kind, too large a header, no safetensors, other tensors than a probe of that kind has,
            shapes that do not go together, or numbers that are not finite.
    """
    if kind not in KINDS:
        raise ValueError(f"{path.parent} holds a probe of the kind {kind!r}. Known: {', '.join(KINDS)}.")
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if header > MOST_HEADER:
        raise ValueError(f"{path} has a header of {header:,} bytes; a probe has a few tensors (up to {MOST_HEADER:,}).")
    try:
        tensors = {name: value.float() for name, value in load_file(path).items()}
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file that can be read ({error}).") from error
    _check_shapes(path, tensors, KINDS[kind].dimensions)
    for name, value in tensors.items():
        if not value.isfinite().all():
            bad = int((~value.isfinite()).sum())
            raise ValueError(f"{path}: {bad} of {value.numel()} numbers of {name} are NaN or infinite; train it again.")
    if "scale" in tensors and not (tensors["scale"] > 0).all():
        raise ValueError(f"{path}: a scale is not above 0, and features are divided by it; train it again.")
    probe: Probe = KINDS[kind](**tensors)
    if features is not None and features != probe.size:
        raise ValueError(f"{path} reads {probe.size} features, and its configuration says {features}; train it again.")
    return probe


def _check_shapes(path: Path, tensors: Mapping[str, Tensor], dimensions: Mapping[str, str]) -> None:
    """Refuse other tensors than these, and shapes that do not go together."""
    if set(tensors) != set(dimensions):
        raise ValueError(f"{path} has the tensors {', '.join(sorted(tensors))}; needed: {', '.join(dimensions)}.")
    known: dict[str, int] = {}
    for name, wanted in dimensions.items():
        shape, axes = tuple(tensors[name].shape), wanted.split()
        fits = len(shape) == len(axes) and 0 not in shape
        if not fits or any(known.setdefault(*one) != one[1] for one in zip(axes, shape, strict=True)):
            axes_text = ", ".join(f"{axis} {known.get(axis, '?')}" for axis in axes) or "a single number"
            raise ValueError(f"{path}: {name} has the shape {shape}; needed: ({wanted}), with {axes_text}.")
    if known.get("class", 2) % 2:
        raise ValueError(f"{path} has {known['class']} classes; needed: an even number, hallucinated the upper half.")
