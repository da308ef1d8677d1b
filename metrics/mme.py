"""MME's hallucination part: existence, count, position and colour; two questions about each image, yes and no.

Fu et al., "MME: A Comprehensive Evaluation Benchmark for Multimodal Large Language Models", 2023, arXiv 2306.13394.

30 images a task: one image is worth 1.7 + 3.3 points, and ± 20 points of a task are noise. A constant answer scores 50
of 200 a task.
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
from .yes_no import first_four, first_four_stripped, vlmevalkit

TASKS = ("existence", "count", "position", "color")
LEVELS = {"object_level": ("existence", "count"), "attribute_level": ("position", "color"), "total": TASKS}
HIGHER_IS_BETTER = {"score": True, "accuracy": True, "accuracy_plus": True, "unparsed": False}
READERS = {"official": first_four, "lmms_eval": first_four_stripped, "vlmevalkit": vlmevalkit}


class Question(NamedTuple):
    """One question of a task with its answer; image names the pair."""

    image: str
    label: str
    answer: str


class Counts(NamedTuple):
    """What one question adds; the last two stand on the first question of each image."""

    questions: int
    correct: int
    yes: int
    unparsed: int
    right_pairs: int
    pairs: int


def outcomes(questions: Sequence[Question], protocol: str = "official") -> list[Counts]:
    """Each answer of one task against its label; an answer that is neither yes nor no is wrong.

    Raises:
        ValueError: no questions, a label other than yes or no, an image without its two questions, or a protocol that
            does not exist.
        TypeError: an answer that is no string.
    """
    read = closed.reader(READERS, protocol, "MME")
    closed.check([one.answer for one in questions])
    by_image: dict[str, list[str]] = {}
    for one in questions:
        by_image.setdefault(one.image, []).append(one.label)
    for image, labels in by_image.items():
        if sorted(labels) != ["no", "yes"]:
            raise ValueError(f"image {image!r} has questions with labels {labels}; needed: one yes and one no.")
    texts = [read(one.answer) for one in questions]
    right = [int(text == one.label) for text, one in zip(texts, questions, strict=True)]
    pairs = closed.groups_right(right, [one.image for one in questions])
    return [
        Counts(1, correct, int(text == "yes"), int(not text), *map(int, pair))
        for correct, text, pair in zip(right, texts, pairs, strict=True)
    ]


def score(tasks: Mapping[str, Sequence[Question]], protocol: str = "official") -> dict[str, dict[str, float]]:
    """Figures per task, and the sums that tables print: object_level, attribute_level and total, where all are there.

    accuracy = right / questions,   accuracy_plus = images with both right / images,
    score = 100·accuracy + 100·accuracy_plus, at most 200 a task and 800 in total

    >>> two = [Question("a", "yes", "Yes"), Question("a", "no", "No"), Question("b", "yes", "Yes"),
    ...        Question("b", "no", "yes")]
    >>> score({"count": two})["count"]["score"]
    125.0

    Raises:
        ValueError, TypeError: as `outcomes`, or a task that does not exist.
    """
    return {name: {k: e.value for k, e in table.items()} for name, table in estimates(tasks, protocol, 1).items()}


def estimates(
    tasks: Mapping[str, Sequence[Question]], protocol: str = "official", samples: int = 1000, **options
) -> dict[str, dict[str, Estimate]]:
    """The figures of `score` with intervals; an image is drawn with its questions of all tasks, and images are n.

    Raises:
        ValueError, TypeError: as `score`.
    """
    options["samples"] = samples
    return {
        title: {
            "score": closed.composed(one.table, one.composed["score"], 200.0 * len(LEVELS.get(title, "1")), **options),
            **sums.estimates(one.columns(one.table), RATIOS, **options),
        }
        for title, one in counted(tasks, protocol).items()
    }


def counted(tasks: Mapping[str, Sequence[Question]], protocol: str = "official") -> dict[str, Counted]:
    """The counts of each image in each task and level, for a paired comparison of two systems.

    Raises:
        ValueError, TypeError: as `score`.
    """
    unknown = [name for name in tasks if name not in TASKS]
    if unknown or not tasks:
        raise ValueError(f"MME's hallucination part has no task {', '.join(unknown) or '(none)'}: {', '.join(TASKS)}.")
    rows = {name: outcomes(tasks[name], protocol) for name in TASKS if name in tasks}
    parts = {**{name: (name,) for name in rows}, **{n: of for n, of in LEVELS.items() if set(of) <= rows.keys()}}
    found = {}
    for title, names in parts.items():
        images = {q.image: None for name in names for q in tasks[name]}
        place = {image: at for at, image in enumerate(images)}
        counts = np.zeros((len(images), len(names), len(Counts._fields)), dtype=int)
        for number, name in enumerate(names):
            np.add.at(counts[:, number], [place[one.image] for one in tasks[name]], rows[name])
        shape = counts.shape[1:]
        points = lambda total, shape=shape: _points(total.reshape(*total.shape[:-1], *shape)).sum(axis=-1)
        columns = lambda table, shape=shape: Counts(*table.reshape(len(table), *shape).sum(axis=1).T)
        most = 200.0 * len(names)
        flat = counts.reshape(len(images), -1)
        found[title] = Counted(tuple(images), flat, RATIOS, {"score": points}, columns, {"score": (-most, most)})
    return found


def _points(counts: NDArray) -> NDArray:
    c = Counts(*np.moveaxis(counts, -1, 0))
    return 100 * shares(c.correct, c.questions) + 100 * shares(c.right_pairs, c.pairs)


RATIOS: dict[str, Any] = {
    "accuracy": lambda c: (c.correct, c.questions),
    "accuracy_plus": lambda c: (c.right_pairs, c.pairs),
    "yes_ratio": lambda c: (c.yes, c.questions),
    "unparsed": lambda c: (c.unparsed, c.questions),
}
