"""POPE: yes/no questions about whether an object is in the image.

Li et al., "Evaluating Object Hallucination in Large Vision-Language Models", EMNLP 2023, arXiv 2305.10355, Sec. 4.

Programs differ in how they read an answer, by more than methods differ from each other, so a result names its
protocol. Half of the questions are about objects that are there: a constant "yes" scores accuracy 0.5 and F1 0.667,
so look at the yes ratio first.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .captions_file import by_line, documents, is_json
from .estimate import Estimate, bootstrap, ratio, wilson
from .paired import SWAPS, Difference, paired_differences
from .pope_answers import READERS as READERS
from .pope_answers import parse as parse
from .pope_answers import strict

HIGHER_IS_BETTER = {"accuracy": True, "precision": True, "recall": True, "f1": True}
NEEDED = ("question_id", "image", "text", "label")
# What the same fields are called in lmms-eval's copy of the questions.
ALSO = {"image": "image_source", "text": "question", "label": "answer"}

# What each protocol's users append to the question. Several points of yes ratio hang on it.
PROMPT_SUFFIX = {
    "official": "",
    "opera": "",
    "vcd": " Please answer this question with one word.",
    "lmms_eval": "\nAnswer the question using a single word or phrase.",
    "strict": "",
}


class Outcome(NamedTuple):
    """What one answer adds to every score, each 0 or 1."""

    questions: int
    correct: int
    true_positive: int
    false_positive: int
    false_negative: int
    yes: int  # counts for the yes ratio
    unparsed: int


def outcomes(answers: Sequence[str], labels: Sequence[str], protocol: str = "official") -> list[Outcome]:
    """Each answer against its label, by order: the counts that every figure is made of.

    Raises:
        ValueError: no answers, another number of labels, a label other than yes or no, an unknown protocol.
        TypeError: an answer that is no string.
    """
    if len(answers) != len(labels):
        raise ValueError(f"{len(answers)} answers and {len(labels)} labels: they are matched by order, one to one.")
    if not len(answers):
        raise ValueError("no answers to score.")
    return [
        _outcome(answer, _label(label, number), protocol)
        for number, (answer, label) in enumerate(zip(answers, labels, strict=True), start=1)
    ]


def score(answers: Sequence[str], labels: Sequence[str], protocol: str = "official") -> dict[str, float]:
    """POPE's figures, "yes" being the positive class; all 0 to 1, and higher is better for the first four.

    accuracy = correct / N,   precision = TP / (TP + FP),   recall = TP / (TP + FN),
    f1 = 2·TP / (2·TP + FP + FN),   yes_ratio = (TP + FP) / N: above the share of yes-labels means leaning to "yes"

    unparsed: answers without exactly one of the words yes and no (`strict`), whichever protocol scores them. `strict`
    counts them as wrong, and as a miss where the label is yes. An empty denominator gives 0.

    vcd: a yes-label is right if "yes" is part of the lower-cased answer, a no-label if "no" is; otherwise wrong.
    lmms_eval: right if the lower-cased, stripped answer equals the label. An answer that is neither bare word is
    wrong but no false negative, and yes_ratio counts the labels: both as in that program.

    Args:
        answers: the texts of the model.
        labels: "yes" or "no", in the same order.
        protocol: official, opera, vcd, lmms_eval or strict; see `parse`.

    >>> figures = score(["Yes", "No, there is none.", "Yes", "NO"], ["yes", "no", "no", "no"])
    >>> {name: round(value, 4) for name, value in figures.items()}  # doctest: +NORMALIZE_WHITESPACE
    {'accuracy': 0.5, 'precision': 0.3333, 'recall': 1.0, 'f1': 0.5, 'yes_ratio': 0.75, 'n': 4, 'unparsed': 0}

    Raises:
        ValueError: as `outcomes`.
    """
    totals = Outcome(*(int(total) for total in np.array(outcomes(answers, labels, protocol)).sum(axis=0)))
    figures = {}
    for name, parts in RATIOS.items():
        top, bottom = parts(totals)
        figures[name] = top / bottom if bottom else 0.0
    return {**figures, "n": totals.questions, "unparsed": totals.unparsed}


def estimates(
    answers: Sequence[str],
    labels: Sequence[str],
    images: Sequence[str | int] | None = None,
    protocol: str = "official",
    samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Estimate]:
    """The figures of `score`, and the share unparsed, with intervals.

    Args:
        answers, labels, protocol: as in `score`.
        images: the image of each question. Given, images are resampled with all their questions, which is right
            where several questions are about one image. None: questions count as independent, Wilson's interval for
            accuracy, yes ratio and unparsed, resampled questions for the others.
        samples, seed, level: as in `metrics.estimate.bootstrap`.

    The n of an estimate is the number of images, or of questions without them. The three splits share their
    positives: intervals of all 9,000 questions pooled would be too narrow.

    Raises:
        ValueError: as `score`, or a number of images other than that of answers.
    """
    columns = _columns(outcomes(answers, labels, protocol), images)
    found = {}
    for name, parts in {**RATIOS, "unparsed": lambda c: (c.unparsed, c.questions)}.items():
        top, bottom = parts(columns)
        if images is None and bottom is columns.questions:
            found[name] = wilson(int(top.sum()), len(answers), level)
        else:
            found[name] = ratio(top, bottom, samples=samples, seed=seed, level=level)
    return found


def mean_of_splits(
    splits: Sequence[tuple[Sequence[str], Sequence[str], Sequence[str | int]]], protocol: str = "official", **options
) -> dict[str, Estimate]:
    """The unweighted mean of each figure over splits, as tables over random, popular and adversarial report it.

    Of accuracy it is the pooled figure where splits are of one size; of precision and F1 it is not. Images are drawn
    with their questions of all splits, which share them.

    Args:
        splits: (answers, labels, images) of each, as in `estimates`.
        protocol: as in `score`.
        options: samples, seed and level of `metrics.estimate.bootstrap`.

    >>> one, two = (["Yes", "No"], ["yes", "no"], [1, 2]), (["Yes", "Yes"], ["yes", "no"], [1, 2])
    >>> round(mean_of_splits([one, two])["f1"].value, 4)
    0.8333

    Raises:
        ValueError: as `estimates`, or no split.
    """
    if not splits:
        raise ValueError("no splits to average.")
    images = list(dict.fromkeys(image for _, _, split in splits for image in split))
    counts = np.zeros((len(images), len(splits), len(Outcome._fields)))
    place = {image: number for number, image in enumerate(images)}
    for number, (answers, labels, image_of) in enumerate(splits):
        if len(image_of) != len(answers):
            raise ValueError(f"{len(answers)} answers and {len(image_of)} images: name the image of each question.")
        np.add.at(counts[:, number], [place[image] for image in image_of], outcomes(answers, labels, protocol))
    found = {}
    for name, parts in RATIOS.items():
        top, bottom = parts(Outcome(*np.moveaxis(counts, -1, 0)))
        if bottom.sum(axis=0).all():
            rows = np.concatenate([top, bottom], axis=1)
            mean = lambda sums: (sums[..., : len(splits)] / sums[..., len(splits) :]).mean(-1)
            found[name] = bootstrap(rows, mean, **options)
            if found[name].value in (0.0, 1.0):  # all resamples are equal, which is no certainty
                found[name] = wilson(found[name].value * len(images), len(images), options.get("level", 0.95))
        else:  # a split without a single such answer has the figure 0, as in `score`
            each = [score(answers, labels, protocol)[name] for answers, labels, _ in splits]
            found[name] = Estimate(sum(each) / len(each), 0.0, 1.0, 0)
    return found


def difference(
    answers_a: Sequence[str],
    answers_b: Sequence[str],
    labels: Sequence[str],
    images: Sequence[str | int] | None = None,
    protocol: str = "official",
    samples: int = SWAPS,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Difference]:
    """First system minus second on the same questions; images are swapped with all their questions.

    Arguments as in `estimates`; samples, seed and level as in `metrics.paired.paired_differences`.

    Raises:
        ValueError: as `estimates`.
    """
    a = _columns(outcomes(answers_a, labels, protocol), images)
    b = _columns(outcomes(answers_b, labels, protocol), images)
    figures = {name: (*parts(a), *parts(b)) for name, parts in RATIOS.items()}
    return paired_differences(figures, (), samples, seed, level)


def read_questions(path: str | Path) -> list[dict[str, Any]]:
    """The questions of a POPE file: JSON lines (COCO) or one JSON array (A-OKVQA and GQA), found out by itself.

    Each has at least question_id, image, text and label ("yes" or "no", in any case); empty lines are skipped. The
    names of lmms-eval's copy (image_source, question, answer) are read as these.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no question, a malformed line, a missing field, another label, or an id used twice; with the line
            number, or in an array the place in it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no POPE question file at {path}.")
    questions: list[dict[str, Any]] = []
    seen: dict[Any, str] = {}
    for where, question in _records(path.read_text(encoding="utf-8-sig"), path):
        if isinstance(question, dict):
            question = {**{name: question[also] for name, also in ALSO.items() if also in question}, **question}
        missing = [name for name in NEEDED if not isinstance(question, dict) or name not in question]
        if missing:
            raise ValueError(f"{path}: {where} has no {', '.join(missing)}; a question needs {', '.join(NEEDED)}.")
        if isinstance(question["label"], str) and question["label"].strip().lower() in ("yes", "no"):
            question["label"] = question["label"].strip().lower()
        else:
            raise ValueError(f"{path}: {where} has label {question['label']!r}; possible: 'yes' and 'no'.")
        number = question["question_id"]
        if number in seen:
            raise ValueError(f"{path}: {where} repeats question_id {number!r} of {seen[number]}; ids must differ.")
        seen[number] = where
        questions.append(question)
    if not questions:
        raise ValueError(f"{path} holds no questions.")
    return questions


# Each figure is one sum over another; counts may be numbers or columns.
RATIOS: dict[str, Callable[[Any], tuple[Any, Any]]] = {
    "accuracy": lambda c: (c.correct, c.questions),
    "precision": lambda c: (c.true_positive, c.true_positive + c.false_positive),
    "recall": lambda c: (c.true_positive, c.true_positive + c.false_negative),
    "f1": lambda c: (2 * c.true_positive, 2 * c.true_positive + c.false_positive + c.false_negative),
    "yes_ratio": lambda c: (c.yes, c.questions),
}


def _outcome(answer: str, label: str, protocol: str) -> Outcome:
    found: str = parse(answer, protocol)
    if protocol == "vcd":  # right where the label's word is anywhere in the answer, else wrong
        found = label if label in answer.lower() else {"yes": "no", "no": "yes"}[label]
    elif protocol == "lmms_eval" and answer.lower().strip() not in ("yes", "no"):
        found = "unparsed"
    missed = label == "yes" and (found == "no" or (found == "unparsed" and protocol == "strict"))
    return Outcome(
        questions=1,
        correct=int(found == label),
        true_positive=int(found == label == "yes"),
        false_positive=int(found == "yes" and label == "no"),
        false_negative=int(missed),
        yes=int((label if protocol == "lmms_eval" else found) == "yes"),
        unparsed=int(strict(answer) == "unparsed"),
    )


def _label(label: str, number: int) -> str:
    word = label.strip().lower() if isinstance(label, str) else label
    if word not in ("yes", "no"):
        raise ValueError(f"label {number} is {label!r}; possible: 'yes' and 'no'.")
    return word


def _columns(rows: Sequence[Outcome], images: Sequence[str | int] | None) -> Outcome:
    """Counts per image, or per question without images, as one column each."""
    table: NDArray = np.array(rows)
    if images is not None:
        if len(images) != len(rows):
            raise ValueError(f"{len(rows)} answers and {len(images)} images: name the image of each question.")
        numbers = {image: number for number, image in enumerate(dict.fromkeys(images))}
        summed = np.zeros((len(numbers), table.shape[1]), dtype=table.dtype)
        np.add.at(summed, [numbers[image] for image in images], table)
        table = summed
    return Outcome(*table.T)


def _records(text: str, path: Path) -> Iterator[tuple[str, Any]]:
    """(where, record) of JSON lines or of a JSON array."""
    if text.lstrip().startswith("["):
        try:
            records = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: line {error.lineno} is not JSON ({error.msg}).") from error
        yield from ((f"question {number} of the array", record) for number, record in enumerate(records, start=1))
        return
    try:
        found = documents(text)
    except json.JSONDecodeError as error:
        lines = text.split("\n")
        torn = next((number for number, line in enumerate(lines, start=1) if not is_json(line)), error.lineno)
        raise ValueError(f"{path}: line {torn} is not JSON ({error.msg}): {lines[torn - 1][:60]!r}") from error
    yield from ((f"line {number}", record) for number, record in by_line(text, found))
