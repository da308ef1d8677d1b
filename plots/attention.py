"""Attention over an image for one token, and over layers and heads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .axis import axis_of

if TYPE_CHECKING:
    from ..pipelines.attention_maps import AttentionMaps


def attention_overlay(
    maps: AttentionMaps, image: Any, token: int | str, layer: int | None = None, head: int | None = None,
    ax: Any = None,
) -> Any:  # fmt: skip
    """Where the model looks in the image at the position that produces a token. Returns the axis.

    a[r, c] = mean over the chosen layers and heads of softmax(q·k)[r, c], over the image positions of one grid. Colours
    go from the smallest to the largest value of this map; the title says what share of all attention the image has.
    Each cell of the grid is drawn as it is, without smoothing, on the part of the image that reaches the model.

    Args:
        maps: as `attention_maps` returns them. image: the same image: path, PIL image or array.
        token: its number, or a word of the text, of which the first token counts.
        layer, head: None is the mean over all that were read.

    Raises:
        families.NoGrid: the image positions of this family are no rectangle; the message gives the reason.
        ValueError: no such token, layer or head. BadImage: an image that cannot be used.
    """
    from ..pipelines.inputs.images import passed_on

    found = maps.overlay(token, layer, head).numpy()
    ax, shown, number = axis_of(ax), passed_on(image), maps.token(token)
    width, height = shown.size
    left, top, right, bottom = maps.area
    ax.imshow(np.asarray(shown), extent=(0, width, height, 0))
    ax.imshow(
        found, extent=(left * width, right * width, bottom * height, top * height), cmap="inferno", alpha=0.6,
        interpolation="nearest",
    )  # fmt: skip
    ax.set_xlim(0, width)
    ax.set_ylim(height, 0)
    ax.set_axis_off()
    over = "mean of layers" if layer is None else f"layer {layer}"
    heads = "heads" if head is None else f"head {head}"
    ax.set_title(f"{maps.tokens[number].strip()!r}: {over}, {heads}\n{found.sum():.1%} of attention", fontsize=8)
    return ax


def head_map(maps: AttentionMaps, token: int | str | None = None, ax: Any = None) -> Any:
    """How much attention each head of each layer pays to the image, 0 to 1. Returns the axis.

    s[l, h] = Σ_{image positions} a[l, h], at the position that produces `token`, or the mean over the text's tokens.

    Raises:
        ValueError: no such token.
    """
    shares = maps.share(token).numpy()
    ax = axis_of(ax)
    drawn = ax.imshow(shares, cmap="viridis", vmin=0, aspect="auto", interpolation="nearest", origin="lower")
    ax.set_xlabel("head")
    ax.set_ylabel("layer")
    ax.set_xticks(range(0, shares.shape[1], max(1, shares.shape[1] // 8)))
    rows = range(0, len(maps.layers), max(1, len(maps.layers) // 8))
    ax.set_yticks(rows, [str(maps.layers[row]) for row in rows])
    of = "mean over tokens" if token is None else repr(maps.tokens[maps.token(token)].strip())
    ax.set_title(f"attention to the image: {of}", fontsize=9)
    ax.figure.colorbar(drawn, ax=ax, label="share of attention")
    return ax
