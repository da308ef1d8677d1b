"""POPE as a benchmark: on the embedded world, or on a COCO folder."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from ...datasets import coco
from ...datasets.examples import Example, merged, world_pope
from ...datasets.pope import STRATEGIES
from ...metrics import chair, pope
from ...metrics.estimate import Estimate
from .base import Benchmark, Mark, Source

ALL = "all three"
PREFIX = {**{strategy: f"{strategy}_" for strategy in STRATEGIES}, ALL: ""}  # title -> what stands before its figures
_MEANS = ("precision", "f1")  # whose mean over splits is not the pooled figure
_BETTER = {p + name: better for p in PREFIX.values() for name, better in pope.HIGHER_IS_BETTER.items()}
_BETTER |= {f"mean_{name}": pope.HIGHER_IS_BETTER[name] for name in _MEANS}
_TABLES = {
    title: tuple(prefix + name for name in ("accuracy", "precision", "recall", "f1", "yes_ratio"))
    for title, prefix in PREFIX.items()
}


class POPE(Benchmark):
    """POPE: is this object in the image? All three splits; a question of several splits stands once.

    Of a COCO folder, what is there is annotated, or named by a reference caption where a synonym file tells which words
    name an object.

    Figures with a split's name before them are over its questions; the others over those of all three, where a
    question counts in each split that asks it, so that accuracy is the mean of the three; "mean_" is in front where
    that mean is another figure. Intervals are by image.
    """

    name = "pope"
    version = "1"
    max_new_tokens = 16
    higher_is_better = _BETTER
    tables = _TABLES
    headline = (*(f"{strategy}_accuracy" for strategy in STRATEGIES), "yes_ratio")

    def examples(self, source: Source) -> Sequence[Example]:
        return _examples(source)

    def estimates(self, source: Source, examples: Sequence[Example], texts: Sequence[str]) -> dict[str, Estimate]:
        answered = [(split, e, text) for e, text in zip(examples, texts, strict=True) for split in e.splits]
        found: dict[str, Estimate] = {}
        parts: dict[str, tuple[list[str], list[str], list[Any]]] = {}
        for title, prefix in PREFIX.items():
            part = [(e, text) for split, e, text in answered if not prefix or split == title]
            if part:
                labels, images = [e.label or "" for e, _ in part], [e.image_id for e, _ in part]
                parts[prefix] = [text for _, text in part], labels, images
                scored = pope.estimates(*parts[prefix], source.pope)
                found |= {prefix + name: value for name, value in scored.items()}
        if len(parts) == len(PREFIX):
            means = pope.mean_of_splits([one for prefix, one in parts.items() if prefix], source.pope)
            found |= {f"mean_{name}": means[name] for name in _MEANS}
        return found

    def marks(self, source: Source, example: Example, text: str) -> list[Mark]:
        right = bool(pope.outcomes([text], [example.label or ""], source.pope)[0].correct)
        return [Mark(0, len(text), right)] if text else []

    def protocol(self, source: Source) -> dict[str, Any]:
        """Whose program reads the answers, and what follows every question."""
        found = {"name": source.pope, "suffix": _suffix(source)}
        if source.coco is None:
            return found
        return {**found, "labels": "annotations and reference captions" if _reads_captions(source) else "annotations"}


def _reads_captions(source: Source) -> bool:
    """Whether what reference captions name counts as there, as in POPE's own labels; that takes a synonym file."""
    return source.synonyms is not None and source.files.captions is not None


def _named(source: Source) -> coco.Named:
    """The objects of images as CHAIR has them, from reference captions too; each image's captions are read once."""
    content, captions = coco.load_json(source.files.instances), coco.load_json(source.files.captions)
    known: dict[Any, set[str]] = {}

    def named(images: Collection[int]) -> dict[Any, set[str]]:
        if new := [image for image in images if image not in known]:
            known.update(chair.ground_truth(content, captions, source.chair, new))
        return {image: known[image] for image in images}

    return named


def _suffix(source: Source) -> str:
    return pope.PROMPT_SUFFIX[source.pope] if source.suffix is None else source.suffix


@lru_cache(maxsize=4)
def _examples(source: Source) -> Sequence[Example]:
    source.own("pope")
    if source.coco is None:
        parts = [world_pope(source.split or "test", source.limit, s, source.seed) for s in STRATEGIES]
    else:
        named = _named(source) if _reads_captions(source) else None
        parts = [
            coco.coco_pope(source.coco, source.limit, s, source.seed, source.split, images=source.listed, named=named)
            for s in STRATEGIES
        ]
    found, suffix = merged(parts), _suffix(source)
    return tuple(replace(e, question=f"{e.question}{suffix}") for e in found)
