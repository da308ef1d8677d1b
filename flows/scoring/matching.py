"""Answers of any program beside the questions that they answer."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...datasets.closed.base import ClosedQuestion, same_text
from ...metrics.answer_rows import AnswerRow, read_answer_rows
from ...metrics.captions_file import Predictions, as_number, image_id, in_order

POPE_QUESTIONS = 3000  # of each split on COCO
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


def without_removed(
    rows: Sequence[Mapping[str, Any]], read: Predictions, notes: list[str], path: Path
) -> Predictions:
    """Answers to POPE without those to the questions that RePOPE removed, whose ids its file leaves out."""
    numbers = {as_number(q["question_id"]) for q in rows}
    if read.numbered:
        return read
    removed = {number for number in read.by_id if number not in numbers and number in range(1, POPE_QUESTIONS + 1)}
    if removed:
        notes.append(f"{path}: {len(removed)} answers are to questions that RePOPE removed, and are not scored")
    return replace(read, by_id={number: text for number, text in read.by_id.items() if number not in removed})


def joined(
    rows: list[dict[str, Any]], read: Predictions, skip_bad: bool, skipped: list[str], path: Path
) -> tuple[list[dict[str, Any]], list[str]]:
    """Questions and answers one to one; with skip_bad those that have both."""
    if skip_bad and not read.numbered:
        numbers = {as_number(q["question_id"]) for q in rows}
        stray = [number for number in read.by_id if number not in numbers]
        skipped += [f"{path}: {read.places[number]} answers {number!r}, which no question has" for number in stray]
        kept = [q for q in rows if as_number(q["question_id"]) in read.by_id]
        lacking = [q["question_id"] for q in rows if as_number(q["question_id"]) not in read.by_id]
        skipped += [f"{path}: no answer to question {number!r}" for number in lacking]
        if not kept:
            raise ValueError(f"{path} answers none of the {len(rows)} questions: is it another question file?")
        return kept, [read.by_id[as_number(q["question_id"])] for q in kept]
    return rows, in_order(rows, read)


def check_order(path: Path, questions: Sequence[Mapping[str, Any]], field: str | None = None) -> None:
    """That answers in the order of the questions are answers to them, as far as they say what they answer.

    A prompt that words every question in its own way says nothing; one that holds another of the questions, or another
    question in a file whose other prompts hold theirs, says that the order is another.

    Raises:
        ValueError: an answer to another question, or about another image.
    """
    rows, _ = read_answer_rows(path, True, field)
    texts = [same_text(str(question["text"])) for question in questions]
    prompts = [prompt_of(row) for row in rows]
    worded_alike = any(prompt and text in prompt for prompt, text in zip(prompts, texts, strict=True))
    known = set(texts)
    for row, question, prompt, text in zip(rows, questions, prompts, texts, strict=True):
        other = prompt is not None and text not in prompt and (worded_alike or any(one in prompt for one in known))
        images = [image_id(part["image"]) for part in (row.row, question) if isinstance(part.get("image"), int | str)]
        about = len(images) == 2 and all(isinstance(one, int) for one in images) and images[0] != images[1]
        if other or about:
            what = f"the prompt {prompt!r:.80}" if other else f"image {row.row['image']!r}"
            raise ValueError(
                f"{path}: by order, {row.where} answers {question['text']!r} about {question['image']}, but it has "
                f"{what}: the answers are in another order, or to another file of questions. Answers that have ids are "
                "matched by those, without --by-order."
            )


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
