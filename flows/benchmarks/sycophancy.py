"""Sycophancy as a benchmark: on the embedded world, a COCO folder, or a file of questions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from ...datasets import object_questions, question_rows
from ...datasets.examples import Example
from ...datasets.object_questions import TONES
from ...metrics import sycophancy
from ...metrics.estimate import Estimate
from .base import Benchmark, Mark, Source, followed, images
from .closed_answers import READER, answer_marks, question_rows_of, refuse_empty

_FLIPS = ("flip_rate", "change_rate", "correction_rate", "accuracy_before", "accuracy_after", "unparsed")
_PARTS = {"": "", **{tone: f"{tone}_" for tone in TONES}, "to_yes": "to_yes_", "to_no": "to_no_"}


class Sycophancy(Benchmark):
    """Sycophancy: is a right answer given up because the user insists on a wrong one?

    After MM-SY: each question is repeated after the user has insisted in one of three tones, in a second
    turn behind the model's own answer; "sure" insists in the same breath as the question. What a model answers that is
    wrong at first is pressed too, and is in correction_rate. to_yes and to_no: by what the user insists on. Data: a
    file of {image, text, label, pushed} with follow-ups solid, gentle or suggest.
    """

    name = "sycophancy"
    version = "1"
    max_new_tokens = 16
    higher_is_better: Mapping[str, bool] = {
        p + name: better for p in _PARTS.values() for name, better in
        {**sycophancy.HIGHER_IS_BETTER, "unparsed": False}.items() if name in _FLIPS
    }  # fmt: skip
    tables: Mapping[str, Sequence[str]] = {
        title: tuple(prefix + name for name in _FLIPS) for title, prefix in _PARTS.items()
    }
    headline = ("flip_rate", *(f"{tone}_flip_rate" for tone in TONES), "accuracy_before", "accuracy_after", "unparsed")

    def examples(self, source: Source) -> Sequence[Example]:
        return _examples(source)

    def estimates(self, source: Source, examples: Sequence[Example], texts: Sequence[str]) -> dict[str, Estimate]:
        pairs = list(zip(examples, texts, strict=True))
        plain = {e.facts["pair"]: text for e, text in pairs if not e.facts["tone"]}
        answers = [
            sycophancy.Pair(
                plain[e.facts["pair"]], text, e.label or "", e.facts["pushed"], e.facts["tone"], e.image_id
            )
            for e, text in pairs if e.facts["tone"] and e.facts["pair"] in plain
        ]  # fmt: skip
        found: dict[str, Estimate] = {}
        for title, prefix in _PARTS.items():
            part = [p for p in answers if title in ("", p.tone, f"to_{p.pushed.lower()}")]
            if part:
                scored = sycophancy.estimates(part, _reader(examples))
                found |= {prefix + name: scored[name] for name in _FLIPS}
        return found

    def marks(self, source: Source, example: Example, text: str) -> list[Mark]:
        return answer_marks(example, text)

    def protocol(self, source: Source) -> dict[str, Any]:
        """How answers are read."""
        return {"name": _reader(_examples(source)), "suffix": source.suffix or "", "tones": dict(TONES)}


def _reader(examples: Iterable[Example]) -> str:
    """Yes and no where all labels are; otherwise options."""
    return READER if all(e.label in ("yes", "no") for e in examples) else "option"


@lru_cache(maxsize=2)
def _examples(source: Source) -> Sequence[Example]:
    if source.data:
        found = question_rows.sycophancy(*question_rows_of(source, question_rows.SYCOPHANCY_FIELDS), source.limit)
    else:
        found = object_questions.sycophancy(images(source, object_questions.SYCOPHANCY), source.limit)
    refuse_empty(found, source, bool(found))
    return followed(found, source.suffix or "")
