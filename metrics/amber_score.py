"""AMBER's scores: counts per answer first, figures with intervals second, percentages as its program prints them.

Wang et al., 2023, arXiv 2311.07397, Sec. 3; program at commit 534babf.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .by_image import by_image, values
from .by_image import estimates as _estimates
from .estimate import Estimate, bootstrap

HIGHER_IS_BETTER = {
    "chair": False, "cover": True, "hal": False, "cog": False,
    "accuracy": True, "precision": True, "recall": True, "f1": True, "score": True,
}  # fmt: skip
DIMENSION_NAMES = ("existence", "attribute", "state", "number", "action", "relation")
START = 0.001  # where the program's denominators start


class GenerativeCounts(NamedTuple):
    """What one description adds: 0 or 1 for responses and with_hallucination, else counts."""

    responses: int
    with_hallucination: int
    nouns: int
    hallucinated: int
    truth: int
    covered: int
    expected: int  # objects of the "hallu" list: not there, but people would expect them
    fallen_for: int  # of these, the ones that the description names


@dataclass(frozen=True)
class ResponseScore:
    """One description: the nouns of AMBER's vocabulary in it, and which of them are not in the image."""

    response: str
    nouns: list[str]
    hallucinated: list[bool]
    counts: GenerativeCounts


GENERATIVE: dict[str, Callable[[Any], tuple[Any, Any]]] = {
    "chair": lambda c: (c.hallucinated, c.nouns),
    "cover": lambda c: (c.covered, c.truth),
    "hal": lambda c: (c.with_hallucination, c.responses),
    "cog": lambda c: (c.fallen_for, c.expected),
}


@dataclass(frozen=True)
class GenerativeScore:
    """AMBER's descriptions, each figure from summed counts.

    chair: hallucinated nouns / nouns; 0 none, 1 all, lower is better. Every occurrence of a noun counts.
    cover: annotated objects named / annotated objects; higher is better.
    hal: descriptions with a hallucinated noun / descriptions; lower is better.
    cog: expected but absent objects named / such objects; lower is better.
    """

    per_response: dict[int, ResponseScore]
    images: dict[int, str]
    similarity: str

    @property
    def counts(self) -> GenerativeCounts:
        return GenerativeCounts(*(int(total) for total in self.units.sum(axis=0)))

    @property
    def units(self) -> NDArray:
        """(images, counts): one row of GenerativeCounts per description."""
        return np.array([score.counts for score in self.per_response.values()])

    def figures(self) -> dict[str, float]:
        """chair, cover, hal, cog."""
        return values(self.counts, GENERATIVE)

    def estimates(self, **options) -> dict[str, Estimate]:
        """The figures with intervals, images resampled; options as in `metrics.estimate.bootstrap`."""
        return _estimates(GenerativeCounts(*self.units.T), GENERATIVE, **options)

    def official(self) -> dict[str, float]:
        """Percentages as the program prints them: one decimal, denominators that start at 0.001.

        hal is 100 less a rounded share there, so one clean description alone gives 0.1.
        """
        return official_generative(self.counts)


def official_generative(counts: GenerativeCounts) -> dict[str, float]:
    """Percentages of summed counts as the official program rounds them.

    >>> official_generative(GenerativeCounts(1, 1, 3, 1, 4, 2, 5, 0))
    {'chair': 33.3, 'cover': 50.0, 'hal': 100.0, 'cog': 0.0}
    >>> official_generative(GenerativeCounts(1, 0, 2, 0, 4, 2, 5, 0))["hal"]
    0.1
    """
    clean = counts.responses - counts.with_hallucination
    return {
        "chair": _percent(counts.hallucinated, counts.nouns),
        "cover": _percent(counts.covered, counts.truth),
        "hal": round(100 - clean / (counts.responses + START) * 100, 1),
        "cog": _percent(counts.fallen_for, counts.expected),
    }


class AnswerCounts(NamedTuple):
    """What one answer adds, each 0 or 1."""

    questions: int
    correct: int
    no: int
    truth_no: int
    correct_no: int
    unparsed: int


DISCRIMINATIVE: dict[str, Callable[[Any], tuple[Any, Any]]] = {
    "accuracy": lambda c: (c.correct, c.questions),
    "precision": lambda c: (c.correct_no, c.no),
    "recall": lambda c: (c.correct_no, c.truth_no),
    "f1": lambda c: (2 * c.correct_no, c.no + c.truth_no),
    "unparsed": lambda c: (c.unparsed, c.questions),
}


@dataclass(frozen=True)
class DiscriminativeScore:
    """AMBER's yes/no questions; the positive class is **no**. 0 to 1, higher is better.

    accuracy = right / questions,   precision = right "No" / "No" answered,   recall = right "No" / truth is no,
    f1 = 2·right "No" / ("No" answered + truth is no)

    An answer that is neither counts as wrong, as `unparsed`. All existence questions have the truth no: precision is
    1 there as soon as one answer is "No".
    """

    per_question: dict[int, AnswerCounts]
    dimensions: dict[int, tuple[str, ...]]
    images: dict[int, str]
    protocol: str

    def units(self, dimension: str | None = None) -> NDArray:
        """(images, counts): AnswerCounts summed over the questions about each image.

        Raises:
            ValueError: no answer of that dimension, or no such dimension.
        """
        chosen = [n for n in self.per_question if dimension is None or dimension in self.dimensions[n]]
        if not chosen:
            raise ValueError(f"no answers of dimension {dimension!r}; AMBER has {', '.join(DIMENSION_NAMES)}.")
        return by_image([self.per_question[n] for n in chosen], [self.images[n] for n in chosen])

    def counts(self, dimension: str | None = None) -> AnswerCounts:
        """Summed counts, of one dimension or of all."""
        return AnswerCounts(*(int(total) for total in self.units(dimension).sum(axis=0)))

    def figures(self, dimension: str | None = None) -> dict[str, float]:
        """accuracy, precision, recall, f1 and the share unparsed, of one dimension or of all."""
        return values(self.counts(dimension), DISCRIMINATIVE)

    def estimates(self, dimension: str | None = None, **options) -> dict[str, Estimate]:
        """The figures with intervals, images resampled with all their questions."""
        return _estimates(AnswerCounts(*self.units(dimension).T), DISCRIMINATIVE, **options)

    def official(self, dimension: str | None = None) -> dict[str, float]:
        """Percentages as the program prints them."""
        return official_discriminative(self.counts(dimension), dimension)


def official_discriminative(counts: AnswerCounts, dimension: str | None = None) -> dict[str, float]:
    """Percentages of summed counts as the official program rounds them; F1 is made of rounded figures.

    Its F1 adds 0.0001 to the denominator, and 0.001 for existence. The denominators of "attribute" are the sums of
    those of state, number and action, and so start at 0.003.

    >>> official_discriminative(AnswerCounts(questions=4, correct=3, no=1, truth_no=2, correct_no=1, unparsed=0))
    {'accuracy': 75.0, 'precision': 99.9, 'recall': 50.0, 'f1': 66.6}
    """
    start = 3 * START if dimension == "attribute" else START
    precision = _percent(counts.correct_no, counts.no, start)
    recall = _percent(counts.correct_no, counts.truth_no, start)
    more = 0.001 if dimension == "existence" else 0.0001
    p, r = precision / 100, recall / 100
    return {
        "accuracy": _percent(counts.correct, counts.questions, start),
        "precision": precision,
        "recall": recall,
        "f1": round(2 * p * r / (p + r + more) * 100, 1),
    }


def amber_score(generative: GenerativeScore, discriminative: DiscriminativeScore, **options) -> Estimate:
    """One number for both tasks, 0 to 1, higher is better; images resampled with their description and questions.

    score = (1 − chair + f1) / 2.   A system that names nothing, or says no "No" where none is true, has n = 0.
    """
    wrote = {generative.images[number]: score.counts for number, score in generative.per_response.items()}
    images = dict.fromkeys(discriminative.images[number] for number in discriminative.per_question)
    answered = {image: AnswerCounts(*row) for image, row in zip(images, discriminative.units(), strict=True)}
    rows = np.zeros((len({**wrote, **answered}), 4))
    for row, image in zip(rows, {**wrote, **answered}, strict=True):
        if image in wrote:
            row[:2] = wrote[image].hallucinated, wrote[image].nouns
        if image in answered:
            row[2:] = DISCRIMINATIVE["f1"](answered[image])
    if not all(rows.sum(axis=0)[[1, 3]]):
        return Estimate(0.0, 0.0, 1.0, 0)
    return bootstrap(rows, lambda s: (1 - s[..., 0] / s[..., 1] + s[..., 2] / s[..., 3]) / 2, **options)


def official_score(generative: Mapping[str, float], discriminative: Mapping[str, float]) -> float:
    """(100 − CHAIR + F1) / 2 from percentages as printed.

    >>> official_score({"chair": 8.4}, {"f1": 74.6})
    83.1
    """
    return round((100 - generative["chair"] + discriminative["f1"]) / 2, 3)


def _percent(top: int, bottom: int, start: float = START) -> float:
    return round(top / (bottom + start) * 100, 1)
