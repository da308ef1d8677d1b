"""From the risk of tokens to the risk of words."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple


class Word(NamedTuple):
    """A word of a text: where it stands, (start, end) in characters, and the largest risk of its tokens."""

    text: str
    start: int
    end: int
    risk: float | None


def spans(text: str, tokens: Sequence[str]) -> list[tuple[int, int]]:
    """Where each token stands in the text, (start, end) in characters; a token that is not found has no width.

    Pieces are looked for one after another without the spaces around them: some tokenizers put a space before a word,
    some do not, and a text has lost those at its ends.

    >>> spans("A hot dog.", ["A", " hot", " do", "g", "."])
    [(0, 1), (2, 5), (6, 8), (8, 9), (9, 10)]
    """
    found, here = [], 0
    for token in tokens:
        piece = token.strip()
        start = text.find(piece, here) if piece else -1
        # far away, it is another occurrence: this piece is not in the text as it stands
        if not 0 <= start <= here + 8:
            found.append((here, here))
            continue
        here = start + len(piece)
        found.append((start, here))
    return found


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
