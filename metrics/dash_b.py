"""DASH-B: is this object in the image? Half of the images have it; the others were found because they fool models.

Augustin et al., "DASH: Detection and Assessment of Systematic Hallucinations of VLMs", 2025, arXiv 2503.23573.

Images without the object were retrieved to fool models, so levels are no rates in the wild; a constant answer has an
accuracy of one half and a harmonic mean of 0.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import by_image as sums
from . import closed_questions as closed
from .closed_questions import shares
from .counted import Counted
from .estimate import Estimate
from .yes_no import anywhere, words

HIGHER_IS_BETTER = {"accuracy": True, "tnr": True, "tpr": True, "harmonic_mean": True, "unparsed": False}
READERS = {"official": anywhere, "strict": words}


class Counts(NamedTuple):
    """What one question adds, each 0 or 1."""

    positives: int
    true_positive: int
    negatives: int
    true_negative: int
    questions: int
    yes: int
    unparsed: int


def outcomes(answers: Sequence[str], labels: Sequence[str], protocol: str = "official") -> list[Counts]:
    """Each answer against its label; an answer that is neither yes nor no is wrong, and stays in the denominator.

    official: "yes" anywhere in the lower-cased answer, else "no" anywhere. strict: as whole words and not both.

    Raises:
        ValueError: no answers, another number of labels, a label other than yes or no, or an unknown protocol.
        TypeError: an answer that is no string.
    """
    read = closed.reader(READERS, protocol, "DASH-B")
    closed.check(answers, labels)
    wrong = next((label for label in labels if label not in ("yes", "no")), None)
    if wrong is not None:
        raise ValueError(f"a label is {wrong!r}; possible: 'yes' and 'no'.")
    found = []
    for answer, label in zip(answers, labels, strict=True):
        text, there = read(answer), label == "yes"
        found.append(Counts(
            int(there), int(there and text == "yes"), int(not there), int(not there and text == "no"), 1,
            int(text == "yes"), int(not text),
        ))  # fmt: skip
    return found


def score(answers: Sequence[str], labels: Sequence[str], protocol: str = "official") -> dict[str, float]:
    """The figures of `estimates` without intervals; an empty denominator gives 0.

    >>> figures = score(["Nope, but yes", "I cannot tell", "Unsure"], ["yes", "no", "no"])
    >>> figures["tpr"], figures["tnr"], round(figures["harmonic_mean"], 4), figures["accuracy"]
    (1.0, 0.5, 0.6667, 0.75)

    Raises:
        ValueError, TypeError: as `outcomes`.
    """
    totals = np.array(outcomes(answers, labels, protocol)).sum(axis=0)
    composed = {name: float(np.nan_to_num(of(totals))) for name, of in COMPOSED.items()}
    return {**composed, **sums.values(Counts(*totals), RATIOS)}


def estimates(
    answers: Sequence[str], labels: Sequence[str], protocol: str = "official", **options: Any
) -> dict[str, Estimate]:
    """Every figure with its interval; each question is about an image of its own, and questions are n.

    tnr = right / images without the object,   tpr = right / images with it,   accuracy = (tnr + tpr) / 2,
    harmonic_mean = 2·tnr·tpr / (tnr + tpr), 0 where both are 0

    Raises:
        ValueError, TypeError: as `outcomes`.
    """
    table = np.array(outcomes(answers, labels, protocol))
    composed = {name: closed.composed(table, statistic, **options) for name, statistic in COMPOSED.items()}
    return {**composed, **sums.estimates(Counts(*table.T), RATIOS, **options)}


def counted(answers: Sequence[str], labels: Sequence[str], protocol: str = "official") -> Counted:
    """The counts of each question, which has an image of its own, for a paired comparison of two systems.

    Raises:
        ValueError, TypeError: as `outcomes`.
    """
    table = np.array(outcomes(answers, labels, protocol))
    return Counted(range(len(table)), table, RATIOS, COMPOSED, lambda one: Counts(*one.T))


def _rates(counts: NDArray) -> tuple[NDArray, NDArray]:
    c = Counts(*np.moveaxis(counts, -1, 0))
    return shares(c.true_negative, c.negatives), shares(c.true_positive, c.positives)


def _accuracy(counts: NDArray) -> NDArray:
    return sum(_rates(counts)) / 2  # type: ignore[return-value]


def _harmonic(counts: NDArray) -> NDArray:
    tnr, tpr = _rates(counts)
    total = tnr + tpr
    return np.where(total == 0, 0.0, shares(2 * tnr * tpr, np.where(total == 0, 1, total)))


COMPOSED = {"accuracy": _accuracy, "harmonic_mean": _harmonic}
RATIOS: dict[str, Any] = {
    "tnr": lambda c: (c.true_negative, c.negatives),
    "tpr": lambda c: (c.true_positive, c.positives),
    "yes_ratio": lambda c: (c.yes, c.questions),
    "unparsed": lambda c: (c.unparsed, c.questions),
}
