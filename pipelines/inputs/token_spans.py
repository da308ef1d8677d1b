"""Where tokens stand in a text, and which of them name the objects that CHAIR reads there. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...metrics.chair import Chair

__all__ = ["Chair", "Mention", "inside", "mentions", "spans"]


class Mention(NamedTuple):
    """An object that a text mentions: the words as they stand, CHAIR's category, and the tokens with a part in them."""

    word: str
    category: str
    tokens: list[int]


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


def inside(placed: Sequence[tuple[int, int]], start: int, end: int) -> list[int]:
    """The tokens that have a part in the characters from start to end. placed: from `spans`.

    >>> inside(spans("A hot dog.", ["A", " hot", " do", "g", "."]), 2, 9)
    [1, 2, 3]
    """
    return [number for number, (first, last) in enumerate(placed) if first < end and last > start and first < last]


def mentions(chair: Chair, text: str, tokens: Sequence[str]) -> list[Mention]:
    """The objects that a text mentions, in its order.

    >>> [tuple(m) for m in mentions(Chair(), "Two dogs, a stop sign.", ["Two", " do", "gs", ",", " a", " stop sign."])]
    [('dogs', 'dog', [1, 2]), ('stop sign', 'stop sign', [5])]
    """
    found, placed = chair.parse(text), spans(text, tokens)
    pairs = zip(found.objects, found.spans, strict=True)
    return [Mention(text[start:end], name, inside(placed, start, end)) for name, (start, end) in pairs]
