"""What the page shows of an image: a text per side, its words with their risks, the attention of a clicked word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from ...pipelines.inputs.words import Word, shades, words

STRONGEST = 0.75  # opacity of the overlay where attention is largest
MOST_PIXELS = 25_000_000
Piece = tuple[str, float | None]


@dataclass
class Side:
    """One text about the image. pieces: its words with the shade of their risk, None without one."""

    name: str
    text: str = ""
    pieces: list[Piece] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)
    risk: dict[str, list[float | None]] = field(default_factory=dict)
    maps: Any = None
    error: str = ""


def describe(
    lvlm: Any, image: Image.Image, decoders: Sequence[str], detectors: Sequence[str], question: str, max_new_tokens: int
) -> list[Side]:
    """Plain decoding on the left, the chosen decoders composed in their order on the right; the same detectors on both.

    Without decoders there is the left side alone.

    Raises:
        ValueError: no question, or methods that do not go together. BadImage: an image that cannot be used.
    """
    from ...pipelines.attention_maps import maps_of_texts
    from ...pipelines.inputs.images import read_image

    if not question.strip():
        raise ValueError("there is no question; write one, such as 'Describe the image.'")
    image = read_image(image, MOST_PIXELS)
    sides = []
    for name, methods in (("plain", []), *([("+".join(decoders), list(decoders))] if decoders else [])):
        (answer,) = lvlm.answer([image], question, methods, list(detectors), max_new_tokens=max_new_tokens)
        found = words(answer.text, [], [])
        risk = {
            detector: [word.risk for word in words(answer.text, answer.tokens, values)]
            for detector, values in answer.risk.items()
        }
        first = next(iter(risk.values()), [None] * len(found))
        tints = shades(first) if risk else [0.0] * len(found)
        side = Side(name, answer.text, [(w.text, t) for w, t in zip(found, tints, strict=True)], found, risk)
        if answer.text.strip():
            (side.maps,) = maps_of_texts(lvlm, [image], [question], [answer.text], heads="mean")
        sides.append(side)
    return sides


def clicked(image: Image.Image, side: Side, number: int) -> tuple[Image.Image, str]:
    """The image with the attention of a word over it, and what is known of the word, as a line of plain text."""
    from ...pipelines.model.families import NoGrid

    word = side.words[number]
    known = [f"{name} {risk[number]:.3f}" for name, risk in side.risk.items() if risk[number] is not None]
    line = f"{word.text} ({side.name})" + (f": risk by {', '.join(known)}" if known else "")
    try:
        token = next(
            (n for n, (a, b) in enumerate(side.maps.places()) if a < word.end and b > word.start and a < b), None
        )
        if token is None:
            return image, f"{line}; its tokens are not found in the text"
        found = side.maps.overlay(token).numpy()
    except NoGrid as refused:
        return image, f"{line}; no overlay: {refused}"
    chance = float(side.maps.probability[token])
    return blended(image, found, side.maps.area), f"{line}; probability without decoders {chance:.3f}"


def blended(image: Image.Image, values: np.ndarray, area: Sequence[float]) -> Image.Image:
    """The image under its map: magenta where attention is large, cell by cell, on the part that the model sees."""
    shown = image.convert("RGB")
    peak = float(values.max())
    level = (255 * STRONGEST * values / peak if peak > 0 else values * 0).round().astype(np.uint8)
    left, top, right, bottom = (
        round(share * side) for share, side in zip(area, (shown.width, shown.height) * 2, strict=True)
    )
    mask = Image.fromarray(level).resize((max(1, right - left), max(1, bottom - top)), Image.Resampling.NEAREST)
    out = shown.copy()
    out.paste((217, 0, 120), (left, top), mask)
    return out
