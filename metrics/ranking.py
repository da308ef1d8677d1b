"""How well a risk tells hallucinated from real: AUROC, AUPRC and calibration, with intervals by image.

Hanley and McNeil, Radiology 1982 (AUROC); Davis and Goadrich, ICML 2006 (AUPRC); Guo et al., ICML 2017 (ECE).
Risks and labels are one per item (a mention, an answer); several items share an image, and images are resampled.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .estimate import Estimate, _ends, _weights, wilson

HIGHER_IS_BETTER = {"auroc": True, "auprc": True, "ece": False, "auroc_at_equal_position": True}
BINS = 15


class Ranking:
    """Items in the order of their risk, ready to be weighted again and again.

    Args:
        risks: (items,), higher means more likely hallucinated.
        labels: (items,), 1 hallucinated, 0 real.
        strata: (items,) or None; only items of one stratum are compared with each other in `auroc`.

    Every figure takes weights (…, items), how often each item counts, and gives (…,); nan where it is undefined.

    Raises:
        ValueError: lists of different length, no items, a label other than 0 and 1, or a risk that is no number.
    """

    def __init__(self, risks: ArrayLike, labels: ArrayLike, strata: ArrayLike | None = None) -> None:
        self.risks, self.labels = np.asarray(risks, dtype=float), np.asarray(labels, dtype=float)
        self.strata = np.zeros(len(self.risks)) if strata is None else np.asarray(strata)
        sizes = len(self.risks), len(self.labels), len(self.strata)
        if len(set(sizes)) > 1:
            raise ValueError(f"{sizes[0]} risks, {sizes[1]} labels and {sizes[2]} strata: each item has one of each.")
        if not sizes[0]:
            raise ValueError("no items to rank.")
        if not np.isin(self.labels, (0, 1)).all():
            found = sorted(set(self.labels.tolist()))[:5]
            raise ValueError(f"labels are 1 (hallucinated) or 0 (real); found {found}.")
        if np.isnan(self.risks).any():
            raise ValueError(f"{int(np.isnan(self.risks).sum())} of {sizes[0]} risks are no number.")

    @cached_property
    def _sorted(self) -> tuple[NDArray, NDArray, NDArray]:
        """Items by stratum, then risk; where each group of equal ones starts; the first group of each's stratum."""
        order = np.lexsort((self.risks, self.strata))
        risks, strata = self.risks[order], self.strata[order]
        new_stratum = np.r_[True, strata[1:] != strata[:-1]]
        starts = np.flatnonzero(new_stratum | np.r_[True, risks[1:] != risks[:-1]])
        first = np.maximum.accumulate(np.where(new_stratum[starts], np.arange(len(starts)), 0))
        return order, starts, first

    def _groups(self, weights: NDArray) -> tuple[NDArray, NDArray]:
        """Weight of hallucinated and of real items in each group of equal risk, lowest first."""
        order, starts, _ = self._sorted
        wrong = (weights * self.labels)[..., order]
        return np.add.reduceat(wrong, starts, -1), np.add.reduceat(weights[..., order] - wrong, starts, -1)

    def auroc(self, weights: NDArray) -> NDArray:
        """Share of (hallucinated, real) pairs in which the hallucinated one is riskier; ties count half."""
        wrong, real = self._groups(weights)
        first = self._sorted[2]
        below = np.cumsum(real, -1) - real
        below = below - below[..., first]  # of the same stratum
        ends = np.r_[first[1:] != first[:-1], True]
        total = (below + real)[..., ends]
        stratum = np.cumsum(np.r_[True, first[1:] != first[:-1]]) - 1
        pairs = (wrong * total[..., stratum]).sum(-1)
        return (wrong * (below + real / 2)).sum(-1) / pairs

    def auprc(self, weights: NDArray) -> NDArray:
        """Average precision: Σ_k (R_k − R_{k−1})·P_k over falling thresholds; a random risk gives the base rate."""
        wrong, real = (part[..., ::-1] for part in self._groups(weights))
        found, flagged = np.cumsum(wrong, -1), np.cumsum(wrong + real, -1)
        precision = np.divide(found, flagged, out=np.zeros_like(found), where=flagged > 0)
        return (wrong * precision).sum(-1) / wrong.sum(-1)

    def ece(self, weights: NDArray) -> NDArray:
        """Expected calibration error: Σ_b share_b·|mean label − mean risk| over 15 equal bins of 0 to 1; 0 is best.

        Raises:
            ValueError: a risk outside 0 to 1.
        """
        low, high = self.risks.min(), self.risks.max()
        if low < 0 or high > 1:
            raise ValueError(f"calibration needs risks in 0 to 1; found {low:g} to {high:g}.")
        bins = np.minimum((self.risks * BINS).astype(int), BINS - 1)
        member = (bins[:, None] == np.arange(BINS)).astype(float)
        gap = (weights * (self.labels - self.risks)) @ member
        return np.abs(gap).sum(-1) / weights.sum(-1)


def auroc(risks: ArrayLike, labels: ArrayLike, strata: ArrayLike | None = None) -> float:
    """Probability that a hallucinated item is riskier than a real one; ½ is chance, 1 perfect, higher is better.

    AUROC = Σ_{i wrong, j real} (1[r_i > r_j] + ½·1[r_i = r_j]) / pairs;   with strata, over pairs of one stratum alone.

    >>> round(auroc([0.9, 0.8, 0.7, 0.4, 0.3], [1, 0, 1, 1, 0]), 6)
    0.666667
    >>> auroc([0.5, 0.5, 0.9, 0.1], [1, 0, 1, 0])
    0.875

    nan where there is nothing to compare. Raises as `Ranking`.
    """
    return _plain(Ranking(risks, labels, strata), Ranking.auroc)


def auprc(risks: ArrayLike, labels: ArrayLike) -> float:
    """Average precision of flagging the riskiest first; the share of hallucinated items is chance, 1 perfect.

    >>> round(auprc([0.9, 0.8, 0.7, 0.4, 0.3], [1, 0, 1, 1, 0]), 6)
    0.805556

    nan where nothing is hallucinated. Raises as `Ranking`.
    """
    return _plain(Ranking(risks, labels), Ranking.auprc)


def ece(risks: ArrayLike, labels: ArrayLike) -> float:
    """Expected calibration error of risks that claim to be probabilities; 0 to 1, lower is better.

    >>> round(ece([0.9, 0.9, 0.1, 0.1], [1, 0, 0, 0]), 6)
    0.25

    Raises:
        ValueError: as `Ranking`, or a risk outside 0 to 1.
    """
    return _plain(Ranking(risks, labels), Ranking.ece)


def estimates(
    risks: ArrayLike, labels: ArrayLike, images: Sequence[str | int], positions: ArrayLike | None = None,
    probability: bool = False, samples: int = 1000, seed: int = 0, level: float = 0.95,
) -> dict[str, Estimate]:  # fmt: skip
    """Every figure with its percentile interval, images drawn with replacement; n is the number of images.

    Args:
        images: (items,), whose item it is.
        positions: (items,); then also auroc_at_equal_position, over pairs at the same place in their texts, where a
            risk that only knows the place has ½.
        probability: the risks claim to be probabilities; then also ece.

    A figure that the items leave undefined (all of one label) has value 0 and n = 0, within 0 to 1. Where the value is
    0 or 1 and all resamples agree, the interval is Wilson's with one trial per image.

    Raises:
        ValueError: as `Ranking`.
    """
    plain = Ranking(risks, labels)
    figures: dict[str, Callable[[NDArray], NDArray]] = {"auroc": plain.auroc, "auprc": plain.auprc}
    if probability:
        figures["ece"] = plain.ece
    if positions is not None:
        figures["auroc_at_equal_position"] = Ranking(risks, labels, positions).auroc
    whose = _whose(images, len(plain.risks))
    drawn = _drawn(figures, whose, samples, seed)
    return {name: _estimate(figure, drawn[name], whose, level) for name, figure in figures.items()}


def difference(
    risks_a: ArrayLike, risks_b: ArrayLike, labels: ArrayLike, images: Sequence[str | int], samples: int = 1000,
    seed: int = 0, level: float = 0.95,
) -> Estimate:  # fmt: skip
    """AUROC of the first risk minus that of the second on the same items, images of both resampled together.

    >>> difference([0.9, 0.1, 0.8, 0.2], [0.5, 0.5, 0.5, 0.5], [1, 0, 1, 0], ["a", "a", "b", "b"]).value
    0.5

    Raises:
        ValueError: as `Ranking`.
    """
    a, b = Ranking(risks_a, labels), Ranking(risks_b, labels)
    whose = _whose(images, len(a.risks))
    both = lambda weights: a.auroc(weights) - b.auroc(weights)
    value = float(_quiet(both, np.ones(len(whose))))
    if np.isnan(value):
        return Estimate(0.0, -1.0, 1.0, 0)
    low, high = _ends(_drawn({"": both}, whose, samples, seed)[""], level)
    return Estimate(value, low, high, int(whose.max()) + 1)


# -- helpers -------------------------------------------------------------------------------------------------------
def _plain(ranking: Ranking, figure: Callable[[Ranking, NDArray], NDArray]) -> float:
    return float(_quiet(lambda weights: figure(ranking, weights), np.ones(len(ranking.risks))))


def _quiet(figure: Callable[[NDArray], NDArray], weights: NDArray) -> NDArray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return figure(weights)


def _whose(images: Sequence[str | int], items: int) -> NDArray:
    """(items,) the number of each item's image."""
    if len(images) != items:
        raise ValueError(f"{items} items and {len(images)} images: name the image of each item.")
    numbers = {image: number for number, image in enumerate(dict.fromkeys(images))}
    return np.array([numbers[image] for image in images])


def _drawn(
    figures: Mapping[str, Callable[[NDArray], NDArray]], whose: NDArray, samples: int, seed: int
) -> dict[str, NDArray]:
    """(samples,) of every figure, all on the same resamples."""
    drawn: dict[str, list[NDArray]] = {name: [] for name in figures}
    for weights in _weights(int(whose.max()) + 1, samples, seed):
        for name, figure in figures.items():
            drawn[name].append(_quiet(figure, weights[:, whose]))
    return {name: np.concatenate(values) for name, values in drawn.items()}


def _estimate(figure: Callable[[NDArray], NDArray], drawn: NDArray, whose: NDArray, level: float) -> Estimate:
    value, images = float(_quiet(figure, np.ones(len(whose)))), int(whose.max()) + 1
    if np.isnan(value):
        return Estimate(0.0, 0.0, 1.0, 0)
    low, high = _ends(drawn, level)
    if low == high and value in (0.0, 1.0):
        return wilson(value * images, images, level)
    return Estimate(value, low, high, images)
