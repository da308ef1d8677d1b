"""Leave out sentences that a detector distrusts: a rule of this toolkit, of no paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ...pipelines.inputs.text_alignment import risk_of
from .by_risk import ByRisk, answered, detector_field, joined, over_field, parts_of, risks_of, threshold_field

if TYPE_CHECKING:
    from ...pipelines.procedures import Call
    from ...pipelines.results import Answer


def drop(
    answers: Sequence[Answer], detector: str, threshold: float, over: Literal["max", "mean"] = "max"
) -> list[Answer]:
    """Leave out every sentence whose risk exceeds the threshold, even if nothing is left.

    Args:
        detector: the name of a risk that the answers have. over: the risk of a sentence: its riskiest token, or mean.

    Raises:
        KeyError: an answer lacks it.
    """
    out = []
    for answer in answers:
        if answer.error is None:
            risks_of(answer, detector)
        parts = parts_of(answer)
        good = [part for part in parts if not risk_of(part.risk[detector], over) > threshold]
        out.append(answer if len(good) == len(parts) else joined(answer, good))
    return out


@dataclass(frozen=True)
class Drop(ByRisk):
    """Leave out the sentences whose risk, by `detector` and `over`, exceeds `threshold`.

    Raises:
        UnknownName, ValueError: no such detector, a threshold that is no number, or another `over`.

    It shortens texts and so lowers recall: compare at equal length. A text of which every sentence is dropped is "".
    """

    detector: Any = detector_field("lookback_lens")
    threshold: float | str = threshold_field('"inf" never drops.')
    over: Literal["max", "mean"] = over_field()

    def answers(
        self, call: Call, images: Sequence[Any], questions: Sequence[str], seeds: Sequence[int]
    ) -> list[Answer]:
        plain = [answer for answer, _ in answered(self.reading(call), images, questions, seeds)]
        return self.shown(call, plain, drop(plain, self.reads, self.limit, self.over))
