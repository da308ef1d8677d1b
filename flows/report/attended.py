"""The attention behind finished texts, as rows of a file that a report reads: one teacher-forced pass, no decoder."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...pipelines.inputs.token_spans import spans
from . import maps

if TYPE_CHECKING:
    from ...pipelines.lvlm import LVLM


class NoAttention(UserWarning):
    """The report has no overlays; the message gives the reason."""


def attended(
    lvlm: LVLM, images: Sequence[Any], questions: Sequence[str], texts: Sequence[str], system: str | None = None
) -> list[dict[str, Any]] | None:
    """What the model looks at, at the position before each token of a text: mean over layers and heads.

    A row: text, spans of its tokens in characters, probability of each in the model without decoders, grid, area of
    the image that the model sees, and a map per token (`maps.packed`). One forward pass for all of the texts.

    Returns None for a family without a grid of image positions, with a warning that gives the reason.
    """
    from ...pipelines.attention_maps import maps_of_texts
    from ...pipelines.model.families import NoGrid

    out = []
    for text, one in zip(texts, maps_of_texts(lvlm, images, questions, texts, system, heads="mean"), strict=True):
        try:
            grids = [one.overlay(token).numpy() for token in range(len(one.tokens))]
        except NoGrid as refused:
            warnings.warn(f"the report has no attention over images: {refused}", NoAttention, stacklevel=2)
            return None
        out.append({
            "text": text, "spans": [list(place) for place in spans(text, one.tokens)],
            "probability": [round(float(p), 5) for p in one.probability],
            "grid": list(grids[0].shape) if grids else [1, 1], "area": list(one.area),
            "maps": list(map(maps.packed, grids)),
        })  # fmt: skip
    return out
