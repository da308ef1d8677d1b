"""CHAIR as a benchmark: captions of the embedded world, or of a COCO folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from ...datasets import coco
from ...datasets.examples import Example, world_captions
from ...datasets.prompts import DETAIL_PROMPT
from ...metrics import chair
from ...metrics.estimate import Estimate
from .base import Benchmark, Mark, Source


class CHAIR(Benchmark):
    """CHAIR: which of the objects that a caption names are not in the image."""

    name = "chair"
    version = "1"
    prompt = DETAIL_PROMPT
    max_new_tokens = 128
    unit = "images"
    higher_is_better = chair.HIGHER_IS_BETTER
    tables: Mapping[str, Sequence[str]] = {
        "": ("chair_s", "chair_i", "recall", "precision", "length", "repetition")
    }
    headline = ("chair_s", "chair_i", "recall", "length")

    def examples(self, source: Source) -> Sequence[Example]:
        """One per image, with the objects that CHAIR counts as there: annotated, or named by a reference caption."""
        return _examples(source)

    def estimates(self, source: Source, examples: Sequence[Example], texts: Sequence[str]) -> dict[str, Estimate]:
        captions = {example.image_id: text for example, text in zip(examples, texts, strict=True)}
        truth = {example.image_id: example.objects for example in examples}
        return source.chair.score(captions, truth).estimates()

    def marks(self, source: Source, example: Example, text: str) -> list[Mark]:
        found = source.chair.score({0: text}, {0: example.objects}).per_caption[0]
        spans = zip(found.mentions.spans, found.hallucinated, strict=True)
        return [Mark(start, end, not wrong) for (start, end), wrong in spans]

    def protocol(self, source: Source) -> dict[str, Any]:
        """Which word family read the captions, with whose vocabulary."""
        return {"name": self.name, "family": source.chair.family, "synonyms": source.chair.synonyms.name}


@lru_cache(maxsize=4)
def _examples(source: Source) -> Sequence[Example]:
    """With the prompt as every example's question, if it is not the benchmark's own."""
    source.chair.parse("")  # a missing synonym file or word list is known before the first caption
    found = _described(source)
    return tuple(replace(e, question=source.prompt) for e in found) if source.prompt else found


def _described(source: Source) -> Sequence[Example]:
    source.own("chair")
    if source.coco is None:
        return tuple(world_captions(source.split or "test", source.limit))
    files = source.files
    found = coco.coco_examples(source.coco, source.limit, source.seed, source.split, source.listed)
    ids = [example.image_id for example in found]
    captions = None if files.captions is None else coco.load_json(files.captions)
    truth = chair.ground_truth(coco.load_json(files.instances), captions, source.chair, ids)
    return tuple(replace(example, objects=frozenset(truth[example.image_id])) for example in found)
