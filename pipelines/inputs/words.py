"""The words of a text, and their risks from those of its tokens."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from .token_spans import spans

LIKELY = 0.5  # of risks that are probabilities
RISKIEST = 0.8  # of other risks: the quantile above which words stand out


class Word(NamedTuple):
    """A word of a text: where it stands, (start, end) in characters, and the largest risk of its tokens."""

    text: str
    start: int
    end: int
    risk: float | None


def words(text: str, tokens: Sequence[str], risk: Sequence[float | None]) -> list[Word]:
    """The words of a text, split at spaces, each as risky as its riskiest token; None where none has a risk.

    >>> [(w.text, w.risk) for w in words("A hot dog.", ["A", " hot", " do", "g", "."], [0.1, 0.2, 0.9, 0.3, 0.1])]
    [('A', 0.1), ('hot', 0.2), ('dog.', 0.9)]
    """
    placed = list(zip(spans(text, tokens), risk, strict=True))
    out = []
    for match in re.finditer(r"\S+", text):
        start, end = match.span()
        inside = [r for (a, b), r in placed if r is not None and not math.isnan(r) and a < end and b > start]
        out.append(Word(match.group(), start, end, max(inside, default=None)))
    return out


def threshold(risks: Sequence[float | None], probability: bool) -> float:
    """½ for probabilities; otherwise the risk above which the riskiest fifth lies.

    >>> threshold([0.1, 0.2, 0.9], True), threshold([-3.0, -2.0, -1.0, None], False)
    (0.5, -1.0)
    """
    if probability:
        return LIKELY
    known = sorted(risk for risk in risks if risk is not None and not math.isnan(risk))
    return known[math.ceil(RISKIEST * (len(known) - 1))] if known else math.inf


def shades(risks: Sequence[float | None]) -> list[float]:
    """How strongly each risk is tinted, 0 (not at all) to 1: its place between the smallest and the largest.

    Risks that are probabilities, 0 to 1, are their own shade, so that a text of small risks stays pale.

    >>> shades([0.1, 0.9, None]), shades([-4.0, -2.0, -3.0])
    ([0.1, 0.9, 0.0], [0.0, 1.0, 0.5])
    """
    known = [risk for risk in risks if risk is not None and math.isfinite(risk)]
    low, high = min(known, default=0.0), max(known, default=1.0)
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    width = (high - low) or 1.0
    return [0.0 if r is None or math.isnan(r) else min(max((r - low) / width, 0.0), 1.0) for r in risks]
