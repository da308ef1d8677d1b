"""HallusionBench: yes/no questions about figures and their edited versions; the part that a rule can score.

Guan et al., "HallusionBench: An Advanced Diagnostic Suite for Entangled Language Hallucination and Visual Illusion in
Large Vision-Language Models", 2023, arXiv 2310.14566.

The official program has GPT-4 grade each answer; with that step replaced by a rule all that is here needs no judge. A
model that always says no has a higher aAcc than LLaVA-1.5: constant answers belong beside every result.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import by_image as sums
from . import closed_questions as closed
from .closed_questions import shares
from .counted import Counted
from .estimate import Estimate
from .yes_no import vlmevalkit, words, yes_else_no

HIGHER_IS_BETTER = {
    "aAcc": True, "fAcc": True, "qAcc": True, "easy": True, "hard": True, "mean": True, "figures_mixed": False,
    "figures_wrong": False, "unclear": False,
}  # fmt: skip
READERS = {"strict": words, "vlmevalkit": vlmevalkit, "lmms_eval": yes_else_no}


@dataclass(frozen=True)
class Question:
    """One question, as the published file has it.

    Args:
        label: yes or no.
        category: VD, which needs the image, or VS, which has it in addition to what is known.
        subcategory: such as chart; "ocr" occurs in both categories, so that the category is part of every key.
        visual_input: 0 none, 1 original, 2 edited.
        set_id, figure_id, question_id: their places.
    """

    label: str
    category: str
    subcategory: str
    visual_input: int
    set_id: str
    figure_id: str
    question_id: str

    @property
    def set(self) -> tuple[str, ...]:
        """What is resampled: all figures and questions of a set."""
        return self.category, self.subcategory, self.set_id

    @property
    def without_image(self) -> bool:
        """Asked without a figure, where "I cannot tell" is right."""
        return self.category == "VS" and self.figure_id == "0"

    @property
    def figure(self) -> tuple[str, ...] | None:
        return None if self.without_image else (*self.set, self.figure_id)

    @property
    def pair(self) -> tuple[str, ...]:
        """The same question about all figures of its set."""
        return *self.set, self.question_id


class Counts(NamedTuple):
    """What one question adds; those of groups stand on the group's first question."""

    questions: int
    correct: int
    label_yes: int
    taken_yes: int  # an unclear answer counts as the opposite of the label
    wrong_no: int
    wrong: int
    yes: int
    unclear: int
    right_figures: int
    wrong_figures: int
    figures: int
    right_pairs: int
    pairs: int
    right_easy: int
    easy: int
    right_hard: int
    hard: int


def grade(answer: str, question: Question, protocol: str = "strict") -> int:
    """0 wrong, 1 right, 2 unclear; 2 is right where the question stands without its figure.

    strict: yes or no as a whole word and not both, else unclear. vlmevalkit: that program's words, else unclear;
    it has no exception for questions without a figure. lmms_eval: "yes" anywhere, else no; never unclear.
    """
    text = closed.reader(READERS, protocol, "HallusionBench")(answer)
    return 2 if not text else int(text == question.label)


def outcomes(answers: Sequence[str], questions: Sequence[Question], protocol: str = "strict") -> list[Counts]:
    """Each answer against its question.

    Raises:
        ValueError: no answers, another number of questions, or an unknown protocol.
        TypeError: an answer that is no string.
    """
    read = closed.reader(READERS, protocol, "HallusionBench")
    closed.check(answers, questions)
    grades = [grade(answer, question, protocol) for answer, question in zip(answers, questions, strict=True)]
    lenient = protocol == "strict"
    right = [int(g == 1 or (g == 2 and lenient and q.without_image)) for g, q in zip(grades, questions, strict=True)]
    figures = [q.figure for q in questions]
    if protocol == "lmms_eval":  # a figure of that program is every figure, the missing one too
        figures = [(*q.set, q.figure_id) for q in questions]
    by_figure = closed.groups_right(right, figures)
    none_right = closed.groups_right([1 - one for one in right], figures)
    parts = [
        closed.groups_right(right, [q.pair if kept(q) else None for q in questions])
        for kept in (lambda q: True, lambda q: q.visual_input != 2, lambda q: q.visual_input == 2)
    ]
    found = []
    for place, (answer, question) in enumerate(zip(answers, questions, strict=True)):
        label, correct = int(question.label == "yes"), right[place]
        found.append(Counts(
            1, correct, label, int(correct == label), int(not correct and not label), int(not correct),
            int(read(answer) == "yes"), int(grades[place] == 2), int(by_figure[place, 0]), int(none_right[place, 0]),
            int(by_figure[place, 1]), *(int(count) for part in parts for count in part[place]),
        ))  # fmt: skip
    return found


def score(answers: Sequence[str], questions: Sequence[Question], protocol: str = "strict") -> dict[str, float]:
    """The figures of `estimates` without intervals; an empty denominator gives 0.

    Raises:
        ValueError, TypeError: as `outcomes`.
    """
    totals = np.array(outcomes(answers, questions, protocol)).sum(axis=0)
    figures = sums.values(Counts(*totals), RATIOS)
    return {**figures, **{name: float(np.nan_to_num(of(totals))) for name, of in COMPOSED.items()}}


def estimates(
    answers: Sequence[str], questions: Sequence[Question], protocol: str = "strict", **options: Any
) -> dict[str, Estimate]:
    """Every figure with its interval; whole sets are resampled, since figures and pairs overlap, and sets are n.

    aAcc = right questions / questions,   fAcc = figures with all questions right / figures; questions without an image
    belong to no figure,   qAcc = pairs with all right / pairs; a pair is one question about all figures of its set
    easy, hard: pairs again, over the questions whose figure is not edited, and over those whose figure is
    figures_right, figures_wrong, figures_mixed: shares of figures, the consistency test
    pct_diff = mean of [correct = label] − mean of label: above 0 leans to yes, below 0 to no
    fp_ratio = share of "no" labels among the wrong answers: 1 errs to yes alone, 0 to no alone
    mean: of aAcc, fAcc and qAcc, as VLMEvalKit's table has it

    Raises:
        ValueError, TypeError: as `outcomes`.
    """
    rows = outcomes(answers, questions, protocol)
    table = sums.by_image(rows, ["/".join(question.set) for question in questions])
    found = sums.estimates(Counts(*table.T), RATIOS, **options)
    found |= {
        name: closed.composed(table, statistic, bounded=name != "pct_diff", **options)
        for name, statistic in COMPOSED.items()
    }
    return found


def counted(answers: Sequence[str], questions: Sequence[Question], protocol: str = "strict") -> Counted:
    """The counts of each set, for a paired comparison of two systems.

    Raises:
        ValueError, TypeError: as `outcomes`.
    """
    sets = ["/".join(question.set) for question in questions]
    table = sums.by_image(outcomes(answers, questions, protocol), sets)
    ends = {"pct_diff": (-2.0, 2.0)}
    return Counted(tuple(dict.fromkeys(sets)), table, RATIOS, COMPOSED, lambda one: Counts(*one.T), ends)


def of_row(row: Mapping[str, Any]) -> Question:
    """A row of HallusionBench.json as a question.

    Raises:
        KeyError: a field is missing.
    """
    return Question(
        "yes" if str(row["gt_answer"]) == "1" else "no", row["category"], row["subcategory"], int(row["visual_input"]),
        str(row["set_id"]), str(row["figure_id"]), str(row["question_id"]),
    )  # fmt: skip


def _pct_diff(counts: NDArray) -> NDArray:
    c = Counts(*np.moveaxis(counts, -1, 0))
    return shares(c.taken_yes - c.label_yes, c.questions)


def _mean(counts: NDArray) -> NDArray:
    c = Counts(*np.moveaxis(counts, -1, 0))
    return sum(shares(*RATIOS[name](c)) for name in ("aAcc", "fAcc", "qAcc")) / 3  # type: ignore[return-value]


RATIOS: dict[str, Any] = {
    "aAcc": lambda c: (c.correct, c.questions),
    "fAcc": lambda c: (c.right_figures, c.figures),
    "qAcc": lambda c: (c.right_pairs, c.pairs),
    "easy": lambda c: (c.right_easy, c.easy),
    "hard": lambda c: (c.right_hard, c.hard),
    "figures_right": lambda c: (c.right_figures, c.figures),
    "figures_wrong": lambda c: (c.wrong_figures, c.figures),
    "figures_mixed": lambda c: (c.figures - c.right_figures - c.wrong_figures, c.figures),
    "fp_ratio": lambda c: (c.wrong_no, c.wrong),
    "yes_ratio": lambda c: (c.yes, c.questions),
    "unclear": lambda c: (c.unclear, c.questions),
}
COMPOSED = {"pct_diff": _pct_diff, "mean": _mean}
