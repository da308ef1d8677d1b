"""Batches of prompts of like length, so that little is padded."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from PIL import Image

from .images import token_counts

WINDOW = 16  # batches within which prompts are sorted by their length


def batches(lengths: Sequence[int], images: Sequence[Hashable], size: int, window: int = WINDOW) -> list[list[int]]:
    """Places 0, 1, … in batches of at most `size`, those of like length together, the longest first.

    They are sorted within windows of `window` · `size` in their order, and depend on the arguments alone. Neighbours
    about one image stay together, since a batch encodes an image once, and count as long as the longest of them.

    Args:
        lengths: of the prompts. images: what each is about, by anything that is equal for the same image.

    >>> batches([3, 9, 3, 8, 1], "abcde", 2)
    [[1, 3], [0, 2], [4]]
    >>> batches([3, 9, 3, 8, 1], "aabcc", 2)
    [[0, 1], [3, 4], [2]]
    """
    out: list[list[int]] = []
    for start in range(0, len(lengths), size * window):
        part = range(start, min(start + size * window, len(lengths)))
        runs = [list(run) for _, run in groupby(part, key=lambda place: images[place])]
        runs.sort(key=lambda run: (-max(lengths[place] for place in run), run[0]))
        order = [place for run in runs for place in run]
        out += [order[first : first + size] for first in range(0, len(order), size)]
    return out


def lengths(processor: Any, images: Sequence[Any], questions: Sequence[str | Sequence[str]]) -> list[int]:
    """Image tokens and tokens of the question of each prompt, to sort by: what all prompts share is left out.

    Where the processor cannot say how many tokens an image has, its pixels stand in, so that images of one size come
    together. An image that cannot be read, and one of unknown size, counts as the smallest.

    Args:
        images: paths, PIL images or arrays. questions: one for each, or a tuple of turns.
    """
    sizes: dict[Hashable, tuple[int, int]] = {}
    keys = [same(image) for image in images]
    for key, image in zip(keys, images, strict=True):
        if key not in sizes:
            sizes[key] = _size(image)
    known = [size for size in dict.fromkeys(sizes.values()) if min(size) > 0]
    counts = dict(zip(known, token_counts(processor, known) or [h * w for h, w in known], strict=True))
    texts = {text: _tokens(processor, text) for text in {_text(question) for question in questions}}
    return [
        counts.get(sizes[key], 0) + texts[_text(question)] for key, question in zip(keys, questions, strict=True)
    ]


def same(image: Any) -> Hashable:
    """What is equal for the same image: its path, or the object itself by its id."""
    return str(image) if isinstance(image, str | Path) else id(image)


def _size(image: Any) -> tuple[int, int]:
    """(height, width), of a file from its header; (0, 0) where it cannot be read, which is an error elsewhere."""
    if isinstance(image, str | Path):
        try:
            with Image.open(image) as opened:
                return opened.height, opened.width
        except Exception:
            return 0, 0
    if isinstance(image, Image.Image):
        return image.height, image.width
    shape = tuple(getattr(image, "shape", ()))
    return (int(shape[0]), int(shape[1])) if len(shape) > 1 else (0, 0)


def _text(question: str | Sequence[str]) -> str:
    return question if isinstance(question, str) else "\n".join(question)


def _tokens(processor: Any, text: str) -> int:
    tokenizer = getattr(processor, "tokenizer", None)
    return len(text) if tokenizer is None else len(tokenizer(text)["input_ids"])
