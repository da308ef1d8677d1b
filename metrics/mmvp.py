"""MMVP: a choice of two about pairs of images that CLIP takes for alike; a pair counts if both are right.

Tong et al., "Eyes Wide Shut? Exploring the Visual Shortcomings of Multimodal LLMs", 2024, arXiv 2401.06209.

The official program asks GPT-4 whether an answer agrees with the key; here a rule reads it, and what no rule can read
is counted. Papers print pair accuracy (chance 25 %) and the accuracy of questions (chance 50 %) under one name.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from . import by_image as sums
from . import closed_questions as closed
from .counted import Counted
from .estimate import Estimate

HIGHER_IS_BETTER = {"pair_accuracy": True, "accuracy": True, "unparsed": False}
LETTER = re.compile(r"\(?\s*([ab])\s*\)?[.:]?", re.IGNORECASE)
BRACKETED = re.compile(r"\(\s*([ab])\s*\)", re.IGNORECASE)
_CHOICE = r"\(?([ab])\)?"
# lmms-eval's order of looking: alone, in front, after two phrases, and before a space or the end, inside a word too.
LOOSE = tuple(
    re.compile(before + _CHOICE + after, re.IGNORECASE)
    for before, after in (
        ("^", r"\.?$"), ("^", r"[.\s]"), (r"answer\s+is\s+", ""), (r"option\s+", ""), ("", r"(?:\s|$)"),
    )
)  # fmt: skip


class Counts(NamedTuple):
    """What one question adds; the last two stand on the first question of each pair."""

    questions: int
    correct: int
    first_option: int
    unparsed: int
    right_pairs: int
    pairs: int


def read_strict(answer: str, options: Sequence[str]) -> str:
    """ "a" or "b": a bracketed letter, a letter alone, else the words of exactly one option; "" where none is read.

    >>> read_strict("The answer is (b).", ["Yes", "No"]), read_strict("A dog", ["A cat", "A dog"])
    ('b', 'b')
    >>> read_strict("A", ["Yes", "No"]), read_strict("both", ["Left", "Right"])
    ('a', '')
    """
    letters = {letter.lower() for letter in BRACKETED.findall(answer)}
    if letters:
        return letters.pop() if len(letters) == 1 else ""
    alone = LETTER.fullmatch(answer.strip())
    if alone:
        return alone[1].lower()
    longer, shorter = sorted(range(len(options)), key=lambda place: -len(options[place]))
    rest = _as_words(options[longer]).sub(" ", answer)  # "Not open" has "open" in it
    named = {longer: rest != answer, shorter: bool(_as_words(options[shorter]).search(rest))}
    return "ab"[longer if named[longer] else shorter] if sum(named.values()) == 1 else ""


def read_lmms_eval(answer: str, options: Sequence[str]) -> str:
    """lmms-eval's: the first that is found of a letter alone, a letter in front, "answer is", "option", an a or b
    before a space or the end; else the first character if it is one.

    >>> read_lmms_eval("A dog", ()), read_lmms_eval("both", ()), read_lmms_eval("a yes", ()), read_lmms_eval("No", ())
    ('a', 'b', 'a', '')
    """
    text = answer.strip()
    for pattern in LOOSE:
        match = pattern.search(text)
        if match:
            return match[1].lower()
    return text[0].lower() if text[:1].lower() in ("a", "b") else ""


READERS: dict[str, Callable[[str, Sequence[str]], str]] = {"strict": read_strict, "lmms_eval": read_lmms_eval}


def outcomes(
    answers: Sequence[str], labels: Sequence[str], options: Sequence[Sequence[str]], pairs: Sequence[str | int],
    protocol: str = "strict",
) -> list[Counts]:  # fmt: skip
    """Each answer against its key; what cannot be read is wrong.

    Args:
        answers: texts. labels: "a" or "b". options: the two options of each question, in words.
        pairs: which questions belong together; neighbours of the published file, not of a shuffled one.
        protocol: strict or lmms_eval.

    Raises:
        ValueError: no answers, columns of another length, or an unknown protocol.
        TypeError: an answer that is no string.
    """
    read = closed.reader(READERS, protocol, "MMVP")
    closed.check(answers, labels, options, pairs)
    texts = [read(answer, choice) for answer, choice in zip(answers, options, strict=True)]
    right = [int(text == label) for text, label in zip(texts, labels, strict=True)]
    whole = closed.groups_right(right, pairs)
    return [
        Counts(1, correct, int(text == "a"), int(not text), *map(int, pair))
        for correct, text, pair in zip(right, texts, whole, strict=True)
    ]


def estimates(
    answers: Sequence[str], labels: Sequence[str], options: Sequence[Sequence[str]], pairs: Sequence[str | int],
    protocol: str = "strict", **bootstrap: Any,
) -> dict[str, Estimate]:  # fmt: skip
    """pair_accuracy = pairs with both right / pairs,   accuracy = right / questions,   first_option: share of "a"; with
    intervals over pairs, which are n.

    >>> found = estimates(["(a)", "(b)", "(a)", "(a)"], "abab", [("Yes", "No")] * 4, [1, 1, 2, 2])
    >>> found["accuracy"].value, found["pair_accuracy"].value
    (0.75, 0.5)

    Raises:
        ValueError, TypeError: as `outcomes`.
    """
    table = sums.by_image(outcomes(answers, labels, options, pairs, protocol), pairs)
    return sums.estimates(Counts(*table.T), RATIOS, **bootstrap)


def counted(
    answers: Sequence[str], labels: Sequence[str], options: Sequence[Sequence[str]], pairs: Sequence[str | int],
    protocol: str = "strict",
) -> Counted:  # fmt: skip
    """The counts of each pair, for a paired comparison of two systems.

    Raises:
        ValueError, TypeError: as `outcomes`.
    """
    table = sums.by_image(outcomes(answers, labels, options, pairs, protocol), pairs)
    return Counted(tuple(dict.fromkeys(pairs)), table, RATIOS, columns=lambda one: Counts(*one.T))


def _as_words(option: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(option.strip())}(?!\w)", re.IGNORECASE)


RATIOS: dict[str, Any] = {
    "pair_accuracy": lambda c: (c.right_pairs, c.pairs),
    "accuracy": lambda c: (c.correct, c.questions),
    "first_option": lambda c: (c.first_option, c.questions),
    "unparsed": lambda c: (c.unparsed, c.questions),
}
