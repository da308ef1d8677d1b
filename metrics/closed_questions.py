"""What closed questions share: answers that come in groups, and figures made of several shares.

A group is all that is asked about one image, or one question about several images. A constant answer is right about
half of the questions and about no such group, so that groups tell what single questions hide.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .estimate import Estimate, bootstrap, wilson


def groups_right(correct: Sequence[bool | int], groups: Sequence[Hashable | None]) -> NDArray:
    """(questions, 2): whether a group is right throughout, and that it counts, on the row of its first question.

    Summed over any set of whole groups, the columns are the groups that are right and the groups. Questions whose
    group is None are in no group.

    >>> groups_right([1, 1, 1, 0], ["a", "a", "b", "b"]).tolist()
    [[1, 1], [0, 0], [0, 1], [0, 0]]

    Raises:
        ValueError: a number of groups other than that of answers.
    """
    if len(correct) != len(groups):
        raise ValueError(f"{len(correct)} answers and {len(groups)} groups: name the group of each question.")
    first: dict[Hashable, int] = {}
    found = np.zeros((len(correct), 2), dtype=int)
    for place, (right, group) in enumerate(zip(correct, groups, strict=True)):
        if group is None:
            continue
        if group not in first:
            first[group] = place
            found[place] = 1, 1
        if not right:
            found[first[group], 0] = 0
    return found


def composed(
    units: ArrayLike, statistic: Callable[[NDArray], NDArray], largest: float = 1.0, bounded: bool = True, **options
) -> Estimate:
    """A figure made of several ratios of summed counts, with its bootstrap interval.

    Args:
        units: (groups, counts); rows are what is resampled.
        statistic: maps sums of shape (…, counts) to values of shape (…).
        largest: the largest value that the figure can have; the smallest is 0.
        bounded: False for a figure that can be negative.
        options: samples, seed and level of `metrics.estimate.bootstrap`.

    A figure that is not defined is 0 with n = 0. A bounded figure of exactly 0 or `largest` gets Wilson's interval with
    one trial per row, because all resamples are equal there.

    >>> e = composed([[1, 1], [1, 1]], lambda sums: 200 * sums[..., 0] / sums[..., 1], largest=200)
    >>> e.value, round(e.low, 1), e.high
    (200.0, 68.5, 200.0)
    """
    found = bootstrap(units, statistic, **options)
    if np.isnan(found.value):
        return Estimate(0.0, 0.0 if bounded else -largest, largest, 0)
    if bounded and found.value in (0.0, largest):
        share = wilson(found.value / largest * found.n, found.n, options.get("level", 0.95))
        return Estimate(found.value, share.low * largest, share.high * largest, found.n)
    return found


def shares(top: ArrayLike, bottom: ArrayLike) -> NDArray:
    """top / bottom, where 0/0 is not a number."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(top) / np.asarray(bottom)


def check(answers: Sequence[str], *columns: Sequence) -> None:
    """
    Raises:
        ValueError: no answers, or columns of another length.
        TypeError: an answer that is no string.
    """
    if not len(answers):
        raise ValueError("no answers to score.")
    for column in columns:
        if len(column) != len(answers):
            raise ValueError(f"{len(answers)} answers and {len(column)} questions: they are matched one to one.")
    wrong = next((answer for answer in answers if not isinstance(answer, str)), None)
    if wrong is not None or None in answers:
        raise TypeError(f"an answer is a string; found {type(wrong).__name__}: {wrong!r:.80}")


def reader(readers: Mapping[str, Callable[..., str]], protocol: str, benchmark: str) -> Callable[..., str]:
    """
    Raises:
        ValueError: a protocol that the benchmark does not have.
    """
    if protocol not in readers:
        raise ValueError(f"no {benchmark} protocol {protocol!r}. Known: {', '.join(readers)}.")
    return readers[protocol]
