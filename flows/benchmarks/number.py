"""Number as a benchmark: on the embedded world, a COCO folder, or a file of questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from ...datasets import object_questions, question_rows
from ...datasets.examples import Example
from ...metrics import counting
from ...metrics.estimate import Estimate
from .base import Benchmark, Mark, Source, followed, images
from .closed_answers import READER, answer_marks, question_rows_of, refuse_empty


class Number(Benchmark):
    """Number: how many there are, how far off, and whether that agrees with the yes or no to a question about the same.

    Half of the counting questions are about several objects of a kind, as far as the images allow. Always saying the
    most frequent number reaches the accuracy that stands in the manifest. Data: a file of {image, text, about} with
    number, or claims and at_least.
    """

    name = "number"
    version = "1"
    max_new_tokens = 16
    higher_is_better: Mapping[str, bool] = {**counting.HIGHER_IS_BETTER, "unparsed": False}
    tables: Mapping[str, Sequence[str]] = {
        "": ("accuracy", "mean_absolute_error", "bias", "consistency", "unparsed")
    }
    headline = tables[""]

    def examples(self, source: Source) -> Sequence[Example]:
        return _examples(source)

    def estimates(self, source: Source, examples: Sequence[Example], texts: Sequence[str]) -> dict[str, Estimate]:
        pairs = list(zip(examples, texts, strict=True))
        claims: dict[str, list[counting.Claim]] = {}
        for e, text in pairs:
            if "claims" in e.facts:
                claim = counting.Claim(e.facts["claims"], text, e.facts["at_least"])
                claims.setdefault(e.facts["about"], []).append(claim)
        counts = [
            counting.Count(text, e.facts["number"], tuple(claims.get(e.facts["about"], ())), e.image_id)
            for e, text in pairs if "number" in e.facts
        ]  # fmt: skip
        return counting.estimates(counts, READER)

    def marks(self, source: Source, example: Example, text: str) -> list[Mark]:
        if "number" not in example.facts and example.label not in ("yes", "no"):
            return []  # a claim whose truth is not known
        return answer_marks(example, text)

    def protocol(self, source: Source) -> dict[str, Any]:
        """How numbers and yes or no are read, and what a model that does not look can reach."""
        numbers = [e.facts["number"] for e in object_questions.counted(_examples(source))]
        constant = max(map(numbers.count, numbers)) / len(numbers)
        return {"name": READER, "suffix": source.suffix or "", "accuracy of the most frequent number": constant}


@lru_cache(maxsize=2)
def _examples(source: Source) -> Sequence[Example]:
    if source.data:
        found = question_rows.number(*question_rows_of(source, question_rows.NUMBER_FIELDS), source.limit)
    else:
        seen = images(source, object_questions.NUMBER)
        found = object_questions.number(seen, source.limit, patient=source.coco is None)
    refuse_empty(found, source, any("number" in e.facts for e in found))
    return followed(found, source.suffix or "")
