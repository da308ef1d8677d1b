"""Attention maps as text: bytes in the files of an evaluation, sixteen levels in a report."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST = 12  # rows or columns of a map in a report; finer grids are averaged
LEVELS = 15
MOST = 8_000_000  # characters of all maps of a report; with its images and texts it stays below 30 MB


def packed(values: NDArray) -> str:
    """A map of any shape as one byte per position, 255 where it is largest."""
    peak = float(values.max()) if values.size else 0.0
    return _text(np.round(255 * values / peak if peak > 0 else values * 0).astype(np.uint8))


def unpacked(text: str, rows: int, columns: int) -> NDArray:
    """The reverse, up to the scale."""
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(rows, columns).astype(float)


def coarse(values: NDArray) -> NDArray:
    """At most 12 × 12, each cell the mean of a block."""
    out = values
    for axis, size in enumerate(values.shape):
        if size > LARGEST:
            edges = np.linspace(0, size, LARGEST + 1).round().astype(int)[:-1]
            counts = np.diff([*edges, size])
            out = np.add.reduceat(out, edges, axis) / (counts[:, None] if axis == 0 else counts[None])
    return out


def levels(values: NDArray) -> str:
    """Sixteen levels of a map, 15 where it is largest, two positions in a byte."""
    flat = values.flatten()
    peak = float(flat.max()) if flat.size else 0.0
    level = np.round(LEVELS * flat / peak if peak > 0 else flat * 0).astype(np.uint8)
    pairs = np.append(level, np.zeros(len(level) % 2, np.uint8)).reshape(-1, 2)
    return _text((pairs[:, 0] << 4 | pairs[:, 1]).astype(np.uint8))


def of_words(row: dict[str, Any], starts: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """The maps of a text's words as a report holds them: each word's is that of its first token.

    row: of a file of attention (`attended`). starts: (start, end) of each word in characters.
    """
    rows, columns = row["grid"]
    maps: list[str] = []
    chances: list[float | None] = []
    for start, end in starts:
        inside = [number for number, (a, b) in enumerate(row["spans"]) if a < end and b > start and a < b]
        if not inside:
            maps.append("")
            chances.append(None)
            continue
        maps.append(levels(coarse(unpacked(row["maps"][inside[0]], rows, columns))))
        chances.append(round(min(row["probability"][number] for number in inside), 3))
    return {"grid": [min(rows, LARGEST), min(columns, LARGEST)], "area": row["area"], "maps": maps, "chances": chances}


def attach(answer: dict[str, Any], row: dict[str, Any] | None, left: int) -> int:
    """Put the maps of an answer's words beside them, if they fit into what is left. Returns how much they take."""
    if row is None or row["text"] != answer["text"]:
        return 0
    found = of_words(row, [(word["s"], word["e"]) for word in answer["words"]])
    size = sum(map(len, found["maps"]))
    if size > left:
        return 0
    answer |= found
    return size


def _text(values: NDArray) -> str:
    return base64.b64encode(values.tobytes()).decode()
