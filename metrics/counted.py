"""Counts of units that two systems share, and the paired comparison of every figure that is made of their sums.

A unit is what is swapped between the systems as a whole: an image with its questions, a pair, a set, a scene. Ratios of
two sums are tested by `metrics.paired`; figures made of several ratios, such as MME's score or balanced accuracy, by
the same test with the standard error of the delta method.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .compare import Comparison, Found
from .estimate import Estimate
from .paired import (
    CHUNK,
    EXACT,
    SWAPS,
    Difference,
    Seen,
    _every_swap,
    _random_swaps,
    judge,
    paired_differences,
)

Statistic = Callable[[NDArray], NDArray]
STEP = 1e-5  # of a count, relative, for slopes


@dataclass(frozen=True, eq=False)
class Counted:
    """One system's counts.

    Args:
        units: what is swapped, one name a row; both systems have the same.
        table: (units, counts).
        ratios: figure -> (tops, bottoms) of the counts' columns, as `columns` names them.
        composed: figure -> its value from sums of shape (…, counts).
        columns: (units, counts) -> what `ratios` take.
        ends: figure -> which its difference cannot leave, where that is not -1 to 1; None is no end.
    """

    units: Sequence[Hashable]
    table: NDArray
    ratios: Mapping[str, Callable[[Any], tuple[Any, Any]]] = field(default_factory=dict)
    composed: Mapping[str, Statistic] = field(default_factory=dict)
    columns: Callable[[NDArray], Any] = lambda table: table.T
    ends: Mapping[str, tuple[float, float] | None] = field(default_factory=dict)


def of_sums(figures: Mapping[str, Mapping[Any, tuple[float, float]]]) -> Counted:
    """The counts of figures that come as unit -> (top, bottom); a unit that adds nothing to a figure may be missing.

    >>> of_sums({"accuracy": {"a": (1, 2)}, "recall": {"b": (1, 1)}}).table.tolist()
    [[1, 2, 0, 0], [0, 0, 1, 1]]
    """
    units = tuple(dict.fromkeys(unit for sums in figures.values() for unit in sums))
    table = np.array([[part for sums in figures.values() for part in sums.get(unit, (0, 0))] for unit in units])
    ratios = {name: lambda c, at=2 * at: (c[at], c[at + 1]) for at, name in enumerate(figures)}
    return Counted(units, table, ratios)


def compare_counted(
    first: Counted, second: Counted, better: Mapping[str, bool], level: float = 0.95, **options: Any
) -> Found:
    """Every figure of two systems on the same units, as `metrics.compare.Comparison`.

    Args:
        better: figure -> whether higher is better; of others neither direction is.
        options: samples and seed of `metrics.paired.paired_differences`.

    >>> mine, theirs = (Counted("abcdefgh", np.array([[right, 1]] * 8), {"accuracy": tuple}) for right in (1, 0))
    >>> str(compare_counted(mine, theirs, {"accuracy": True})["accuracy"])
    '1.000 against 0.000: +1.000 [+1.000, +1.000] (n=8, p=0.00781), better'

    Raises:
        ValueError: other units.
    """
    if list(first.units) != list(second.units):
        raise ValueError(
            f"{len(first.units)} and {len(second.units)} units that are not the same: a paired difference needs the "
            "same ones in the same order."
        )
    one, two = (counted.columns(counted.table) for counted in (first, second))
    figures = {name: (*of(one), *of(two)) for name, of in first.ratios.items()}
    unbounded = [name for name in figures if first.ends.get(name, ()) is None]
    found = paired_differences(figures, unbounded, level=level, **options) if figures else {}
    for name, statistic in first.composed.items():
        ends = first.ends.get(name, (-1.0, 1.0))
        found[name] = composed_difference(first.table, second.table, statistic, ends, level=level, **options)
    values = {name: (_ratio(*columns[:2]), _ratio(*columns[2:])) for name, columns in figures.items()}
    values |= {name: (_at(of, first.table), _at(of, second.table)) for name, of in first.composed.items()}
    return {
        name: Comparison(*values[name], d.estimate, better.get(name), d.p, level, d.differing)
        for name, d in found.items()
    }


def composed_difference(
    units_a: NDArray, units_b: NDArray, statistic: Statistic, ends: tuple[float, float] | None = (-1.0, 1.0),
    samples: int = SWAPS, seed: int = 0, level: float = 0.95,
) -> Difference:  # fmt: skip
    """Difference of a figure that is any smooth function of summed counts, tested by swapping units.

    D = f(Σ a_i) − f(Σ b_i),   d_i = ∇f(Σa)·a_i − ∇f(Σb)·b_i,   se² = n/(n − 1)·Σ (d_i − d̄)²,   T = |D| / se

    p and interval from T* of swaps as `metrics.paired.paired_differences`, to which this is equal where f is a ratio.

    Args:
        units_a, units_b: (units, counts) of the two systems.
        statistic: f, from sums of shape (…, counts); not a number where it is not defined.

    A figure that one system does not have has n = 0, p = 1 and an interval over all of `ends`.
    """
    a, b = np.asarray(units_a, dtype=float), np.asarray(units_b, dtype=float)
    m, d = (a + b) / 2, (a - b) / 2
    differs = d.any(axis=1)
    count = int(differs.sum())
    value, se, there = (float(x[0]) for x in _statistics(m, d, np.ones((1, len(m))), statistic))
    if np.isnan(value):
        low, high = ends or (-1.0, 1.0)
        return Difference(Estimate(_at(statistic, a) - _at(statistic, b), low, high, 0), 1.0, 0)
    swapped = []
    for swap in [_every_swap(count)] if count <= EXACT else _random_swaps(count, samples, seed):
        signs = np.ones((len(swap), len(m)))
        signs[:, differs] = swap if count <= EXACT else 1 - 2 * swap
        for start in range(0, len(signs), CHUNK):
            swapped.append(_statistics(m, d, signs[start : start + CHUNK], statistic)[2])
    return judge(Seen(value, se, there, count, len(m)), np.concatenate(swapped), ends, level)


def _statistics(m: NDArray, d: NDArray, signs: NDArray, statistic: Statistic) -> tuple[NDArray, NDArray, NDArray]:
    """(D, se, T) of swaps, each (swaps,); signs: (swaps, units) of ±1."""
    n, moved = len(m), signs @ d
    a, b = m.sum(axis=0) + moved, m.sum(axis=0) - moved
    with np.errstate(divide="ignore", invalid="ignore"):
        difference = statistic(a) - statistic(b)
        up, down = _slopes(statistic, a), _slopes(statistic, b)
        each = (up - down) @ m.T + signs * ((up + down) @ d.T)
        each -= each.mean(axis=1, keepdims=True)
        se = np.sqrt(np.square(each).sum(axis=1) * n / max(n - 1, 1))
        scale = np.abs(statistic(a)) + np.abs(statistic(b))
        difference[np.abs(difference) < 1e-12 * scale] = 0
        se[se < 1e-9 * scale] = 0  # rounding
        ratio = np.where(difference == 0, 0.0, np.abs(difference) / se)
    return difference, se, np.where(np.isnan(ratio), inf, ratio)


def _slopes(statistic: Statistic, sums: NDArray) -> NDArray:
    """∂f/∂count at each row of sums, by central differences; 0 where f is not defined on one side."""
    found = np.zeros_like(sums)
    for at in range(sums.shape[-1]):
        step = STEP * np.maximum(np.abs(sums[:, at]), 1)
        up, down = sums.copy(), sums.copy()
        up[:, at] += step
        down[:, at] -= step
        found[:, at] = np.nan_to_num((statistic(up) - statistic(down)) / (2 * step))
    return found


def _ratio(tops: Any, bottoms: Any) -> float:
    bottom = float(np.sum(bottoms))
    return float(np.sum(tops)) / bottom if bottom else 0.0


def _at(statistic: Statistic, table: NDArray) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.nan_to_num(statistic(np.asarray(table, dtype=float).sum(axis=0))))
