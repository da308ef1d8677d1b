"""What is asked and how it is scored, by name. Needs no torch: a finished caption file is scored without a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Protocol

from ..datasets import coco, examples
from ..datasets.captions import DETAIL_PROMPT
from ..datasets.coco import CocoFiles
from ..datasets.examples import Example
from ..datasets.pope import STRATEGIES
from ..metrics import chair, pope
from ..metrics.chair import Chair
from ..metrics.estimate import Estimate

DEFAULT_LIMIT = examples.POPE_SAMPLE

_CHAIR_TABLES = {"": ("chair_s", "chair_i", "recall", "precision", "length", "repetition")}
_POPE_PREFIX = {**{strategy: f"{strategy}_" for strategy in STRATEGIES}, "all three": ""}
_POPE_BETTER = {p + name: better for p in _POPE_PREFIX.values() for name, better in pope.HIGHER_IS_BETTER.items()}
_POPE_TABLES = {
    title: tuple(prefix + name for name in ("accuracy", "precision", "recall", "f1", "yes_ratio"))
    for title, prefix in _POPE_PREFIX.items()
}


@dataclass(frozen=True)
class Source:
    """Where examples come from.

    Args:
        coco: a COCO folder; None is the embedded world.
        split: of either; None is the world's "test", or the folder's only held-out one.
        limit: number of images.
        seed: draws images and random negatives.
        synonyms: CHAIR's synonym file; None is the embedded world's vocabulary.
    """

    coco: str | None = None
    split: str | None = None
    limit: int = DEFAULT_LIMIT
    seed: int = 0
    synonyms: str | None = None

    @property
    def name(self) -> str:
        """As results call it."""
        return f"coco:{self.coco}@{self.files.split}" if self.coco else f"{examples.WORLD}{self.split or 'test'}"

    @property
    def files(self) -> CocoFiles:
        return coco.find_coco(self.coco or "", self.split)

    @cached_property
    def chair(self) -> Chair:
        """The vocabulary in which captions are read."""
        return Chair(self.synonyms)


@dataclass(frozen=True)
class Mark:
    """A stretch of a text, (start, end) in characters, that is right or not."""

    start: int
    end: int
    right: bool


class Benchmark(Protocol):
    """A set of examples, one question for all of them or one each, and what is measured on the answers.

    version: changes whenever the same answers would score differently. unit: what one example is. tables: title ->
    metrics shown together. headline: the metrics for a narrow screen.
    """

    name: str
    version: str
    prompt: str | None
    max_new_tokens: int
    unit: str
    higher_is_better: Mapping[str, bool]
    tables: Mapping[str, Sequence[str]]
    headline: Sequence[str]

    def examples(self, source: Source) -> Sequence[Example]: ...

    def estimates(self, source: Source, asked: Sequence[Example], texts: Sequence[str]) -> dict[str, Estimate]: ...

    def marks(self, source: Source, example: Example, text: str) -> list[Mark]: ...


class Captions(Benchmark):
    """CHAIR: which of the objects that a caption names are not in the image."""

    name = "chair"
    version = "1"
    prompt = DETAIL_PROMPT
    max_new_tokens = 128
    unit = "images"
    higher_is_better = chair.HIGHER_IS_BETTER
    tables = _CHAIR_TABLES
    headline = ("chair_s", "chair_i", "recall", "length")

    def examples(self, source: Source) -> Sequence[Example]:
        """One per image, with the objects that CHAIR counts as there: annotated, or named by a reference caption."""
        return _captions(source)

    def estimates(self, source: Source, asked: Sequence[Example], texts: Sequence[str]) -> dict[str, Estimate]:
        said = {example.image_id: text for example, text in zip(asked, texts, strict=True)}
        truth = {example.image_id: example.objects for example in asked}
        return source.chair.score(said, truth).estimates()

    def marks(self, source: Source, example: Example, text: str) -> list[Mark]:
        found = source.chair.score({0: text}, {0: example.objects}).per_caption[0]
        spans = zip(found.mentions.spans, found.hallucinated, strict=True)
        return [Mark(start, end, not wrong) for (start, end), wrong in spans]


class Questions(Benchmark):
    """POPE: is this object in the image? All three splits; a question of several splits is asked once.

    Figures with a split's name before them are over its questions; the others over those of all three, where a
    question counts in each split that asks it, so that accuracy is the mean of the three. Intervals are by image.
    """

    name = "pope"
    version = "1"
    prompt = None
    max_new_tokens = 16
    unit = "questions"
    higher_is_better = _POPE_BETTER
    tables = _POPE_TABLES
    headline = (*(f"{strategy}_accuracy" for strategy in STRATEGIES), "yes_ratio")

    def examples(self, source: Source) -> Sequence[Example]:
        return _questions(source)

    def estimates(self, source: Source, asked: Sequence[Example], texts: Sequence[str]) -> dict[str, Estimate]:
        answered = [(split, e, text) for e, text in zip(asked, texts, strict=True) for split in e.splits]
        found: dict[str, Estimate] = {}
        for title, prefix in _POPE_PREFIX.items():
            part = [(e, text) for split, e, text in answered if not prefix or split == title]
            if part:
                labels, images = [e.label or "" for e, _ in part], [e.image_id for e, _ in part]
                scored = pope.estimates([text for _, text in part], labels, images)
                found |= {prefix + name: value for name, value in scored.items()}
        return found

    def marks(self, source: Source, example: Example, text: str) -> list[Mark]:
        return [Mark(0, len(text), pope.parse(text) == example.label)] if text else []


BENCHMARKS: Mapping[str, Benchmark] = {benchmark.name: benchmark for benchmark in (Captions(), Questions())}


def digest(asked: Sequence[Example]) -> str:
    """SHA-256 over what is asked and what is true, in order."""
    told = [[e.id, e.image_id, e.question, e.label, sorted(e.objects), list(e.splits)] for e in asked]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def as_record(estimate: Estimate) -> dict[str, Any]:
    """value, low, high, n."""
    return dict(vars(estimate))


@lru_cache(maxsize=4)
def _captions(source: Source) -> Sequence[Example]:
    source.chair.parse("")  # a missing synonym file or word list is known before the first caption
    if source.coco is None:
        return tuple(examples.world_captions(source.split or "test", source.limit))
    files = source.files
    found = coco.coco_examples(source.coco, source.limit, source.seed, source.split)
    ids = [example.image_id for example in found]
    captions = None if files.captions is None else coco.load_json(files.captions)
    truth = chair.ground_truth(coco.load_json(files.instances), captions, source.chair, ids)
    return tuple(replace(example, objects=frozenset(truth[example.image_id])) for example in found)


@lru_cache(maxsize=4)
def _questions(source: Source) -> Sequence[Example]:
    if source.coco is None:
        parts = [examples.world_pope(source.split or "test", source.limit, s, source.seed) for s in STRATEGIES]
    else:
        parts = [coco.coco_pope(source.coco, source.limit, s, source.seed, source.split) for s in STRATEGIES]
    return tuple(examples.merged(parts))
