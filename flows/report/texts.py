"""The words of an answer as a report shows them: where they stand, whether they are right, risks, and what changed."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from ...pipelines.inputs.words import words
from ..benchmarks.base import Mark

KINDS = {None: 0, True: 1, False: 2}  # neither, right, hallucinated or wrong
SAME = None


def shown_words(
    text: str, tokens: Sequence[str], risk: Mapping[str, Sequence[float | None]], marks: Sequence[Mark],
    plain: str | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Per word: s and e, where it stands; k, one of KINDS; r, its risk by each detector; and p, what plain decoding
    has in its place: left out where it has the same word, "" where it has none.

    Args:
        plain: the text of plain decoding; None where there is none to compare with.
    """
    found = words(text, [], [])
    known = {name: values for name, values in risk.items() if len(values) == len(tokens)}
    none: list[float | None] = [None] * len(found)
    risks = [[w.risk for w in words(text, tokens, known[name])] if name in known else none for name in risk]
    was = replaced([word.text for word in found], plain.split()) if plain is not None else [SAME] * len(found)
    out = []
    for number, word in enumerate(found):
        inside = [mark.right for mark in marks if mark.start < word.end and mark.end > word.start]
        one: dict[str, Any] = {
            "s": word.start, "e": word.end, "k": KINDS[all(inside)] if inside else KINDS[None],
            "r": [None if r[number] is None else round(float(r[number] or 0.0), 3) for r in risks],
        }  # fmt: skip
        if was[number] is not SAME:
            one["p"] = was[number]
        out.append(one)
    return out


def replaced(mine: Sequence[str], plain: Sequence[str]) -> list[str | None]:
    """For each of my words: None where plain decoding has it too, else what stands in its place, "" for nothing.

    >>> replaced("A dog and a cat".split(), "A dog on a bench".split())
    [None, None, 'on', None, 'bench']
    """
    out: list[str | None] = [None] * len(mine)
    matcher = difflib.SequenceMatcher(None, plain, mine, autojunk=False)
    for kind, first, last, start, end in matcher.get_opcodes():
        if kind in ("replace", "insert"):
            out[start:end] = [" ".join(plain[first:last])] * (end - start)
    return out
