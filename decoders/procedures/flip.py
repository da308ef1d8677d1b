"""Turn a yes or no around that a detector distrusts.

Zhang et al., "DHCP: Detecting Hallucinations by Cross-modal Attention Pattern in LVLMs", ACM MM 2025, arXiv 2411.18659.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .by_risk import ByRisk, answered, detector_field, risks_of, threshold_field

if TYPE_CHECKING:
    from ...pipelines.procedures import Call
    from ...pipelines.results import Answer

YES_NO = re.compile(r"\W*\b(yes|no)\b", re.IGNORECASE)


def flip(answers: Sequence[Answer], detector: str, threshold: float) -> list[Answer]:
    """Turn every yes or no around whose risk exceeds the threshold; leave all else as it is.

    The risk is that of the token that is yes or no. What follows the word would contradict the other one and is left
    out. An answer that starts with neither stays.

    Args:
        detector: the name of a risk that the answers have.

    Raises:
        KeyError: an answer lacks it.
    """
    out = []
    for answer in answers:
        match, at = YES_NO.match(answer.text), _deciding(answer.tokens)
        if answer.error or match is None or at is None or not risks_of(answer, detector)[at] > threshold:
            out.append(answer)
            continue
        word = match[1]
        other = {"yes": "no", "no": "yes"}[word.lower()]
        other = other.upper() if word.isupper() else other.capitalize() if word[0].isupper() else other
        stop = "." if answer.text.strip() != word else ""
        kept = {name: [values[at]] for name, values in answer.risk.items()}
        out.append(replace(answer, text=other + stop, tokens=[other + stop], risk=kept))
    return out


def _deciding(tokens: Sequence[str]) -> int | None:
    """The first token with a letter: the one that begins the word."""
    return next((at for at, token in enumerate(tokens) if any(map(str.isalpha, token))), None)


@dataclass(frozen=True)
class Flip(ByRisk):
    """Turn a yes or no around where its risk, by `detector`, exceeds `threshold`.

    Raises:
        UnknownName, ValueError: no such detector, or a threshold that is no number.
    """

    detector: Any = detector_field("dhcp")
    threshold: float | str = threshold_field('"inf" never flips. DHCP: its probability 0.5, as by others after it.')

    def answers(
        self, call: Call, images: Sequence[Any], questions: Sequence[str], seeds: Sequence[int]
    ) -> list[Answer]:
        plain = [answer for answer, _ in answered(self.reading(call), images, questions, seeds)]
        return self.shown(call, plain, flip(plain, self.reads, self.limit))
