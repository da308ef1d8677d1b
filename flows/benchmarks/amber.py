"""AMBER as a benchmark: on its own files, on the embedded world, or on a COCO folder."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...datasets import amber as amber_data
from ...datasets import object_questions
from ...datasets.examples import Example
from ...metrics import amber
from ...metrics.amber_score import DIMENSION_NAMES
from ...metrics.estimate import Estimate
from .base import Benchmark, Mark, Source, followed, images

_GENERATIVE = ("chair", "cover", "hal", "cog")
_QUESTIONS = ("accuracy", "precision", "recall", "f1", "unparsed")
_PREFIX = {"questions": "", **{name: f"{name}_" for name in DIMENSION_NAMES}}


class AMBER(Benchmark):
    """AMBER: what a description invents, misses and expects, and yes/no questions, whose positive class is "no".

    With AMBER's folder as data its own items are used. Otherwise its kinds of items are drawn from what is known of
    the images: descriptions, existence and numbers; nothing is known of states, actions and contacts.
    """

    name = "amber"
    version = "1"
    max_new_tokens = 128
    higher_is_better: Mapping[str, bool] = {
        **amber.HIGHER_IS_BETTER, "unparsed": False,
        **{p + name: name != "unparsed" for p in _PREFIX.values() for name in _QUESTIONS},
    }  # fmt: skip
    tables: Mapping[str, Sequence[str]] = {
        "": ("score",), "descriptions": _GENERATIVE,
        **{title: tuple(prefix + name for name in _QUESTIONS) for title, prefix in _PREFIX.items()},
    }  # fmt: skip
    headline = (*_GENERATIVE, "accuracy", "f1", "score")

    def examples(self, source: Source) -> Sequence[Example]:
        return _judged(source)[1]

    def estimates(self, source: Source, examples: Sequence[Example], texts: Sequence[str]) -> dict[str, Estimate]:
        judge, pairs = _judged(source)[0], list(zip(examples, texts, strict=True))
        descriptions = {e.facts["number"]: text for e, text in pairs if e.label is None}
        answers = {e.facts["number"]: text for e, text in pairs if e.label is not None}
        found: dict[str, Estimate] = {}
        generative = judge.generative(descriptions) if descriptions else None
        discriminative = judge.discriminative(answers, reader(source)) if answers else None
        if generative:
            found |= generative.estimates()
        if discriminative:
            there = {name for names in discriminative.dimensions.values() for name in names}
            for title, prefix in _PREFIX.items():
                if not prefix or title in there:
                    scored = discriminative.estimates(title if prefix else None)
                    found |= {prefix + name: scored[name] for name in _QUESTIONS}
        if generative and discriminative:
            found["score"] = amber.amber_score(generative, discriminative)
        return found

    def marks(self, source: Source, example: Example, text: str) -> list[Mark]:
        judge, number = _judged(source)[0], example.facts["number"]
        if example.label is not None:
            right = judge.discriminative({number: text}, reader(source)).counts().correct
            return [Mark(0, len(text), bool(right))] if text else []
        if not source.data:
            spans = source.chair.parse(text)
            return [
                Mark(start, end, name in example.objects)
                for (start, end), name in zip(spans.spans, spans.objects, strict=True)
            ]
        return _found(text, judge.describe(number, text))

    def protocol(self, source: Source) -> dict[str, Any]:
        """Who reads the answers, and which words are taken for the same."""
        return {"name": reader(source), "similarity": _judged(source)[0].similarity, "suffix": source.suffix or ""}


def reader(source: Source) -> str:
    """AMBER's own exact "Yes" or "No", unless answers are to be read strictly."""
    return "strict" if source.pope == "strict" else "official"


@lru_cache(maxsize=2)
def _judged(source: Source) -> tuple[amber.Amber, Sequence[Example]]:
    suffix = source.suffix or ""
    if source.data:
        judge = amber.Amber(source.data)
        judge.nouns("A dog.")  # missing word lists are known before the first description
        found = amber_data.from_folder(Path(source.data), judge.items, judge.queries, source.limit, amber.DIMENSIONS)
        return judge, followed(found, suffix)
    seen, vocabulary = images(source, object_questions.AMBER), source.chair.categories
    data, found = amber_data.of_images(seen, source.limit, amber.DIMENSIONS, vocabulary)
    return amber.Amber(data, "exact", lambda text: source.chair.parse(text).objects), followed(found, suffix)


def _found(text: str, scored: amber.ResponseScore) -> list[Mark]:
    """Where AMBER's nouns stand, as far as a plain plural finds them; each noun once, in order."""
    marks: list[Mark] = []
    here = 0
    for noun, wrong in zip(scored.nouns, scored.hallucinated, strict=True):
        place = re.compile(rf"\b{re.escape(noun)}(?:e?s)?\b").search(text, here)
        if place:
            marks.append(Mark(place.start(), place.end(), not wrong))
            here = place.end()
    return marks
