"""SHA-256 of what captions depend on beside the weights: a model's small files, matchers, probes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..evaluation.request import chain
from ..files import atomic

if TYPE_CHECKING:
    from ...pipelines.lvlm import LVLM

KINDS = (".json", ".jinja", ".txt", ".model", ".tiktoken")  # configuration, processor, template, tokenizer, generation
INDEX = ".safetensors.index.json"  # names the weights' own files


def model_files(lvlm: LVLM) -> dict[str, str]:
    """"file NAME" -> SHA-256 of each file of a model's folder but its weights; {} for a model without a folder."""
    from ...models import SHIPPED
    from ...pipelines.model.checkpoint_files import local

    where = SHIPPED.get(lvlm.name) or local(lvlm.name, lvlm.revision)
    paths = [] if where is None else sorted(path for path in Path(where).rglob("*") if path.suffix in KINDS)
    named = {path.relative_to(str(where)).as_posix(): path for path in paths if path.is_file()}
    return {f"file {name}": str(atomic.digest(path)) for name, path in named.items() if not name.endswith(INDEX)}


def matchers(lvlm: LVLM, decoders: Sequence[str]) -> dict[str, str]:
    """"matcher of NAME" -> name and fingerprint of the matcher that a decoder masks images with, loaded for it."""
    from ...pipelines.matching.load import default_matcher, load_matcher

    found: dict[str, str] = {}
    for name in decoders:
        for method in chain(name, lvlm.name):
            if getattr(method, "is_neutral", False) or getattr(method, "view", None) is not None:
                continue
            if hasattr(method, "matcher"):
                found[f"matcher of {name}"] = load_matcher(method.matcher or default_matcher(lvlm), str(lvlm.device)).id
    return found


def probes(lvlm: LVLM, detectors: Sequence[str]) -> dict[str, str]:
    """"probe of NAME" -> SHA-256 over the trained tensors of each detector, as the next caption will use them."""
    from ...pipelines.registry import DETECTORS

    found: dict[str, str] = {}
    for name in detectors:
        detector = DETECTORS.make(name)
        probe = getattr(detector.for_model(lvlm), "probe", None) if hasattr(detector, "for_model") else None
        if probe is not None:
            digest = hashlib.sha256()
            for key, value in sorted(probe.tensors().items()):
                digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
                digest.update(value.detach().cpu().contiguous().numpy().tobytes())
            found[f"probe of {name}"] = digest.hexdigest()
    return found
