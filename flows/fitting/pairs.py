"""Pairs of a true and a hallucinated caption of an image: of the embedded world, or from a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...datasets import image_paths
from ...datasets.captions import paired_captions
from ...datasets.world import scene
from ..files import atomic

NAMES = {"image": ("image",), "truthful": ("truthful", "value"), "hallucinated": ("hallucinated", "h_value")}
FILE = "pairs.jsonl"


class Pair(NamedTuple):
    """An image (a path, or the image itself) and two captions of it."""

    image: Any
    truthful: str
    hallucinated: str


def world_pairs(count: int, split: str = "train") -> list[Pair]:
    """Pairs of the first scenes of a split of the embedded world, the same in every run."""
    out = []
    for index in range(count):
        found = scene(split, index)
        out.append(Pair(found.image, *paired_captions(found, np.random.default_rng((7, index)))))
    return out


def write_world_pairs(folder: Path, count: int, split: str, advance: Callable[[int], Any]) -> Path:
    """The same as a file beside its images: one line per pair, {image, truthful, hallucinated}."""
    lines = []
    for index, pair in enumerate(world_pairs(count, split)):
        name = scene(split, index).name
        folder.mkdir(parents=True, exist_ok=True)
        pair.image.save(folder / name)
        lines.append(json.dumps({"image": name, "truthful": pair.truthful, "hallucinated": pair.hallucinated}))
        advance(1)
    atomic.write_text(folder / FILE, "\n".join(lines) + "\n")
    return folder / FILE


def read_pairs(path: Path, limit: int | None = None) -> list[Pair]:
    """Pairs from a file of JSON lines, or of one JSON list: {image, truthful, hallucinated}, or as LURE and VTI have
    it {image, value, h_value}; images by their path from the file's folder.

    Raises:
        FileNotFoundError: no such file, or an image that is not there. ValueError: no JSON, a line that lacks
            something, or no pair at all; the message says which line.
    """
    text = path.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        rows = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in lines]
    except ValueError as error:
        raise ValueError(f"{path} is neither JSON lines nor a JSON list ({error}).") from error
    found = [_pair(path, number, row) for number, row in enumerate(rows[:limit], 1)]
    if not found:
        raise ValueError(f"{path} has no pairs; a line is {{image, truthful, hallucinated}}.")
    return found


def digest(pairs: Sequence[Pair]) -> str:
    """SHA-256 over the captions."""
    texts = [[pair.truthful, pair.hallucinated] for pair in pairs]
    return hashlib.sha256(json.dumps(texts, ensure_ascii=False).encode()).hexdigest()


def _pair(path: Path, number: int, row: Any) -> Pair:
    values = {}
    for field, names in NAMES.items():
        held = [row[name] for name in names if isinstance(row, Mapping) and isinstance(row.get(name), str)]
        if not held or not held[0].strip():
            raise ValueError(f"{path}, pair {number}: no {' or '.join(names)}; needed: image, truthful, hallucinated.")
        values[field] = held[0].strip()
    image = image_paths.inside(path.parent, values["image"])
    if not image.is_file():
        raise FileNotFoundError(f"{path}, pair {number}: no image {image}; paths are those from the file's folder.")
    return Pair(str(image), values["truthful"], values["hallucinated"])
