"""Entries of transformers' `hidden_states` as readings: 0 the embeddings, l the output of block l − 1, L normed.

What several detectors read of the prompt: states at its image tokens and at its last position, kept once per text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..pipelines.engine.declarations import Reading
from ..pipelines.model.layout import where


def entry_of(lvlm: Any, name: str, entry: int) -> int:
    """The entry's number, counted from 0; a negative one counts from the end.

    Raises:
        ValueError: an entry that the model does not have.
    """
    count = len(lvlm.layers) + 1
    if not -count <= entry < count:
        raise ValueError(
            f"{name}={entry} is no entry of the hidden states of {lvlm.name}, which has {count}: 0 (the embeddings) to "
            f"{count - 1} (the last, after the final norm), or {-count} to -1."
        )
    return entry % count


def state_reading(
    lvlm: Any, name: str, entry: int, keep: Callable[[Tensor], Tensor], queries: str = "last"
) -> Reading:  # fmt: skip
    """A reading of one entry: keep gets (batch, query, hidden), the last entry after the final norm."""
    if entry == 0:
        return Reading(name, [0], keep=keep, of="input", queries=queries)  # type: ignore[arg-type]
    chosen = keep
    if entry == len(lvlm.layers):
        norm = lvlm.decoder.norm
        chosen = lambda states: keep(norm(states.to(where(norm))))
    return Reading(name, [entry - 1], keep=chosen, of="block", queries=queries)  # type: ignore[arg-type]


def of_prompt(
    states: Float[Tensor, "batch query hidden"], size: int, detector: str
) -> Float[Tensor, "batch prompt hidden"] | None:
    """The prompts' own positions, aligned at the right (longer branches add padding); None behind the prompt.

    Raises:
        ValueError: a pass that holds a part of the prompt.
    """
    length = states.shape[1]
    if not length:
        return None
    if length < size:
        raise ValueError(
            f"{detector} reads the whole prompt in one pass, and this pass holds {length} of its {size} positions: "
            "leave prefill_chunk_size out."
        )
    return states[:, length - size :]


def last_position(states: Float[Tensor, "batch query hidden"]) -> Float[Tensor, "batch one hidden"]:
    """The prompt's last position in the pass that holds the prompt, nothing behind it."""
    return states[:, -1:]


def gathered(
    states: Float[Tensor, "batch prompt hidden"], image: Bool[Tensor, "batch prompt"]
) -> Float[Tensor, "batch image hidden"]:
    """The states at each row's image tokens, in their order; rows with fewer end in zeros."""
    rows = [row[mask] for row, mask in zip(states, image.to(states.device), strict=True)]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
