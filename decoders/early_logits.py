"""Logits that are read from blocks before the last: which blocks, and which position."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from ..pipelines.checks import check_integers
from ..pipelines.method import ruled

if TYPE_CHECKING:
    from ..pipelines.model.layout import Layout

Window = int | tuple[int, int]


def last_position(hidden: Float[Tensor, "batch query hidden"]) -> Float[Tensor, "batch hidden"]:
    """The state from which the next token is chosen."""
    return hidden[:, -1]


def mean_logits(
    lvlm: Layout, states: Float[Tensor, "block batch hidden"], normed: bool
) -> Float[Tensor, "batch vocab"]:
    """Logits of each block, averaged: the mean of H(h_l), H the head, after the final norm with `normed`.

    H is linear but for a soft cap, so that the mean of the states goes through it once for all blocks: with a large
    vocabulary the head is what a step of these methods costs.
    """
    states = lvlm.final_norm(states) if normed else states
    if lvlm.soft_cap is not None:
        return lvlm.head(states).mean(0)
    return lvlm.head(states.float().mean(0).to(states.dtype))


def window_field() -> Any:
    """A number of blocks, or the first and the last of them."""

    def kept(name: str, value: Any) -> Window:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        pair = check_integers(name, value, "a number of blocks, or the first and the last of them")
        if len(pair) != 2:
            raise ValueError(f"{name}={pair} is neither a number of blocks nor a pair of them.")
        return pair

    return ruled(
        5, "how many blocks below the last", "a number, or an inclusive pair of 0-based blocks",
        "Negative numbers count from the end. Paper: 5; code: 25 to 30 of 32.", kept,
    )  # fmt: skip


def window_blocks(window: Window, count: int) -> range:
    """The blocks of a window in a model of `count` layers, 0-based."""
    if isinstance(window, int):
        first, last = count - 1 - window, count - 2
        if not (window >= 1 and first >= 0):
            possible = f"1 to {count - 1}" if count > 1 else "none lies below its last"
            raise ValueError(f"window={window} blocks below the last; this model has {count} layers: {possible}")
    else:
        first, last = (at + count if at < 0 else at for at in window)
        if not 0 <= first <= last <= count - 2:
            raise ValueError(
                f"window={tuple(window)} is blocks {first} to {last}; possible: 0 to {count - 2}, below the last of "
                f"this model's {count} layers"
            )
    return range(first, last + 1)
