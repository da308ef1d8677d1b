"""CHAIR's scores: counts per caption first, figures with intervals second.

Rohrbach et al., "Object Hallucination in Image Captioning", EMNLP 2018, arXiv 1809.02156, Sec. 2.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .estimate import Estimate, ratio
from .paired import SWAPS, Difference, paired_differences

HIGHER_IS_BETTER = {
    "chair_s": False,
    "chair_i": False,
    "recall": True,
    "precision": True,
    "f1": True,
    "repetition": False,
}


@dataclass(frozen=True)
class Mentions:
    """What one caption names, in reading order; the first four lists as the official programs return them.

    Args:
        words: the vocabulary's terms that were found, after normalising.
        objects: the category of each.
        indices: where each starts among the caption's words. Shifted after rule 4 dropped a "seat", as officially.
        tokens: the caption's words after normalising and joining double words; their number is the length.
        positions: as `indices` but never shifted.
        spans: where each stands in the caption, (start, end) in characters.
        size: number of words before joining.
    """

    words: list[str]
    objects: list[str]
    indices: list[int]
    tokens: list[str]
    positions: list[int]
    spans: list[tuple[int, int]]
    size: int


class ChairCounts(NamedTuple):
    """What one caption adds to every score: 0 or 1 for captions, with_hallucination and repeating, else counts."""

    captions: int
    with_hallucination: int
    mentions: int
    hallucinated: int
    correct: int  # distinct categories mentioned that are there
    mentioned: int  # distinct categories mentioned
    truth: int
    tokens: int
    repeating: int


@dataclass(frozen=True)
class CaptionScore:
    """One caption against its image: what it mentions and which of it is not there."""

    caption: str
    mentions: Mentions
    truth: frozenset[str]
    hallucinated: list[bool]
    counts: ChairCounts

    @property
    def hallucinated_words(self) -> list[tuple[str, str, int]]:
        """(word, category, index) of each mention of something that is not there."""
        found = zip(self.mentions.words, self.mentions.objects, self.mentions.indices, strict=True)
        return [mention for mention, wrong in zip(found, self.hallucinated, strict=True) if wrong]

    @property
    def hallucinated_spans(self) -> list[tuple[int, int]]:
        """Where those words stand in the caption, (start, end) in characters."""
        return [span for span, wrong in zip(self.mentions.spans, self.hallucinated, strict=True) if wrong]

    @property
    def chair_s(self) -> int:
        """1 if anything is hallucinated, else 0."""
        return self.counts.with_hallucination

    @property
    def chair_i(self) -> float:
        """Share of the mentions that are hallucinated; 0 if nothing is mentioned."""
        return self.counts.hallucinated / self.counts.mentions if self.counts.mentions else 0.0

    @property
    def recall(self) -> float:
        """Share of the image's categories that are mentioned; 0 if it has none."""
        return self.counts.correct / self.counts.truth if self.counts.truth else 0.0


@dataclass(frozen=True)
class ChairScore:
    """CHAIR over a list of captions, each figure from the summed counts (micro), never a mean of ratios.

    chair_s: captions with at least one hallucinated mention / captions; 0 none, 1 all, lower is better. Captions that
        mention nothing count as captions.
    chair_i: hallucinated mentions / mentions; 0 none, 1 all, lower is better. Every occurrence of a word counts.
    recall: Σ distinct categories mentioned and there / Σ categories there; 0 misses all, 1 nothing, higher is better.
    precision: Σ distinct categories mentioned and there / Σ distinct categories mentioned; higher is better.
    f1: 2·precision·recall / (precision + recall); higher is better.
    length: mean number of tokens, punctuation included. Neither direction is better, but a shorter caption
        hallucinates less: compare systems at equal length.
    repetition: captions that mention a category more than once / captions; lower is better.

    The official programs divide by zero when nothing is mentioned (chair_i) or nothing is there (recall). Here that
    is 0, and `estimates` has it with n = 0 and an interval from 0 to 1.
    """

    per_caption: dict[int | str, CaptionScore]
    family: str
    counts: ChairCounts = field(init=False)

    def __post_init__(self) -> None:
        totals = self.units.sum(axis=0)
        object.__setattr__(self, "counts", ChairCounts(*(int(total) for total in totals)))

    chair_s = property(lambda self: _value(self.counts, "chair_s"))
    chair_i = property(lambda self: _value(self.counts, "chair_i"))
    recall = property(lambda self: _value(self.counts, "recall"))
    precision = property(lambda self: _value(self.counts, "precision"))
    f1 = property(lambda self: _value(self.counts, "f1"))
    length = property(lambda self: _value(self.counts, "length"))
    mentions = property(lambda self: _value(self.counts, "mentions"))
    repetition = property(lambda self: _value(self.counts, "repetition"))

    @property
    def n(self) -> int:
        """Number of captions."""
        return self.counts.captions

    @property
    def units(self) -> NDArray:
        """(images, counts): one row of ChairCounts per caption, in the order of per_caption."""
        return np.array([score.counts for score in self.per_caption.values()])

    def estimates(self, samples: int = 1000, seed: int = 0, level: float = 0.95) -> dict[str, Estimate]:
        """Every figure with its bootstrap interval by image; arguments as in `metrics.estimate.bootstrap`."""
        columns = ChairCounts(*self.units.T)
        return {
            name: ratio(*parts(columns), share=name not in UNBOUNDED, samples=samples, seed=seed, level=level)
            for name, parts in RATIOS.items()
        }

    def difference(
        self, other: "ChairScore", samples: int = SWAPS, seed: int = 0, level: float = 0.95
    ) -> dict[str, Difference]:
        """This system minus the other on the same images; arguments as in `metrics.paired.paired_differences`.

        Raises:
            ValueError: other images, or another word family.
        """
        if self.family != other.family:
            raise ValueError(f"families {self.family!r} and {other.family!r} give different numbers: score both alike.")
        if self.per_caption.keys() != other.per_caption.keys():
            shared = len(self.per_caption.keys() & other.per_caption.keys())
            raise ValueError(
                f"{self.n} and {other.n} images with {shared} in common: a paired difference needs the same images."
            )
        there = np.array([other.per_caption[image].counts for image in self.per_caption])
        one, two = ChairCounts(*self.units.T), ChairCounts(*there.T)
        figures = {name: (*parts(one), *parts(two)) for name, parts in RATIOS.items()}
        return paired_differences(figures, UNBOUNDED, samples, seed, level)

    def first_half_second_half(
        self, samples: int = 1000, seed: int = 0, level: float = 0.95
    ) -> tuple[Estimate, Estimate]:
        """chair_i of the mentions that start in the first and in the second half of their caption's words.

        Large models hallucinate more towards the end; a model that does not is unlike them.
        """
        halves = np.zeros((2, self.n, 2))
        for row, score in enumerate(self.per_caption.values()):
            for position, wrong in zip(score.mentions.positions, score.hallucinated, strict=True):
                halves[int(2 * position >= score.mentions.size), row] += wrong, 1
        first, second = (ratio(half[:, 0], half[:, 1], samples=samples, seed=seed, level=level) for half in halves)
        return first, second

    def to_dict(self) -> dict[str, float | int | str]:
        """Family, number of captions and every figure, for a results file."""
        return {"family": self.family, "n": self.n, **{name: _value(self.counts, name) for name in RATIOS}}


# Each figure is one sum over another; counts may be numbers or columns.
RATIOS = {
    "chair_s": lambda c: (c.with_hallucination, c.captions),
    "chair_i": lambda c: (c.hallucinated, c.mentions),
    "recall": lambda c: (c.correct, c.truth),
    "precision": lambda c: (c.correct, c.mentioned),
    "f1": lambda c: (2 * c.correct, c.mentioned + c.truth),
    "length": lambda c: (c.tokens, c.captions),
    "mentions": lambda c: (c.mentions, c.captions),
    "repetition": lambda c: (c.repeating, c.captions),
}
UNBOUNDED = ("length", "mentions")


def _value(counts: ChairCounts, name: str) -> float:
    top, bottom = RATIOS[name](counts)
    return top / bottom if bottom else 0.0

