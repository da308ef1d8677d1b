"""Risks as probabilities: curves that map one to the other, how reliable they are, and the figures of a diagram.

Zadrozny and Elkan, KDD 2002 (isotonic regression); Platt, 1999 (a logistic curve); Guo et al., ICML 2017 (reliability).
A curve is fitted on some images and judged on others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .estimate import Estimate, ratio, wilson
from .ranking import BINS, Ranking

KINDS = ("isotonic", "platt")
DIGITS = 6


@dataclass(frozen=True)
class Bin:
    """Items whose probability is at least `low` and below `high` (the last bin: at most).

    count: how many. probability: their mean. share: of them that is hallucinated, with its interval; n is the number of
    images, or of items where no images are given.
    """

    low: float
    high: float
    count: int
    probability: float
    share: Estimate


def reliability(
    probabilities: ArrayLike, labels: ArrayLike, images: Sequence[str | int] | None = None, bins: int = BINS,
    level: float = 0.95,
) -> list[Bin]:  # fmt: skip
    """The bins of a reliability diagram, equally wide, empty ones left out; on the diagonal share = probability.

    images: whose item it is: intervals are by bootstrap over images; without, Wilson's over items. The expected
    calibration error is Σ count·|share − probability| / Σ count.

    >>> found = reliability([0.1, 0.1, 0.9, 0.9], [0, 0, 1, 0], bins=2)
    >>> [(b.count, b.probability, b.share.value) for b in found]
    [(2, 0.1, 0.0), (2, 0.9, 0.5)]

    Raises:
        ValueError: lists of different length, no items, labels other than 0 and 1, probabilities outside 0 to 1, or
            fewer than one bin.
    """
    if bins < 1:
        raise ValueError(f"bins={bins}: a diagram has one bin or more.")
    items = Ranking(probabilities, labels, None if images is None else np.unique(images, return_inverse=True)[1])
    p, wrong, whose = items.risks, items.labels, items.strata
    if p.min() < 0 or p.max() > 1:
        raise ValueError(f"calibration needs probabilities in 0 to 1; found {p.min():g} to {p.max():g}.")
    place = np.minimum((p * bins).astype(int), bins - 1)
    out = []
    for number in np.unique(place).tolist():
        here = place == number
        if images is None:
            share = wilson(float(wrong[here].sum()), int(here.sum()), level)
        else:
            of = np.unique(whose[here], return_inverse=True)[1]
            share = ratio(np.bincount(of, wrong[here]), np.bincount(of), level=level)
        count, mean = int(here.sum()), float(p[here].mean())
        out.append(Bin(number / bins, (number + 1) / bins, count, round(mean, 12), share))
    return out


@dataclass(frozen=True)
class Curve:
    """A rising map from risk to probability.

    isotonic: straight lines between `knots`, (risk, probability) in rising order, flat outside them. platt: σ(a·r + b),
    `knots` = ((a, b),).
    """

    kind: str
    knots: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        points = np.array(self.knots, dtype=float)
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r} is neither {' nor '.join(KINDS)}.")
        if points.ndim != 2 or points.shape[1:] != (2,) or not np.isfinite(points).all():
            raise ValueError("the knots of a curve are pairs of finite numbers, one or more.")
        if self.kind == "platt" and len(points) != 1:
            raise ValueError(f"a platt curve has one pair (a, b); found {len(points)}.")
        falls = (np.diff(points, axis=0) < 0).any()
        if self.kind == "isotonic" and (falls or points[:, 1].min() < 0 or points[:, 1].max() > 1):
            raise ValueError("the knots of an isotonic curve rise in risk and, within 0 to 1, in probability.")

    def __call__(self, risks: ArrayLike) -> NDArray:
        """The probabilities, (items,); nan where the risk is.

        >>> Curve("isotonic", ((0.0, 0.1), (1.0, 0.5)))([-1, 0.5, 2]).round(6).tolist()
        [0.1, 0.3, 0.5]
        >>> Curve("platt", ((2.0, -1.0),))([0.5]).tolist()
        [0.5]
        """
        values = np.asarray(risks, dtype=float)
        points = np.array(self.knots, dtype=float)
        if self.kind == "platt":
            return 1 / (1 + np.exp(-np.clip(points[0, 0] * values + points[0, 1], -60, 60)))
        return np.where(np.isnan(values), np.nan, np.interp(values, points[:, 0], points[:, 1]))

    def record(self) -> dict[str, Any]:
        """Plain values for a file."""
        return {"kind": self.kind, "knots": [list(knot) for knot in self.knots]}

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Curve":
        """The reverse of `record`.

        Raises:
            ValueError: it is no curve.
        """
        try:
            return cls(str(record["kind"]), tuple((float(a), float(b)) for a, b in record["knots"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"this is no curve: it needs kind and knots ({error!r}).") from error


def fit_curve(risks: ArrayLike, labels: ArrayLike, kind: str = "isotonic") -> Curve:
    """The curve that fits risks to labels (1 hallucinated), by scikit-learn.

    isotonic: least squares among all rising maps; it needs some hundred items. platt: a logistic regression without a
    penalty, for few.

    >>> fit_curve([1.0, 2.0, 3.0, 4.0], [0, 1, 0, 1]).knots
    ((1.0, 0.0), (2.0, 0.5), (3.0, 0.5), (4.0, 1.0))

    Raises:
        ValueError: as `reliability`, another kind, or labels of one class alone.
    """
    items = Ranking(risks, labels)
    if len(set(items.labels.tolist())) < 2:
        raise ValueError(f"{len(items.labels)} items are all alike; a curve needs hallucinated and real ones.")
    finite = np.isfinite(items.risks)
    r, wrong = items.risks[finite], items.labels[finite]
    if kind == "platt":
        from sklearn.linear_model import LogisticRegression

        middle, scale = float(r.mean()), float(r.std()) or 1.0
        fit = LogisticRegression(C=1e6, max_iter=1000).fit(((r - middle) / scale)[:, None], wrong)
        slope = float(fit.coef_[0, 0]) / scale
        return Curve("platt", ((slope, float(fit.intercept_[0]) - slope * middle),))
    if kind != "isotonic":
        raise ValueError(f"kind={kind!r} is neither {' nor '.join(KINDS)}.")
    from sklearn.isotonic import IsotonicRegression

    fit = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(r, wrong)
    x, y = np.round(fit.X_thresholds_, DIGITS), np.round(fit.y_thresholds_, DIGITS)
    return Curve("isotonic", tuple(zip(x.tolist(), y.tolist(), strict=True)))
