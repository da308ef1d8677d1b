"""Counts of questions summed image by image: the rows that a bootstrap over images draws from."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .estimate import Estimate, ratio

Ratios = Mapping[str, Callable[[Any], tuple[Any, Any]]]


def by_image(rows: ArrayLike, images: Sequence[str | int] | None) -> NDArray:
    """One row of counts per image, in the order first seen; without images the rows as they are.

    Args:
        rows: (questions, counts).
        images: the image of each row, or None where every row stands for itself.

    >>> by_image([[1, 1], [0, 1], [1, 1]], ["a", "b", "a"]).tolist()
    [[2, 2], [0, 1]]

    Raises:
        ValueError: no rows, or a number of images other than that of rows.
    """
    table = np.asarray(rows)
    if not len(table):
        raise ValueError("no answers to score.")
    if images is None:
        return table
    if len(images) != len(table):
        raise ValueError(f"{len(table)} answers and {len(images)} images: name the image of each answer.")
    numbers = {image: number for number, image in enumerate(dict.fromkeys(images))}
    summed = np.zeros((len(numbers), table.shape[1]), dtype=table.dtype)
    np.add.at(summed, [numbers[image] for image in images], table)
    return summed


def values(totals: Any, ratios: Ratios) -> dict[str, float]:
    """Every figure from summed counts; an empty denominator gives 0."""
    found = {}
    for name, parts in ratios.items():
        top, bottom = parts(totals)
        found[name] = float(top / bottom) if bottom else 0.0
    return found


def estimates(columns: Any, ratios: Ratios, unbounded: Sequence[str] = (), **options) -> dict[str, Estimate]:
    """Every figure with its bootstrap interval from columns of counts.

    Args:
        columns: counts by name, each (images,).
        ratios: figure -> (numerator, denominator) of such counts.
        unbounded: figures that can leave 0 to 1.
        options: samples, seed and level of `metrics.estimate.bootstrap`.
    """
    return {name: ratio(*parts(columns), share=name not in unbounded, **options) for name, parts in ratios.items()}
