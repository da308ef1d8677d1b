"""Where methods edit attention scores: keys that no mask hides, rows that produce tokens, text around the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

if TYPE_CHECKING:
    from ..pipelines.engine.call import AttentionCall, Sequences


def shown(scores: Float[Tensor, "*any key"]) -> Bool[Tensor, "*any key"]:
    """Scores that no mask hides. A mask is −inf, or about the least number there is."""
    return scores > torch.finfo(scores.dtype).min / 2


def producing_rows(call: AttentionCall, queries: int) -> Bool[Tensor, "batch query"]:
    """The rows of this pass that produce tokens, whether or not a cache spares the others: the last prompt token's on.

    Only they are edited, so that a run without a cache edits what a run with one has edited before.
    """
    last = torch.zeros_like(call.sequences.image)
    last[:, -1] = True
    return call.sequences.at_queries(last, True, queries).to(call.query.device)


def text_rows(call: AttentionCall, queries: int) -> Bool[Tensor, "batch query"]:
    """The rows of this pass that read the image: prompt text after the last image token, and generated tokens."""
    return call.sequences.at_queries(behind_image(call.sequences), True, queries).to(call.query.device)


def behind_image(where: Sequences) -> Bool[Tensor, "row position"]:
    """Prompt positions after the last image token."""
    return where.image.flip(1).cumsum(1).flip(1) == 0


def before_image(where: Sequences) -> Bool[Tensor, "row position"]:
    """Prompt positions before the first image token, without padding; none in a row without an image."""
    return (where.image.cumsum(1) == 0) & ~where.padding & where.image.any(1, keepdim=True)
