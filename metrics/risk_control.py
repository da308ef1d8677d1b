"""Distribution-free control of a risk: conformal risk control, and learn-then-test with a fixed sequence.

Angelopoulos, Bates, Fisch, Lei and Schuster, "Conformal Risk Control", 2022, arXiv 2208.02814; Angelopoulos, Bates,
Candès, Jordan and Lei, "Learn then Test: Calibrating Predictive Algorithms to Achieve Risk Control", 2021, arXiv
2110.01052; Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 2024.

A loss is a number from 0 to 1 of one image under one setting, such as the share of a caption's mentions that are not
there. All that is assumed is that calibration images and later ones are exchangeable: drawn alike, in any order.
"""

from collections.abc import Sequence
from math import ceil, log

import numpy as np
from numpy.typing import ArrayLike, NDArray


def conformal_setting(losses: ArrayLike, level: float) -> int | None:
    r"""The boldest of several settings whose expected loss on a new image is at most `level`; None where none is.

    λ̂ = the last k with n/(n + 1)·R̂_j + 1/(n + 1) ≤ α for it and all before it,   R̂_j = mean_i max_{j' ≤ j} L_ij'

    E[L(λ̂)] ≤ α, over calibration images and the new one (Theorem 1). Losses need not grow with k: the largest loss of
    an image up to k stands in for that at k, which is what the paper does with losses that are not monotone (Sec. 2.1).

    Args:
        losses: (images, settings), 0 to 1, the safest setting first. level: α, between 0 and 1.

    >>> conformal_setting([[0, 0, 1]] * 5 + [[0, 0, 0]] * 14, 0.1)
    1

    Raises:
        ValueError: no image or setting, a loss outside 0 to 1, or a level outside 0 to 1.
    """
    table = _losses(losses, 2)
    _share("level", level)
    n = len(table)
    bound = (np.maximum.accumulate(table, axis=1).sum(axis=0) + 1) / (n + 1)
    good = int(np.count_nonzero(np.logical_and.accumulate(bound <= level + 1e-12)))
    return good - 1 if good else None


def betting_p(losses: ArrayLike, level: float, confidence: float = 0.9) -> float:
    r"""p of "the expected loss is above `level`", by betting against it image by image; small p speaks for the setting.

    K_t = ∏_{i ≤ t} (1 + ν_i·(α − L_i)),   p = min(1, 1 / max_t K_t),   ν_i = min(1, √(2·ln(1/δ) / (n·σ̂²_{i−1})))

    σ̂²_i = (¼ + Σ_{j ≤ i} (L_j − μ̂_j)²) / (i + 1),   μ̂_i = (½ + Σ_{j ≤ i} L_j) / (i + 1),   δ = 1 − confidence

    K is a fair game at best where the expected loss is α or more, so that P(p ≤ δ) ≤ δ for any number of images and any
    distribution (Ville). Bets depend on earlier images alone; `confidence` only says for which δ they are sized.

    Args:
        losses: (images,), 0 to 1, in random order.

    >>> betting_p([0.0] * 60, 0.1) < 0.1 < betting_p([0.0] * 15, 0.1)
    True

    Raises:
        ValueError: no image, a loss, level or confidence outside 0 to 1.
    """
    values = _losses(losses, 1)
    _share("level", level)
    _share("confidence", confidence)
    count = np.arange(1, len(values) + 1)
    means = (0.5 + np.cumsum(values)) / (count + 1)
    spread = (0.25 + np.cumsum(np.square(values - means))) / (count + 1)
    before = np.concatenate([[0.25], spread[:-1]])
    bets = np.minimum(1, np.sqrt(2 * log(1 / (1 - confidence)) / (len(values) * before)))
    capital = np.exp(np.cumsum(np.log1p(bets * (level - values)))).max()
    return float(min(1.0, 1 / capital)) if capital > 0 else 1.0


def fixed_sequence(losses: ArrayLike, level: float, confidence: float) -> tuple[int, list[float]]:
    """How many settings, from the first on, are certified to have an expected loss of at most `level`; and their p's.

    Settings are tested one after another, each at δ = 1 − confidence, until the first whose p is above δ. The chance
    that any certified setting has an expected loss above the level is at most δ, provided that their order was fixed
    without these images (Learn then Test, Sec. 2.3, "fixed sequence testing").

    Args:
        losses: (images, settings), 0 to 1, in the order of testing.

    >>> fixed_sequence([[0.0, 1.0, 0.0]] * 60, 0.1, 0.9)[0]
    1

    Raises:
        ValueError: as `betting_p`.
    """
    table = _losses(losses, 2)
    ps: list[float] = []
    for column in table.T:
        ps.append(betting_p(column, level, confidence))
        if ps[-1] > 1 - confidence:
            return len(ps) - 1, ps
    return len(ps), ps


def images_needed(level: float, confidence: float | None = None) -> int:
    """The fewest images with which anything can be claimed, even if no caption has a single mistake.

    (1 − α)ⁿ ≤ δ, since a loss of 1 that n images did not show may still have a chance of α; without confidence
    1/(n + 1) ≤ α. With fewer, no valid method can claim the level.

    >>> images_needed(0.1, 0.9), images_needed(0.1)
    (22, 9)

    Raises:
        ValueError: a level or confidence outside 0 to 1.
    """
    _share("level", level)
    if confidence is None:
        return ceil(1 / level - 1 - 1e-9)
    _share("confidence", confidence)
    return ceil(log(1 - confidence) / log(1 - level) - 1e-9)


def frontier(risks: Sequence[float], gains: Sequence[float]) -> list[int]:
    """Places of the settings that no other beats in both, by rising risk and rising gain.

    >>> frontier([0.1, 0.3, 0.2, 0.2], [0.5, 0.6, 0.4, 0.55])
    [0, 3, 1]
    """
    found: list[int] = []
    for place in sorted(range(len(risks)), key=lambda at: (risks[at], -gains[at])):
        if not found or gains[place] > gains[found[-1]]:
            found.append(place)
    return found


def _losses(losses: ArrayLike, dimensions: int) -> NDArray:
    table = np.asarray(losses, dtype=float)
    if table.ndim != dimensions or not table.size:
        shape = "(images, settings)" if dimensions == 2 else "(images,)"
        raise ValueError(f"losses have shape {table.shape}; needed: {shape} with at least one of each.")
    if not ((table >= 0) & (table <= 1)).all():
        raise ValueError("a loss is outside 0 to 1: divide by the largest possible one.")
    return table


def _share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name}={value} is outside 0 to 1; 0.1 is a usual level, 0.9 a usual confidence.")
