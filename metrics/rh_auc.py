"""RH-AUC: how much perception is left as a model reasons longer.

Liu et al., "More Thinking, Less Seeing? Assessing Amplified Hallucination in Multimodal Reasoning Models", 2025,
arXiv 2505.21523. The same model answers reasoning questions and perception questions at several reasoning lengths
(token budgets, or a steering strength); each length gives a point.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .estimate import Estimate, _ends, _weights

HIGHER_IS_BETTER = {"rh_auc": True, "mean_height": True, "trade_off": True}
Axis = Literal["reasoning", "length"]


@dataclass(frozen=True)
class Setting:
    """What one reasoning length gave.

    Args:
        length: mean number of reasoning tokens, or the budget.
        reasoning: one number per reasoning question, 1 right and 0 wrong (or a grade in 0 to 1); the same questions
            in the same order in every setting.
        perception: likewise for the perception questions, such as POPE's.
    """

    length: float
    reasoning: Sequence[float]
    perception: Sequence[float]


def rh_auc(x: Sequence[float], y: Sequence[float]) -> float:
    """Area under perception (y) over reasoning (x), both scaled to 0 to 1 over the points; higher is better.

    x' = (x − min x) / (max x − min x),   y' likewise,   area = Σ_i (x'_{i+1} − x'_i)·(y'_i + y'_{i+1}) / 2,   x sorted

    1: perception stays at its best until the last step; ½: it falls in a straight line; 0: it is lost at once. The
    scaling is per model, so the area says nothing about levels: two models with areas alike may be far apart. Report
    `mean_height` beside it. Points with equal x are averaged first (ours: in the authors' program their order decides).

    >>> round(rh_auc([10, 30, 50], [60, 50, 20]), 6)
    0.625

    Raises:
        ValueError: lists of different length, fewer than two distinct x, or all y equal, where the scaling is 0/0.
    """
    xs, ys = _points(x, y)
    if len(xs) < 2 or np.ptp(ys) == 0:
        what = f"{len(xs)} distinct x" if len(xs) < 2 else f"every y is {ys[0]:g}"
        raise ValueError(
            f"{what} among {len(x)} points: RH-AUC scales both axes by their range, so it needs at least two settings "
            "that differ in both. Vary the reasoning length more, or report `mean_height` alone."
        )
    return float(_area((xs - xs[0]) / (xs[-1] - xs[0]), (ys - ys.min()) / np.ptp(ys)))


def mean_height(x: Sequence[float], y: Sequence[float]) -> float:
    """Mean height of the unscaled curve, in the units of y: area / (max x − min x); higher is better.

    >>> mean_height([10, 30, 50], [60, 50, 20])
    45.0

    Raises:
        ValueError: lists of different length, or fewer than two distinct x.
    """
    xs, ys = _points(x, y)
    if len(xs) < 2:
        raise ValueError(f"{len(xs)} distinct x among {len(x)} points: a curve needs at least two.")
    return float(_area(xs, ys) / (xs[-1] - xs[0]))


def trade_off(x: Sequence[float], y: Sequence[float]) -> float:
    """Slope of the least-squares line of perception over x; 0 no trade-off, negative: seeing is paid for reasoning.

    >>> trade_off([10, 30, 50], [60, 50, 20])
    -1.0

    Raises:
        ValueError: as `mean_height`.
    """
    xs, ys = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if len(_points(x, y)[0]) < 2:
        raise ValueError(f"one distinct x among {len(xs)} points: a slope needs at least two.")
    away = xs - xs.mean()
    return float(away @ ys / (away @ away))


FIGURES = {"rh_auc": rh_auc, "mean_height": mean_height, "trade_off": trade_off}


def points(settings: Sequence[Setting], over: Axis = "reasoning") -> tuple[list[float], list[float]]:
    """(x, y) of the curve: accuracy in reasoning, or length, against accuracy in perception."""
    x = [float(np.mean(s.reasoning)) if over == "reasoning" else float(s.length) for s in settings]
    return x, [float(np.mean(s.perception)) for s in settings]


def estimates(
    settings: Sequence[Setting], over: Axis = "reasoning", samples: int = 1000, seed: int = 0, level: float = 0.95
) -> dict[str, Estimate]:
    """rh_auc, mean_height and trade_off with percentile intervals, questions resampled.

    A resample draws reasoning questions and perception questions, each with replacement and the same for all
    settings, so that what makes a question hard cancels. n is the number of perception questions.

    Args:
        settings: one per reasoning length.
        over: x axis, "reasoning" accuracy as published, or the "length" itself.
        samples, seed, level: as in `metrics.estimate.bootstrap`.

    A curve that the data leave undefined (see `rh_auc`) has value 0 and n = 0; resamples in which it is undefined are
    left out.

    Raises:
        ValueError: fewer than two settings, settings with other numbers of questions, or an unknown axis.
    """
    if over not in ("reasoning", "length"):
        raise ValueError(f"over={over!r} is no axis; possible: reasoning, length.")
    if len(settings) < 2:
        raise ValueError(f"{len(settings)} settings: a curve needs at least two reasoning lengths.")
    reasoning = _table([s.reasoning for s in settings], "reasoning")
    perception = _table([s.perception for s in settings], "perception")
    lengths = np.array([float(s.length) for s in settings])
    drawn: dict[str, list[float]] = {name: [] for name in FIGURES}
    for ys, xs in zip(_means(perception, samples, seed), _means(reasoning, samples, seed + 1), strict=True):
        for name, value in _figures(lengths if over == "length" else xs, ys).items():
            drawn[name].append(value)
    x, y = points(settings, over)
    found = {}
    for name, value in _figures(np.array(x), np.array(y)).items():
        if np.isnan(value):
            found[name] = Estimate(0.0, 0.0, 0.0 if name == "trade_off" else 1.0, 0)
        else:
            found[name] = Estimate(value, *_ends(np.array(drawn[name]), level), perception.shape[1])
    return found


def _figures(x: NDArray, y: NDArray) -> dict[str, float]:
    """Every figure of one curve; nan where it is undefined."""
    found = {}
    for name, figure in FIGURES.items():
        try:
            found[name] = figure(x, y)  # type: ignore[arg-type]
        except ValueError:
            found[name] = float("nan")
    return found


def _means(table: NDArray, samples: int, seed: int) -> NDArray:
    """(samples, settings): mean over resampled questions."""
    weights = np.concatenate(list(_weights(table.shape[1], samples, seed)))
    return weights @ table.T / table.shape[1]


def _points(x: Sequence[float], y: Sequence[float]) -> tuple[NDArray, NDArray]:
    """The distinct x in order, each with its mean y."""
    if len(x) != len(y):
        raise ValueError(f"{len(x)} x and {len(y)} y: each point has one of each.")
    if not len(x):
        raise ValueError("no points.")
    xs, place = np.unique(np.asarray(x, dtype=float), return_inverse=True)
    ys = np.bincount(place, weights=np.asarray(y, dtype=float)) / np.bincount(place)
    return xs, ys


def _area(x: NDArray, y: NDArray) -> float:
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))


def _table(rows: Sequence[Sequence[float]], name: str) -> NDArray:
    sizes = {len(row) for row in rows}
    if len(sizes) > 1 or 0 in sizes:
        raise ValueError(
            f"the settings have {', '.join(map(str, sorted(sizes)))} {name} questions: each must answer the same ones, "
            "in the same order."
        )
    return np.array(rows, dtype=float)
