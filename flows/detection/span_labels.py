"""The units that a detector is trained and evaluated on: words, mentions, tokens, spans or windows of a caption."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...pipelines.inputs.token_spans import inside, spans
from ..benchmarks.base import Mark

UNITS = ("words", "mentions", "tokens", "spans", "windows")
WINDOW = 8
OTHERS = 0.1  # how often a token outside all mentions counts in "words"


class Unit(NamedTuple):
    """A stretch of a text that is hallucinated (label 1) or not (0), as the numbers of its tokens, and its weight."""

    tokens: Sequence[int]
    label: int
    weight: float = 1.0


def mentions(text: str, tokens: Sequence[str], marks: Sequence[Mark]) -> list[Unit]:
    """A unit per marked stretch that has tokens."""
    placed = spans(text, tokens)
    found = [(inside(placed, mark.start, mark.end), int(not mark.right)) for mark in marks]
    return [Unit(tokens, label) for tokens, label in found if tokens]


def sentence_units(text: str, tokens: Sequence[str], mentioned: Sequence[Unit]) -> list[Unit]:
    """The sentences of a text: hallucinated if a hallucinated mention begins there.

    >>> tokens = ["A", " dog", ".", " A", " cat", "."]
    >>> [unit.label for unit in sentence_units("A dog. A cat.", tokens, [Unit([1], 0), Unit([4], 1)])]
    [0, 1]
    """
    from ...pipelines.inputs.text_alignment import sentences

    wrong = [unit.tokens[0] for unit in mentioned if unit.label]
    return [
        Unit(range(one.first, one.last), int(any(one.first <= token < one.last for token in wrong)))
        for one in sentences(text, tokens)
    ]


def token_labels(count: int, units: Sequence[Unit]) -> list[int]:
    """1 for tokens of a hallucinated unit, 0 for all others.

    >>> token_labels(5, [Unit([0, 1], 0), Unit([3], 1)])
    [0, 0, 0, 1, 0]
    """
    wrong = {token for unit in units if unit.label for token in unit.tokens}
    return [int(number in wrong) for number in range(count)]


def with_others(count: int, units: Sequence[Unit]) -> list[Unit]:
    """The units, and every token outside them as one that is not hallucinated and counts a tenth.

    A probe trained on mentions alone has arbitrary risks for "a" and "also"; one trained on every token alike spends
    its weights on separating words from mentions.

    >>> [(list(unit.tokens), unit.label, unit.weight) for unit in with_others(3, [Unit([1], 1)])]
    [([1], 1, 1.0), ([0], 0, 0.1), ([2], 0, 0.1)]
    """
    taken = {token for unit in units for token in unit.tokens}
    return [*units, *(Unit([number], 0, OTHERS) for number in range(count) if number not in taken)]


def predefined_spans(labels: Sequence[int]) -> list[Unit]:
    """Lookback Lens's spans of one text: before the first hallucinated token, all hallucinated ones, after the last.

    What lies between two hallucinated stretches is in none. A text without any is one unit.

    >>> [list(unit.tokens) for unit in predefined_spans([0, 0, 0, 1, 1, 1, 0, 0, 1, 1, 0, 0])]
    [[0, 1, 2], [3, 4, 5, 8, 9], [10, 11]]
    """
    wrong = [number for number, label in enumerate(labels) if label]
    if not wrong:
        return [Unit(range(len(labels)), 0)] if labels else []
    parts = [Unit(range(wrong[0]), 0), Unit(wrong, 1), Unit(range(wrong[-1] + 1, len(labels)), 0)]
    return [part for part in parts if len(part.tokens)]


def windows(labels: Sequence[int], width: int = WINDOW) -> list[Unit]:
    """Every full window, one token apart; hallucinated if any of its tokens is.

    >>> [unit.label for unit in windows([1, 0, 0, 0, 0, 0, 0, 0, 0, 0])]
    [1, 0, 0]
    """
    starts = range(len(labels) - width + 1)
    return [Unit(range(start, start + width), max(labels[start : start + width])) for start in starts]


def units(kind: str, text: str, tokens: Sequence[str], marks: Sequence[Mark]) -> list[Unit]:
    """The units of one kind in a text.

    Raises:
        ValueError: an unknown kind.
    """
    if kind not in UNITS:
        raise ValueError(f"unit={kind!r} is none of {', '.join(UNITS)}.")
    found = mentions(text, tokens, marks)
    if kind == "mentions":
        return found
    if kind == "words":
        return with_others(len(tokens), found)
    labels = token_labels(len(tokens), found)
    if kind == "tokens":
        return [Unit([number], label) for number, label in enumerate(labels)]
    return predefined_spans(labels) if kind == "spans" else windows(labels)
