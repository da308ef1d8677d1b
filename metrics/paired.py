"""Two systems on the same images: differences of ratios with a test that holds its level for few images too.

Swapping the systems image by image gives the test (Pitman, 1937); studentising it keeps the level where two systems
differ in other ways than in the figure, such as length (Janssen, Statistics & Probability Letters 1997). Holm,
Scandinavian Journal of Statistics 1979, for many verdicts at once. docs/statistics.md has the simulation.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .estimate import Estimate, mcnemar

SWAPS = 9999  # random swaps; with the data themselves 10,000
CHUNK = 1000  # of them in memory at a time
EXACT = 13  # up to so many images that differ all 2^12 distinct swaps are taken
RARE = 10  # fewer swaps than this beyond the data: their share is too coarse, and Student's tail takes over
TIE = 1e-9  # relative; statistics that close are equal


@dataclass(frozen=True)
class Difference:
    """First system minus second in one figure.

    Args:
        estimate: the difference, its interval and the number of images. The interval holds 0 exactly where p is above
            1 − level.
        p: two-sided, of "the two systems are alike".
        differing: images on which the counts behind the figure differ. With d of them p is at least 2^(1 − d).
    """

    estimate: Estimate
    p: float
    differing: int


class Moments(NamedTuple):
    """Sums that no swap changes: of means m and half differences δ of the two systems' tops t and bottoms b."""

    t: float
    b: float
    means: tuple[float, float, float]  # Σm_t², Σm_t·m_b, Σm_b²
    halves: tuple[float, float, float]  # Σδ_t², Σδ_t·δ_b, Σδ_b²
    images: int


def paired_difference(units_a: ArrayLike, units_b: ArrayLike, share: bool = True, **options) -> Difference:
    """Difference of one ratio; units: (images, 2), top and bottom of each image. Options: as `paired_differences`.

    >>> one = paired_difference([[1, 1]] * 8 + [[0, 1]] * 4, [[0, 1]] * 12)
    >>> round(one.estimate.value, 4), one.p, one.differing
    (0.6667, 0.0078125, 8)

    Raises:
        ValueError: tables of other shape than (images, 2) with at least one image, or of different shape.
    """
    a, b = (np.asarray(units, dtype=float) for units in (units_a, units_b))
    for name, rows in (("units_a", a), ("units_b", b)):
        if rows.ndim != 2 or rows.shape[1] != 2 or not len(rows):
            raise ValueError(f"{name} has shape {rows.shape}; needed: (images, 2) with at least one image.")
    if a.shape != b.shape:
        raise ValueError(
            f"units_a is {a.shape} (images, counts) and units_b {b.shape}: a paired difference needs the same images "
            "in the same order; keep the images that both systems answered."
        )
    return paired_differences({"": (*a.T, *b.T)}, () if share else ("",), **options)[""]


def paired_differences(
    figures: Mapping[str, Sequence[ArrayLike]],
    unbounded: Sequence[str] = (),
    samples: int = SWAPS,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Difference]:
    """Differences of several ratios of sums over the same images.

    D = Σ t_A / Σ b_A − Σ t_B / Σ b_B,   d_i = (t_Ai − θ_A·b_Ai) / b̄_A − (t_Bi − θ_B·b_Bi) / b̄_B,
    se² = Σ d_i² / n(n − 1),   T = |D| / se,   p = share of swaps of A and B, image by image, with T* ≥ T

    θ: each system's figure; b̄: mean bottom per image; d_i: what image i adds to D, to first order. Every T* has its own
    se. Interval: D ± c·se, c the largest T* that is not significant at 1 − level.

    Where two systems' answers are exchangeable, as two seeds of the same decoding, p is exact for any number of images;
    where the figure is equal but the systems are not, it is so for many images. Few images make it conservative: with
    fewer than 6 that differ nothing is significant at 5 %.

    Args:
        figures: name -> (tops of A, bottoms of A, tops of B, bottoms of B), each (images,).
        unbounded: figures that can leave 0 to 1.
        samples: random swaps, where more than 13 images differ; all swaps otherwise. seed: of these.
        level: of the intervals.

    A share of single trials, such as CHAIR_s, has McNemar's exact p. A figure that one system does not have (its
    bottoms add up to 0) has n = 0, p = 1 and an interval from −1 to 1.
    """
    if samples < 1:
        raise ValueError(f"samples={samples}: a test needs at least one swap; {SWAPS} is usual.")
    if not 0 < level < 1:
        raise ValueError(f"level={level} is outside 0 to 1 (share of the interval): 0.95 is usual.")
    found: dict[str, Difference] = {}
    tables: dict[str, tuple[Moments, NDArray]] = {}
    for name, columns in figures.items():
        top_a, bottom_a, top_b, bottom_b = (np.asarray(column, dtype=float) for column in columns)
        if bottom_a.sum() and bottom_b.sum():
            tables[name] = _table(top_a, bottom_a, top_b, bottom_b)
        else:
            value = top_a.sum() / (bottom_a.sum() or 1) - top_b.sum() / (bottom_b.sum() or 1)
            found[name] = Difference(Estimate(float(value), -1.0, 1.0, 0), 1.0, 0)
    swapped = _swapped(tables, samples, seed)
    for name, (moments, points) in tables.items():
        found[name] = _difference(moments, points, swapped[name], name not in unbounded, level)
    return {name: found[name] for name in figures}


def holm(ps: Sequence[float]) -> list[float]:
    """p's of tests that are read together, adjusted: one is significant where its adjusted p is at most 1 − level.

    p̃_(i) = min(1, max_{j ≤ i} (m − j + 1)·p_(j)),   p_(1) ≤ … ≤ p_(m)

    The chance of one false verdict among all m, or more, is then at most 1 − level, however they hang together.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    adjusted, highest = [0.0] * len(ps), 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=lambda place: ps[place])):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[place]))
        adjusted[place] = highest
    return adjusted


# -- the statistic and its swaps -----------------------------------------------------------------------------------
def _table(top_a: NDArray, bottom_a: NDArray, top_b: NDArray, bottom_b: NDArray) -> tuple[Moments, NDArray]:
    """What swaps leave as it is, and (images that differ, 6): δ_t, δ_b and their products with m_t and m_b."""
    m_t, d_t = (top_a + top_b) / 2, (top_a - top_b) / 2
    m_b, d_b = (bottom_a + bottom_b) / 2, (bottom_a - bottom_b) / 2
    moments = Moments(
        float(m_t.sum()), float(m_b.sum()), (float(m_t @ m_t), float(m_t @ m_b), float(m_b @ m_b)),
        (float(d_t @ d_t), float(d_t @ d_b), float(d_b @ d_b)), len(m_t),
    )  # fmt: skip
    columns = np.stack([d_t, d_b, m_t * d_t, m_t * d_b, m_b * d_t, m_b * d_b], axis=-1)
    columns[(d_t == 0) & (d_b == 0)] = 0
    return moments, columns


def _statistic(moments: Moments, sums: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """(D, se, T) of swaps s from Σ s·columns, each (swaps,); T is infinite where se is 0 or a bottom adds up to 0."""
    n = moments.images
    t, b, tt, tb, bt, bb = np.moveaxis(sums, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        per_a, per_b = n / (moments.b + b), n / (moments.b - b)  # 1 / b̄
        theta_a, theta_b = (moments.t + t) / n * per_a, (moments.t - t) / n * per_b
        # d_i = p·m_t − q·m_b + s_i·(r·δ_t − u·δ_b), squared and summed
        p, r = per_a - per_b, per_a + per_b
        q, u = theta_a * per_a - theta_b * per_b, theta_a * per_a + theta_b * per_b
        (m_tt, m_tb, m_bb), (d_tt, d_tb, d_bb) = moments.means, moments.halves
        fixed = p * p * m_tt - 2 * p * q * m_tb + q * q * m_bb + r * r * d_tt - 2 * r * u * d_tb + u * u * d_bb
        total = fixed + 2 * (p * r * tt - p * u * tb - q * r * bt + q * u * bb)
        total[total < 1e-12 * (r * r * (m_tt + d_tt) + u * u * (m_bb + d_bb))] = 0  # rounding
        se = np.sqrt(total / (n * max(n - 1, 1)))
        difference = theta_a - theta_b
        difference[np.abs(difference) < 1e-12 * (np.abs(theta_a) + np.abs(theta_b))] = 0
        ratio = np.where(difference == 0, 0.0, np.abs(difference) / se)
    return difference, se, np.where(np.isnan(ratio), inf, ratio)


def _swapped(tables: Mapping[str, tuple[Moments, NDArray]], samples: int, seed: int) -> dict[str, NDArray]:
    """T* of every figure: all distinct swaps where few images differ, else the same random ones for all figures."""
    found: dict[str, NDArray] = {}
    many: dict[str, tuple[Moments, NDArray]] = {}
    for name, (moments, columns) in tables.items():
        rows = columns[columns.any(axis=1)]
        if len(rows) > EXACT:
            many[name] = moments, columns
        else:
            found[name] = _statistic(moments, _every_swap(len(rows)) @ rows)[2]
    if many:
        together = np.concatenate([columns for _, columns in many.values()], axis=1)
        used = together[together.any(axis=1)]
        parts = [swap @ used for swap in _random_swaps(len(used), samples, seed)]
        sums = (used.sum(axis=0) - 2 * np.concatenate(parts)).reshape(samples, len(many), -1)
        found |= {name: _statistic(moments, sums[:, at])[2] for at, (name, (moments, _)) in enumerate(many.items())}
    return found


def _every_swap(images: int) -> NDArray:
    """(swaps, images) of ±1. Swapping all images is the same as none, so the last one stays."""
    numbers = np.arange(2 ** max(images - 1, 0))
    return 1.0 - 2.0 * ((numbers[:, None] >> np.arange(images)) & 1)


def _random_swaps(images: int, samples: int, seed: int) -> Iterator[NDArray]:
    """(swaps, images), some at a time: 1 where an image is swapped, else 0."""
    generator = np.random.default_rng(seed)
    for start in range(0, samples, CHUNK):
        count = min(CHUNK, samples - start)
        drawn = np.frombuffer(generator.bytes(count * -(-images // 8)), dtype=np.uint8).reshape(count, -1)
        yield np.unpackbits(drawn, axis=1)[:, :images].astype(float)


# -- p and interval ------------------------------------------------------------------------------------------------
def _difference(moments: Moments, columns: NDArray, swapped: NDArray, share: bool, level: float) -> Difference:
    value, se, statistic = (float(one[0]) for one in _statistic(moments, columns.sum(axis=0)[None]))
    rows = columns[columns.any(axis=1)]
    one_sided = None
    if len(rows) and not rows[:, 1].any() and not np.ptp(np.abs(rows), axis=0).any():  # only their number counts
        one_sided = rows[:, 0] > 0
    return judge(Seen(value, se, statistic, len(rows), moments.images), swapped, (-1.0, 1.0) if share else None, level,
                 one_sided)  # fmt: skip


class Seen(NamedTuple):
    """A difference as it is: its value, standard error and statistic, the units that differ, and all units."""

    value: float
    se: float
    statistic: float
    differing: int
    units: int


def judge(
    seen: Seen, swapped: NDArray, ends: tuple[float, float] | None, level: float, ahead: NDArray | None = None
) -> Difference:
    """p and interval of a difference from the statistics T* of its swaps.

    Args:
        swapped: of every distinct swap where at most EXACT units differ, else of random ones.
        ends: which the difference cannot leave; None is no end.
        ahead: of single trials, which of the differing ones the first system has right; p is then McNemar's.
    """
    value, se, statistic, differing, n = seen
    if not differing or (value == 0 and se == 0):
        return Difference(Estimate(value, value, value, n), 1.0, differing)
    exact = differing <= EXACT
    beyond = int(np.count_nonzero(swapped >= statistic * (1 - TIE)))
    p = beyond / len(swapped) if exact else (beyond + 1) / (len(swapped) + 1)
    if not exact and ahead is not None:
        p = mcnemar(list(ahead), list(~ahead))
    elif not exact and beyond < RARE:
        p = min(p, max(_tail(statistic, swapped, n), 2.0 ** (1 - differing)))
    return Difference(_interval(value, se, _critical(swapped, exact, level), p, ends, n, level), p, differing)


def _critical(swapped: NDArray, exact: bool, level: float) -> float:
    """The largest T* that is not significant."""
    beyond = int((1 - level) * (len(swapped) + (not exact)) + TIE) - (not exact)
    place = len(swapped) - 1 - min(max(beyond, 0), len(swapped) - 1)
    return float(np.partition(swapped, place)[place])


def _tail(statistic: float, swapped: NDArray, n: int) -> float:
    """p of Student's tail, scaled to meet the swaps where RARE of them lie beyond."""
    from scipy.special import stdtr, stdtrit

    edge = float(np.partition(swapped, -RARE)[-RARE])
    if not np.isfinite(edge) or edge <= 0:
        return 1.0
    scale = float(stdtrit(n - 1, 1 - RARE / (len(swapped) + 1) / 2)) / edge
    return float(2 * stdtr(n - 1, -statistic * scale))


def _interval(
    value: float, se: float, critical: float, p: float, ends: tuple[float, float] | None, n: int, level: float
) -> Estimate:
    """value ± critical·se; where so few images differ that no T* is finite, Student's, widened to hold 0."""
    half = critical * se if se > 0 else 0.0
    if not np.isfinite(critical) and p > 1 - level:
        from scipy.special import stdtrit

        half = float(stdtrit(n - 1, (1 + level) / 2)) * se if n > 1 else 0.0
    if p <= 1 - level:
        half = min(half, abs(value) * (1 - TIE))
    low, high = value - half, value + half
    if p > 1 - level:
        low, high = min(low, 0.0), max(high, 0.0)
    if ends is not None:
        low, high = max(low, ends[0]), min(high, ends[1])
    return Estimate(value, low, high, n)
