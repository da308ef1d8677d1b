"""Answers of any program beside the closed questions that they answer."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...datasets.closed.base import ClosedQuestion, same_text
from ...metrics.answer_rows import AnswerRow, read_answer_rows

KeyOf = Callable[[AnswerRow], Hashable | None]


@dataclass(frozen=True)
class Matched:
    """Questions and their answers, one to one, with what was left out."""

    questions: list[ClosedQuestion]
    answers: list[str]
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def match(
    path: Path, questions: Sequence[ClosedQuestion], key_of: KeyOf, key: Callable[[ClosedQuestion], Hashable],
    skip_bad: bool = False, by_order: bool = False, field: str | None = None, others: str = "",
) -> Matched:  # fmt: skip
    """The answers of a file, matched with questions by id, by what a program keeps of a question, or by order.

    Args:
        key_of: what a row says of its question; None where it says nothing.
        key: the same of a question.
        skip_bad: leave out what cannot be used, and say so.
        by_order: the n-th answer is to the n-th question. A row whose own prompt is another question is refused.
        field: where the rows have the answer, if it is not found by itself.
        others: what answers to no question of this benchmark are, where a file may hold them.

    Raises:
        FileNotFoundError, ValueError: as `read_answer_rows`; answers to no question, two to one, or none to some.
    """
    rows, skipped = read_answer_rows(path, by_order or not skip_bad, field)
    if by_order:
        return Matched(list(questions), _in_order(path, questions, rows), skipped)
    by_id = {question.id: question for question in questions}
    by_key = {key(question): question for question in questions}
    found: dict[str, AnswerRow] = {}
    strange: list[AnswerRow] = []
    for row in rows:
        question = by_id.get(str(row.id)) or by_key.get(key_of(row))
        if question is None:
            strange.append(row)
        elif question.id in found:
            again = f"{path}: {row.where} answers {question.id} again, after {found[question.id].where}"
            if not skip_bad:
                raise ValueError(f"{again}; each may come once.")
            skipped.append(again)
        else:
            found[question.id] = row
    if not found:
        raise ValueError(
            f"{path}: none of {len(rows)} answers goes with one of the {len(questions)} questions, such as "
            f"{questions[0].id!r}; the first answer has id {rows[0].id!r}. Answers in the questions' order can be "
            "matched by order (--by-order)."
        )
    notes = []
    if strange and others:
        notes.append(f"{len(strange)} answers to {others} are not scored")
    elif strange and not skip_bad:
        raise ValueError(f"{path}: {strange[0].where} answers {strange[0].id!r}, which no question has.")
    else:
        skipped += [f"{path}: {row.where} answers {row.id!r}, which no question has" for row in strange]
    missing = [question.id for question in questions if question.id not in found]
    if missing and not skip_bad:
        raise ValueError(
            f"{path} lacks answers to {len(missing)} of {len(questions)} questions, such as {missing[0]!r}; --skip-bad "
            "leaves them out."
        )
    skipped += [f"{path}: no answer to {name!r}" for name in missing]
    kept = [question for question in questions if question.id in found]
    return Matched(kept, [found[question.id].text for question in kept], skipped, notes)


def prompt_of(row: AnswerRow) -> str | None:
    """The question that a row says it answers, as `same_text`."""
    text = next((row.row[name] for name in ("prompt", "question") if isinstance(row.row.get(name), str)), None)
    return None if text is None else same_text(text)


def _in_order(path: Path, questions: Sequence[ClosedQuestion], rows: Sequence[AnswerRow]) -> list[str]:
    if len(rows) != len(questions):
        raise ValueError(f"{path} has {len(rows)} answers to {len(questions)} questions; --by-order needs as many.")
    for row, question in zip(rows, questions, strict=True):
        prompt = prompt_of(row)
        if prompt is not None and prompt != same_text(question.text):
            raise ValueError(
                f"{path}: {row.where} answers {prompt!r:.80}, not {question.text!r:.80}: is it another order?"
            )
    return [row.text for row in rows]
