"""A measured value with its interval: Wilson, bootstrap by image; McNemar's test. Differences are in `paired`.

Wilson, JASA 1927; Efron and Tibshirani, "An Introduction to the Bootstrap", 1993; McNemar, Psychometrika 1947.

Images are what a benchmark samples, so images are what is resampled: the mentions in one caption or the questions
about one image are not independent of each other, and intervals that treat them so are too narrow.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import comb, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Statistic = Callable[[NDArray], NDArray]
CHUNK = 100  # resamples held in memory at a time


@dataclass(frozen=True)
class Estimate:
    """A value, the ends of its interval, and how many images (or questions) it rests on.

    `n` is 0 where nothing could be measured, such as CHAIR_i over captions that mention no object.

    >>> str(Estimate(0.125, 0.1, 0.152, 500))
    '0.125 [0.100, 0.152] (n=500)'
    """

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] (n={self.n})"


def wilson(successes: float, n: int, level: float = 0.95) -> Estimate:
    """Interval of a share of n independent trials; 0 is none, 1 is all, and it stays inside 0 to 1.

    centre = (p + z²/2n) / (1 + z²/n),   half = z·√(p(1−p)/n + z²/4n²) / (1 + z²/n),   p = successes / n

    Nothing tried, nothing known: n = 0 gives value 0 within 0 to 1.

    >>> e = wilson(9, 10)
    >>> round(e.low, 4), round(e.high, 4)
    (0.5958, 0.9821)

    Raises:
        ValueError: successes outside 0 to n, or level outside 0 to 1.
    """
    _check_level(level)
    if n < 0 or not 0 <= successes <= n:
        raise ValueError(f"successes={successes} is outside 0 to n={n}: count the trials in n, successes among them.")
    if n == 0:
        return Estimate(0.0, 0.0, 1.0, 0)
    z, p = NormalDist().inv_cdf((1 + level) / 2), successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return Estimate(float(p), float(max(0.0, min(p, centre - half))), float(min(1.0, max(p, centre + half))), n)


def bootstrap(
    units: ArrayLike, statistic: Statistic, samples: int = 1000, seed: int = 0, level: float = 0.95
) -> Estimate:
    """Percentile interval of a statistic of summed counts, images drawn with replacement.

    value = statistic(Σ_i u_i);   resample s: statistic(Σ_i w_si·u_i),   w_s ~ Multinomial(n; 1/n, …, 1/n)

    Args:
        units: (images, counts), one row of counts per image.
        statistic: maps sums of shape (…, counts) to values of shape (…).
        samples: how many resamples.
        seed: the interval is the same for the same seed.
        level: share of resamples between the ends.

    0/0 is nan: so is the value if the counts of all images give 0/0. Resamples that give nan are left out of the
    interval; it is nan if all do.

    >>> e = bootstrap([[1, 2], [0, 2], [2, 2], [1, 2]], lambda sums: sums[..., 0] / sums[..., 1])
    >>> e.value, e.low, e.high, e.n
    (0.5, 0.125, 0.875, 4)

    Raises:
        ValueError: units that are not a table, no image, samples below 1, level outside 0 to 1.
    """
    rows = _table(units, "units")
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(statistic(rows.sum(axis=0)))
        drawn = np.concatenate([statistic(weights @ rows) for weights in _weights(len(rows), samples, seed)])
    low, high = _ends(drawn, level)
    return Estimate(value, low, high, len(rows))


def ratio(tops: ArrayLike, bottoms: ArrayLike, share: bool = True, **options) -> Estimate:
    """Σ tops / Σ bottoms over images with a bootstrap interval, never nan: an empty denominator gives 0 with n = 0.

    Args:
        tops, bottoms: (images,), numerator and denominator of each image.
        share: the ratio cannot leave 0 to 1. Then 0/0 is 0 within 0 to 1, and a value of exactly 0 or 1, or a single
            image, gets Wilson's interval with one trial per image: all resamples are equal there, which would look
            like certainty.
        options: samples, seed and level of `bootstrap`.

    >>> ratio([0, 0, 0], [2, 1, 4]).high > 0.5
    True
    >>> ratio([0, 0], [0, 0])
    Estimate(value=0.0, low=0.0, high=1.0, n=0)

    Raises:
        ValueError: as `bootstrap`.
    """
    units = np.stack([np.asarray(tops, dtype=float), np.asarray(bottoms, dtype=float)], axis=-1)
    estimate = bootstrap(units, lambda sums: sums[..., 0] / sums[..., 1], **options)
    if units[:, 1].sum() == 0:
        return Estimate(0.0, 0.0, 1.0 if share else 0.0, 0)
    if share and (estimate.value in (0.0, 1.0) or estimate.n == 1):
        return wilson(estimate.value * estimate.n, estimate.n, options.get("level", 0.95))
    return estimate


def mcnemar(correct_a: Sequence[bool], correct_b: Sequence[bool]) -> float:
    """Two-sided p of "both systems are right equally often", from the questions on which they differ; exact.

    p = min(1, 2·P(X ≤ min(b, c))),   X ~ Binomial(b + c, ½),   b, c: right only in the first, only in the second

    Small p speaks against equality; 1 where they never differ. Questions count as independent: several questions
    about one image make p too small, so prefer `paired.paired_difference` by image where images repeat.

    >>> mcnemar([True] * 10, [False] * 8 + [True] * 2)
    0.0078125

    Raises:
        ValueError: lists of different length.
    """
    if len(correct_a) != len(correct_b):
        raise ValueError(
            f"{len(correct_a)} and {len(correct_b)} answers: McNemar's test needs the same questions in the same order."
        )
    only_a = sum(bool(a) and not b for a, b in zip(correct_a, correct_b, strict=True))
    only_b = sum(bool(b) and not a for a, b in zip(correct_a, correct_b, strict=True))
    trials = only_a + only_b
    tail = sum(comb(trials, k) for k in range(min(only_a, only_b) + 1))
    return min(1.0, 2 * tail / 2**trials)


def _table(units: ArrayLike, name: str) -> NDArray:
    rows = np.asarray(units, dtype=float)
    if rows.ndim != 2 or not len(rows):
        raise ValueError(f"{name} has shape {rows.shape}; needed: (images, counts) with at least one image.")
    return rows


def _weights(images: int, samples: int, seed: int) -> Iterator[NDArray]:
    """How often each image is drawn, a chunk of resamples at a time: (resamples, images)."""
    if samples < 1:
        raise ValueError(f"samples={samples}: a bootstrap needs at least one resample; 1000 is usual.")
    generator = np.random.default_rng(seed)
    even = np.full(images, 1 / images)
    for start in range(0, samples, CHUNK):
        yield generator.multinomial(images, even, size=min(CHUNK, samples - start)).astype(float)


def _ends(drawn: NDArray, level: float) -> tuple[float, float]:
    _check_level(level)
    known = drawn[~np.isnan(drawn)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level={level} is outside 0 to 1 (share of the interval): 0.95 is usual.")
