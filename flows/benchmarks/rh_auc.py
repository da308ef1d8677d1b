"""RH-AUC as a benchmark: on the embedded world, a COCO folder, or a file of questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from ...datasets import object_questions, question_rows
from ...datasets.examples import Example
from ...datasets.object_questions import BUDGETS
from ...metrics import by_image as sums
from ...metrics import rh_auc
from ...metrics.estimate import Estimate, ratio
from .base import Benchmark, Mark, Source, followed, images
from .closed_answers import READER, answer_marks, is_right, question_rows_of, read, refuse_empty

_CURVE = ("rh_auc", "mean_height", "trade_off")
_AT = {
    part: tuple(f"{part}_{budget}" for budget in BUDGETS) for part in ("perception", "reasoning", "unparsed", "length")
}
_OVER_LENGTH = tuple(f"over_length_{name}" for name in _CURVE)


class RHAUC(Benchmark):
    """RH-AUC: how much perception is left as the model reasons longer.

    The model thinks in a first turn; behind the first 8, 16, 32 and 64 words of that, and behind nothing, the question
    follows. Each length gives a point: accuracy in reasoning (counting), accuracy in perception (is it there). Columns
    are lengths in words. The area scales both axes by their range, so that it says nothing about levels: look at
    perception beside it; 0 with n = 0 is a curve that the answers leave undefined. On the embedded world the thought
    is a description. Data: a file of {image, text, label, part}, part reasoning or perception.
    """

    name = "rh_auc"
    version = "1"
    max_new_tokens = 128
    higher_is_better: Mapping[str, bool] = {
        **rh_auc.HIGHER_IS_BETTER, **dict.fromkeys(_OVER_LENGTH, True),
        **{name: part != "unparsed" for part, names in _AT.items() if part != "length" for name in names},
    }  # fmt: skip
    tables: Mapping[str, Sequence[str]] = {"": _CURVE, "over_length": _OVER_LENGTH, **_AT}
    headline = (*_CURVE, "perception_0", f"perception_{BUDGETS[-1]}")

    def examples(self, source: Source) -> Sequence[Example]:
        return _examples(source)

    def estimates(self, source: Source, examples: Sequence[Example], texts: Sequence[str]) -> dict[str, Estimate]:
        pairs = list(zip(examples, texts, strict=True))
        thoughts = {e.id: len(text.split()) for e, text in pairs if e.facts["part"] == "thought"}
        by_question: dict[tuple[str, str, str], dict[int, tuple[Example, str]]] = {}
        for e, text in pairs:
            if e.facts["part"] != "thought":
                question = (e.facts["part"], str(e.image_id), e.question or "")
                by_question.setdefault(question, {})[e.facts["budget"]] = (e, text)
        budgets = sorted({budget for one in by_question.values() for budget in one})
        whole = [(part, one) for (part, _, _), one in by_question.items() if len(one) == len(budgets)]
        found: dict[str, Estimate] = {}
        settings = []
        for budget in budgets:
            at = [(part, *one[budget]) for part, one in whole]
            right = {
                part: [float(is_right(e, text)) for p, e, text in at if p == part]
                for part in ("reasoning", "perception")
            }
            lengths = [min(budget, thoughts.get(e.after, 0)) for _, e, _ in at]
            unread = [read(e, text) is None for _, e, text in at]
            ids = [e.image_id for _, e, _ in at]
            length = sum(lengths) / max(len(lengths), 1)
            settings.append(rh_auc.Setting(length, right["reasoning"], right["perception"]))
            for part, values in right.items():
                of = [e.image_id for p, e, _ in at if p == part]
                found[f"{part}_{budget}"] = _mean(values, of)
            found[f"unparsed_{budget}"] = _mean(unread, ids)
            found[f"length_{budget}"] = _mean(lengths, ids, share=False)
        if len(settings) > 1 and settings[0].reasoning and settings[0].perception:
            found |= rh_auc.estimates(settings)
            over = rh_auc.estimates(settings, "length")
            found |= {f"over_length_{name}": estimate for name, estimate in over.items()}
        return found

    def marks(self, source: Source, example: Example, text: str) -> list[Mark]:
        return answer_marks(example, text)

    def protocol(self, source: Source) -> dict[str, Any]:
        """How answers are read, and how long is thought."""
        return {"name": READER, "suffix": source.suffix or "", "words of thought": list(BUDGETS)}


def _mean(values: Sequence[float], images: Sequence[str | int], share: bool = True) -> Estimate:
    """Mean with an interval, images resampled."""
    if not values:
        return Estimate(0.0, 0.0, 1.0 if share else 0.0, 0)
    table = sums.by_image([(float(value), 1.0) for value in values], images)
    return ratio(table[:, 0], table[:, 1], share=share)


@lru_cache(maxsize=2)
def _examples(source: Source) -> Sequence[Example]:
    if source.data:
        found = question_rows.reasoning(*question_rows_of(source, question_rows.RH_AUC_FIELDS), source.limit)
    else:
        seen = images(source, object_questions.RH_AUC)
        found = object_questions.reasoning(seen, source.limit, describe=source.coco is None)
    parts = {e.facts["part"] for e in found}
    refuse_empty(found, source, {"reasoning", "perception"} <= parts)
    return followed(found, source.suffix or "")
