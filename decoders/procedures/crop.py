"""Where to crop an image: the sharpest square window of an importance map, and the maps' arithmetic (ViCrop).

Zhang et al., "MLLMs Know Where to Look", ICLR 2025, arXiv 2502.17422.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, pad

TINY = 1e-12  # least attention or gradient that something is divided by
SLACK = 1e-9  # of a cell: 336 · 1.4 / 47.04 is ten cells, whatever rounding does
SIGMA = 0.8  # of the 3 × 3 blur, as OpenCV derives it from the size


@dataclass(frozen=True)
class Crop:
    """A square window of an image, in pixels, and how far it stands out from those beside it (0: not at all)."""

    box: tuple[int, int, int, int]
    sharpness: float
    whole: bool = False


def best_crop(
    importance: Float[Tensor, "row column"], size: tuple[int, int], side: float, ratios: Sequence[float]
) -> Crop:
    """The window of side ρ·`side` whose sum stands out most from the windows one cell beside it, over ρ ∈ ratios.

    sharpness = (best sum − mean sum of its up to 4 direct neighbours) / cells of the window. Of equal windows the one
    with the smallest column, then row; of equal ρ the first. size: (width, height) of the image. A window as large as
    the map is the whole image at the first ρ and is skipped at others.
    """
    cells, (rows, columns), (width, height) = importance.double().cpu(), importance.shape, size
    block = (width / columns, height / rows)
    best: tuple[float, float, int, int, int, int] | None = None
    for number, ratio in enumerate(ratios):
        wide, high = (
            max(1, min(math.floor(side * ratio / edge + SLACK), most))
            for edge, most in zip(block, (columns, rows), strict=True)
        )
        if (wide, high) == (columns, rows):
            if number == 0:
                return Crop((0, 0, width, height), 0.0, whole=True)
            continue
        sums = cells.unfold(0, high, 1).unfold(1, wide, 1).sum((-1, -2))
        column, row = divmod(int(sums.T.argmax()), sums.shape[0])
        beside = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
        near = [float(sums[y, x]) for y, x in beside if 0 <= y < sums.shape[0] and 0 <= x < sums.shape[1]]
        sharpness = (float(sums[row, column]) - sum(near) / len(near)) / (wide * high)
        if best is None or sharpness > best[0]:
            best = (sharpness, ratio, column, row, wide, high)
    if best is None:
        return Crop((0, 0, width, height), 0.0, whole=True)
    sharpness, ratio, column, row, wide, high = best
    centre = ((column + wide / 2) * block[0], (row + high / 2) * block[1])
    left, right = _inside(centre[0], side * ratio, width)
    top, bottom = _inside(centre[1], side * ratio, height)
    return Crop((left, top, right, bottom), sharpness)


def _inside(centre: float, length: float, most: int) -> tuple[int, int]:
    """An interval around a centre, shifted to lie within 0 to most, and clipped where it is longer."""
    long = min(round(length), most)
    start = min(max(0, round(centre - length / 2)), most - long)
    return start, start + long


def tiles(size: tuple[int, int], tile: int) -> tuple[int, int]:
    """(rows, columns) into which a large image is split: ⌈height/tile⌉ and ⌊rows·width/height⌋, at least one."""
    width, height = size
    rows = max(1, math.ceil(height / tile))
    return rows, max(1, math.floor(rows * width / height))


# -- maps ----------------------------------------------------------------------------------------------------------
def relative(specific: Float[Tensor, "*any"], generic: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """Specific over generic, in float32; nothing is divided by less than 1e-12."""
    return specific.float().clamp(min=TINY) / generic.float().clamp(min=TINY)


def weighted(
    attention: Float[Tensor, "head image"], gradient: Float[Tensor, "head image"]
) -> Float[Tensor, " image"]:
    """mean_h A·max(∂v/∂A, 0)"""
    return (attention.float() * gradient.float().clamp(min=0)).mean(0)


def edges(image: Float[Tensor, "channel height width"], kernel: int) -> Bool[Tensor, "height width"]:
    """Pixels where |image − 3 × 3 Gaussian blur| over channels, median-filtered, is above its own median.

    kernel: side of the median filter, odd.
    """
    steps = torch.tensor([-1.0, 0.0, 1.0])
    bell = torch.exp(-steps.square() / (2 * SIGMA**2))
    bell = (bell / bell.sum()).to(image)
    blur = (bell[:, None] * bell)[None, None].expand(image.shape[0], 1, 3, 3)
    around = pad(image[None], (1, 1, 1, 1), mode="reflect")
    strength = (image - conv2d(around, blur, groups=image.shape[0])[0]).norm(dim=0)
    half = kernel // 2
    windows = pad(strength[None, None], (half,) * 4, mode="reflect")[0, 0].unfold(0, kernel, 1).unfold(1, kernel, 1)
    smooth = windows.flatten(2).median(-1).values
    return smooth > smooth.median()


def pooled(values: Float[Tensor, "height width"], grid: tuple[int, int]) -> Float[Tensor, "row column"]:
    """Means over the cells of a grid that divides the image; what is left over at the right and below is dropped."""
    rows, columns = grid
    cell = (values.shape[0] // rows, values.shape[1] // columns)
    return avg_pool2d(values[None, None], cell)[0, 0, :rows, :columns]
