"""What is asked and how it is scored, by name. Needs no torch: a finished caption file is scored without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from ...datasets import coco, examples
from ...datasets.captions import DETAIL_PROMPT
from ...datasets.examples import Example
from ...datasets.pope import STRATEGIES
from ...metrics import chair, pope
from ...metrics.estimate import Estimate
from .amber import Descriptions
from .base import DEFAULT_LIMIT, Benchmark, Mark, Source, as_record, digest
from .questions import Insisting, Numbers, Reasoning

__all__ = [
    "BENCHMARKS", "DEFAULT_LIMIT", "Benchmark", "Captions", "Mark", "Questions", "Source", "as_record", "digest",
]  # fmt: skip

_CHAIR_TABLES = {"": ("chair_s", "chair_i", "recall", "precision", "length", "repetition")}
_POPE_PREFIX = {**{strategy: f"{strategy}_" for strategy in STRATEGIES}, "all three": ""}
_POPE_MEANS = ("precision", "f1")  # whose mean over splits is not the pooled figure
_POPE_BETTER = {p + name: better for p in _POPE_PREFIX.values() for name, better in pope.HIGHER_IS_BETTER.items()}
_POPE_BETTER |= {f"mean_{name}": pope.HIGHER_IS_BETTER[name] for name in _POPE_MEANS}
_POPE_TABLES = {
    title: tuple(prefix + name for name in ("accuracy", "precision", "recall", "f1", "yes_ratio"))
    for title, prefix in _POPE_PREFIX.items()
}


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

    def protocol(self, source: Source) -> dict[str, Any]:
        """Which word family read the captions, with whose vocabulary."""
        return {"name": self.name, "family": source.chair.family, "synonyms": source.chair.synonyms.name}


class Questions(Benchmark):
    """POPE: is this object in the image? All three splits; a question of several splits is asked once.

    Figures with a split's name before them are over its questions; the others over those of all three, where a
    question counts in each split that asks it, so that accuracy is the mean of the three; "mean_" is in front where
    that mean is another figure. Intervals are by image.
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
        given: dict[str, tuple[list[str], list[str], list[Any]]] = {}
        for title, prefix in _POPE_PREFIX.items():
            part = [(e, text) for split, e, text in answered if not prefix or split == title]
            if part:
                labels, images = [e.label or "" for e, _ in part], [e.image_id for e, _ in part]
                given[prefix] = [text for _, text in part], labels, images
                scored = pope.estimates(*given[prefix], source.pope)
                found |= {prefix + name: value for name, value in scored.items()}
        if len(given) == len(_POPE_PREFIX):
            means = pope.mean_of_splits([one for prefix, one in given.items() if prefix], source.pope)
            found |= {f"mean_{name}": means[name] for name in _POPE_MEANS}
        return found

    def marks(self, source: Source, example: Example, text: str) -> list[Mark]:
        right = bool(pope.outcomes([text], [example.label or ""], source.pope)[0].correct)
        return [Mark(0, len(text), right)] if text else []

    def protocol(self, source: Source) -> dict[str, Any]:
        """Whose program reads the answers, and what follows every question."""
        return {"name": source.pope, "suffix": _suffix(source)}


BENCHMARKS: Mapping[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (Captions(), Questions(), Descriptions(), Reasoning(), Insisting(), Numbers())
}


def _suffix(source: Source) -> str:
    return pope.PROMPT_SUFFIX[source.pope] if source.suffix is None else source.suffix


@lru_cache(maxsize=4)
def _captions(source: Source) -> Sequence[Example]:
    """With the prompt as every example's question, if it is not the benchmark's own."""
    source.chair.parse("")  # a missing synonym file or word list is known before the first caption
    found = _described(source)
    return tuple(replace(e, question=source.prompt) for e in found) if source.prompt else found


def _described(source: Source) -> Sequence[Example]:
    source.own("chair")
    if source.coco is None:
        return tuple(examples.world_captions(source.split or "test", source.limit))
    files = source.files
    found = coco.coco_examples(source.coco, source.limit, source.seed, source.split, source.listed)
    ids = [example.image_id for example in found]
    captions = None if files.captions is None else coco.load_json(files.captions)
    truth = chair.ground_truth(coco.load_json(files.instances), captions, source.chair, ids)
    return tuple(replace(example, objects=frozenset(truth[example.image_id])) for example in found)


@lru_cache(maxsize=4)
def _questions(source: Source) -> Sequence[Example]:
    source.own("pope")
    if source.coco is None:
        parts = [examples.world_pope(source.split or "test", source.limit, s, source.seed) for s in STRATEGIES]
    else:
        parts = [
            coco.coco_pope(source.coco, source.limit, s, source.seed, source.split, images=source.listed)
            for s in STRATEGIES
        ]
    found, suffix = examples.merged(parts), _suffix(source)
    return tuple(replace(e, question=f"{e.question}{suffix}") for e in found)
