"""Counting: is the number right, how far off is it, and does it agree with yes/no questions about the same objects.

No paper defines this score; the definitions are ours, from what AMBER's "number" questions (arXiv 2311.07397) and the
"count" of MME (arXiv 2306.13394) ask.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from . import by_image as sums
from .estimate import Estimate
from .pope_answers import READERS

HIGHER_IS_BETTER = {"accuracy": True, "mean_absolute_error": False, "consistency": True}
WORDS = re.findall(
    r"\w+",
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty",
)
NUMBER = re.compile(rf"(?<![\w.,])(\d{{1,6}})(?![\w]|[.,]\d)|\b({'|'.join(WORDS)})\b", re.IGNORECASE)
NOTHING = re.compile(r"\b(?:no|none|nothing|not any|aren['’]t any|isn['’]t any)\b", re.IGNORECASE)
ARTICLE = re.compile(r"\b(?:a|an|single)\b(?! (?:few|couple|lot|number|group|pair|bunch|dozen)\b)", re.IGNORECASE)


@dataclass(frozen=True)
class Claim:
    """A yes/no question about the number of the same objects, and its answer.

    Args:
        number: the number it asks about.
        answer: the text of the model.
        at_least: "Is there a dog?" asks about one or more; "Are there two dogs?" about exactly two.
    """

    number: int
    answer: str
    at_least: bool = False


@dataclass(frozen=True)
class Count:
    """One counting question: the true number, the answer, and claims about the same objects."""

    answer: str
    number: int
    claims: Sequence[Claim] = ()
    image: str | int | None = None


class Counts(NamedTuple):
    """What one counting question adds: 0 or 1 for the first three, then numbers."""

    questions: int
    exact: int
    read: int
    away: int  # |answer − truth|, 0 where nothing could be read
    over: int  # answer − truth
    claims: int
    consistent: int


RATIOS: dict[str, Callable[[Any], tuple[Any, Any]]] = {
    "accuracy": lambda c: (c.exact, c.questions),
    "mean_absolute_error": lambda c: (c.away, c.read),
    "bias": lambda c: (c.over, c.read),
    "consistency": lambda c: (c.consistent, c.claims),
    "unparsed": lambda c: (c.questions - c.read, c.questions),
}
UNBOUNDED = ("mean_absolute_error", "bias")


def parse_count(answer: str) -> int | None:
    """The number that an answer says, or None.

    The first number in digits or words (zero to twenty); without one, none, no or nothing is 0; without that, a, an
    or single is 1. "Two or three" is 2; "1.5", "3D" and "a few" are no numbers.

    >>> [parse_count(a) for a in ("Two.", "There are 12 dogs", "None", "a dog", "No, I see three", "many")]
    [2, 12, 0, 1, 3, None]

    Raises:
        TypeError: the answer is no string.
    """
    if not isinstance(answer, str):
        raise TypeError(f"an answer is a string; found {type(answer).__name__}: {answer!r:.80}")
    found = NUMBER.search(answer)
    if found:
        return int(found[1]) if found[1] else WORDS.index(found[2].lower())
    if NOTHING.search(answer):
        return 0
    return 1 if ARTICLE.search(answer) else None


def agrees(found: int | None, claim: Claim, protocol: str = "strict") -> bool:
    """Whether a count and the answer to a yes/no question say the same; what cannot be read agrees with nothing.

    yes ⇔ found = number, or found ≥ number where the question asks for at least that many

    >>> agrees(2, Claim(1, "Yes", at_least=True)), agrees(2, Claim(3, "Yes")), agrees(2, Claim(3, "No"))
    (True, False, True)
    """
    answer = READERS[protocol](claim.answer)
    if found is None or answer == "unparsed":
        return False
    return (answer == "yes") == (found >= claim.number if claim.at_least else found == claim.number)


def counts(example: Count, protocol: str = "strict") -> Counts:
    """What one counting question adds to every figure.

    Raises:
        ValueError: a negative true number, or an unknown protocol.
        TypeError: an answer that is no string.
    """
    if example.number < 0:
        raise ValueError(f"number={example.number} is negative (how many there are).")
    if protocol not in READERS:
        raise ValueError(f"no protocol {protocol!r}. Known: {', '.join(READERS)}.")
    found = parse_count(example.answer)
    return Counts(
        questions=1,
        exact=int(found == example.number),
        read=int(found is not None),
        away=0 if found is None else abs(found - example.number),
        over=0 if found is None else found - example.number,
        claims=len(example.claims),
        consistent=sum(agrees(found, claim, protocol) for claim in example.claims),
    )


def score(examples: Sequence[Count], protocol: str = "strict") -> dict[str, float]:
    """Counting's figures.

    accuracy = exactly right / questions; 0 to 1, higher is better. An answer without a number is wrong.
    mean_absolute_error = Σ |answer − truth| / answers with a number; 0 is best. bias: likewise with the sign, above 0
        means seeing too many.
    consistency = claims that agree with the count / claims; 0 to 1, higher is better. It asks for one story, not for
        the right one: a model that always says "one" and "yes" is fully consistent with "Is there a …?".
    unparsed: answers without a number / questions. constant: accuracy of always saying the most frequent true number,
        what a model that does not look can reach. An empty denominator gives 0.

    >>> examples = [Count("Two", 2), Count("3", 1), Count("several", 2)]
    >>> {name: round(value, 3) for name, value in score(examples).items()}  # doctest: +NORMALIZE_WHITESPACE
    {'accuracy': 0.333, 'mean_absolute_error': 1.0, 'bias': 1.0, 'consistency': 0.0, 'unparsed': 0.333,
     'constant': 0.667, 'n': 3}

    Raises:
        ValueError, TypeError: no questions, and as `counts`.
    """
    table = sums.by_image([counts(one, protocol) for one in examples], None)
    numbers = [one.number for one in examples]
    return {
        **sums.values(Counts(*table.sum(axis=0)), RATIOS),
        "constant": max(map(numbers.count, numbers)) / len(numbers),
        "n": len(examples),
    }


def estimates(examples: Sequence[Count], protocol: str = "strict", **options) -> dict[str, Estimate]:
    """The figures with intervals, without `constant`; images are resampled where every question names its image.

    n is the number of images, or of questions without them. Options as in `metrics.estimate.bootstrap`.

    Raises:
        ValueError, TypeError: as `score`.
    """
    images = [one.image for one in examples]
    table = sums.by_image([counts(one, protocol) for one in examples], None if None in images else images)  # type: ignore[arg-type]
    return sums.estimates(Counts(*table.T), RATIOS, UNBOUNDED, **options)


def join(questions: Sequence[Mapping[str, Any]], answers: Mapping[Any, str]) -> list[Count]:
    """Counting questions with their answers, and with the yes/no questions about the same objects as claims.

    Args:
        questions: counting questions {question_id, number, about, image} and yes/no questions {question_id, claims
            (the number), at_least (bool), about}, as `datasets.world_questions.counting` makes them; `about` says
            which belong together.
        answers: question_id -> text of the model.

    Raises:
        ValueError: a question without an answer, or a yes/no question about nothing that was counted.
    """
    missing = [q["question_id"] for q in questions if q["question_id"] not in answers]
    if missing:
        raise ValueError(f"{len(missing)} of {len(questions)} questions have no answer, such as {missing[0]!r}.")
    claims: dict[Any, list[Claim]] = {q["about"]: [] for q in questions if "number" in q}
    for question in questions:
        if "number" not in question:
            if question["about"] not in claims:
                raise ValueError(f"question {question['question_id']!r} is about {question['about']!r}: never counted.")
            answer = answers[question["question_id"]]
            claims[question["about"]].append(Claim(question["claims"], answer, bool(question["at_least"])))
    return [
        Count(answers[q["question_id"]], q["number"], tuple(claims[q["about"]]), q.get("image"))
        for q in questions
        if "number" in q
    ]
