"""RePOPE: POPE's answers under corrected labels, without the questions whose objects are ambiguous.

Neuhaus and Hein, "RePOPE: Impact of Annotation Errors on the POPE Benchmark", 2025, arXiv 2504.15707.

A model is asked POPE's questions as they are; this is a second reading of the same answers, so that every file of
answers to POPE can be scored again. 42 to 44 % of the labels are "yes": balanced accuracy stands beside accuracy.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import by_image as sums
from . import closed_questions as closed
from .closed_questions import shares
from .counted import Counted
from .estimate import Estimate
from .yes_no import anywhere, words

HIGHER_IS_BETTER = {
    "accuracy": True, "balanced_accuracy": True, "precision": True, "recall": True, "f1": True, "unparsed": False,
}  # fmt: skip
READERS = {"official": anywhere, "strict": words}


class Outcome(NamedTuple):
    """What one answer adds to every score, each 0 or 1. One that is no yes or no counts in `answers` alone."""

    answers: int
    questions: int
    true_positive: int
    false_positive: int
    true_negative: int
    false_negative: int


def outcomes(answers: Sequence[str], labels: Sequence[str], protocol: str = "official") -> list[Outcome]:
    """Each answer against its label, by order.

    official: "yes" anywhere in the lower-cased answer, else "no" anywhere ("not" and "know" hold one); an answer with
        neither is left out of all counts, so that accuracy rises.
    strict: yes or no as a whole word and not both; other answers are wrong.

    Raises:
        ValueError: no answers, another number of labels, a label other than yes or no, or an unknown protocol.
        TypeError: an answer that is no string.
    """
    read = closed.reader(READERS, protocol, "RePOPE")
    closed.check(answers, labels)
    found = []
    for answer, label in zip(answers, labels, strict=True):
        if label not in ("yes", "no"):
            raise ValueError(f"a label is {label!r}; possible: 'yes' and 'no'.")
        text = read(answer)
        if not text and protocol == "strict":
            text = {"yes": "no", "no": "yes"}[label]
        counts = [text == a and label == b for a, b in (("yes", "yes"), ("yes", "no"), ("no", "no"), ("no", "yes"))]
        found.append(Outcome(1, int(bool(text)), *map(int, counts)))
    return found


def score(answers: Sequence[str], labels: Sequence[str], protocol: str = "official") -> dict[str, float]:
    """RePOPE's figures, "yes" being the positive class; 0 to 1, and n, the number of answers that count.

    accuracy = (TP + TN) / n,   precision = TP / (TP + FP),   recall = TP / (TP + FN),
    f1 = 2·TP / (2·TP + FP + FN),   balanced_accuracy = (recall + TN / (TN + FP)) / 2,   yes_ratio = (TP + FP) / n

    An empty denominator gives 0.

    >>> figures = score(["yes", "perhaps", "no", "yes"], ["yes", "yes", "no", "no"])
    >>> {name: round(value, 4) for name, value in figures.items()}  # doctest: +NORMALIZE_WHITESPACE
    {'accuracy': 0.6667, 'balanced_accuracy': 0.75, 'precision': 0.5, 'recall': 1.0, 'f1': 0.6667,
     'yes_ratio': 0.6667, 'unparsed': 0.25, 'n': 3}

    Raises:
        ValueError, TypeError: as `outcomes`.
    """
    totals = Outcome(*np.array(outcomes(answers, labels, protocol)).sum(axis=0))
    figures = sums.values(totals, RATIOS)
    figures["balanced_accuracy"] = float(np.nan_to_num(balanced(np.array(totals))))
    unparsed = _unread(answers, protocol)
    return {**{name: figures[name] for name in ORDER}, "unparsed": unparsed / len(answers), "n": int(totals.questions)}


def estimates(
    answers: Sequence[str], labels: Sequence[str], images: Sequence[str | int], protocol: str = "official", **options
) -> dict[str, Estimate]:
    """The figures of `score` with intervals; images are resampled with all their questions, and are n.

    Raises:
        ValueError, TypeError: as `outcomes`, or a number of images other than that of answers.
    """
    table = sums.by_image(outcomes(answers, labels, protocol), images)
    read = closed.reader(READERS, protocol, "RePOPE")
    missing = sums.by_image([(int(not read(answer)), 1) for answer in answers], images)
    found = sums.estimates(Outcome(*table.T), RATIOS, **options)
    found["balanced_accuracy"] = closed.composed(table, balanced, **options)
    return {
        **{name: found[name] for name in ORDER}, "unparsed": sums.ratio(missing[:, 0], missing[:, 1], **options),
    }  # fmt: skip


def balanced(counts: NDArray) -> NDArray:
    """Balanced accuracy of summed counts of shape (…, Outcome)."""
    c = Outcome(*np.moveaxis(counts, -1, 0))
    recall = shares(c.true_positive, c.true_positive + c.false_negative)
    return (recall + shares(c.true_negative, c.true_negative + c.false_positive)) / 2


def mean_of_splits(
    splits: Sequence[tuple[Sequence[str], Sequence[str], Sequence[str | int]]], protocol: str = "official", **options
) -> dict[str, Estimate]:
    """The unweighted mean of each figure over splits; images are drawn with their questions of all splits.

    Args:
        splits: (answers, labels, images) of each.

    Raises:
        ValueError, TypeError: as `estimates`, or no split.
    """
    found = counted(splits, protocol)
    return {name: closed.composed(found.table, of, **options) for name, of in found.composed.items()}


def counted(
    splits: Sequence[tuple[Sequence[str], Sequence[str], Sequence[str | int]]], protocol: str = "official"
) -> Counted:
    """The counts of each image in each split, for a paired comparison of the mean over splits, or of a single one.

    Raises:
        ValueError, TypeError: as `mean_of_splits`.
    """
    if not splits:
        raise ValueError("no splits to average.")
    images = {image: place for place, image in enumerate(dict.fromkeys(i for _, _, split in splits for i in split))}
    counts = np.zeros((len(images), len(splits), len(Outcome._fields)))
    for number, (answers, labels, of) in enumerate(splits):
        closed.check(answers, labels, of)
        np.add.at(counts[:, number], [images[image] for image in of], outcomes(answers, labels, protocol))
    shape = (len(splits), len(Outcome._fields))

    def mean(figure: Any) -> Any:
        return lambda total: figure(total.reshape(*total.shape[:-1], *shape)).mean(axis=-1)

    return Counted(tuple(images), counts.reshape(len(images), -1), {}, {name: mean(FIGURES[name]) for name in ORDER})


def corrected(
    questions: Sequence[Mapping[str, Any]], repope: Sequence[Mapping[str, Any]], where: str = "RePOPE's file"
) -> dict[Any, str]:
    """Question id -> corrected label, of the questions that are left; joined by id, image and text.

    Args:
        questions: of one split of POPE, with question_id, image and text.
        repope: of the same split of RePOPE, with a label too.
        where: the name of RePOPE's file, for messages.

    Raises:
        ValueError: an id that POPE does not have, or another image or text under the same id.
    """
    known = {q["question_id"]: (q["image"], q["text"]) for q in questions}
    for row in repope:
        number = row["question_id"]
        there = known.get(number)
        if there is None:
            raise ValueError(f"{where}: question {number!r} is none of POPE's {len(known)}: is it another split?")
        if there != (row["image"], row["text"]):
            raise ValueError(
                f"{where}: question {number!r} asks {row['text']!r} about {row['image']}, POPE's asks {there[1]!r} "
                f"about {there[0]}: is it another split?"
            )
    return {row["question_id"]: row["label"] for row in repope}


def _unread(answers: Sequence[str], protocol: str) -> int:
    return sum(not READERS[protocol](answer) for answer in answers)


RATIOS: dict[str, Any] = {
    "accuracy": lambda c: (c.true_positive + c.true_negative, c.questions),
    "precision": lambda c: (c.true_positive, c.true_positive + c.false_positive),
    "recall": lambda c: (c.true_positive, c.true_positive + c.false_negative),
    "f1": lambda c: (2 * c.true_positive, 2 * c.true_positive + c.false_positive + c.false_negative),
    "yes_ratio": lambda c: (c.true_positive + c.false_positive, c.questions),
}
ORDER = ("accuracy", "balanced_accuracy", "precision", "recall", "f1", "yes_ratio")


def _ratio(name: str) -> Any:
    return lambda counts: shares(*RATIOS[name](Outcome(*np.moveaxis(counts, -1, 0))))


FIGURES = {**{name: _ratio(name) for name in RATIOS}, "balanced_accuracy": balanced}
