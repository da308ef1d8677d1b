"""POPE's answers under RePOPE's labels, from files of answers. Loads neither torch nor Prefect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...datasets.closed import repope as repope_files
from ...datasets.closed.base import same_text
from ...datasets.pope import STRATEGIES
from ...metrics import pope, repope
from ...metrics.answer_rows import AnswerRow, read_answer_rows
from ...metrics.captions_file import image_id
from .files import Scored, Table, digests
from .matching import prompt_of

BLOCK = 10_000_000  # LLaVA's ids of one file for all splits: the split's number times this, plus POPE's id


@dataclass(frozen=True)
class Split:
    """A split's questions, all of POPE's, and what RePOPE says of them.

    Args:
        questions: POPE's rows. labels: question id -> corrected label, of those that are left. paths: both files.
    """

    name: str
    questions: list[dict[str, Any]]
    labels: Mapping[Any, str]
    paths: tuple[Path, Path]


def read_split(data: Path, name: str) -> Split:
    """A split from the folder that `veridical data repope` wrote.

    Raises:
        FileNotFoundError, ValueError: a file that is missing, or RePOPE's of another split.
    """
    if name not in STRATEGIES:
        raise ValueError(f"no split {name!r} of POPE. Known: {', '.join(STRATEGIES)}.")
    paths = repope_files.files(data, name)
    questions, rows = (pope.read_questions(path) for path in paths)
    return Split(name, questions, repope.corrected(questions, rows, str(paths[1])), paths)


def score_repope(
    paths: Sequence[Path], data: Path, splits: Sequence[str] = (), protocol: str = "official", skip_bad: bool = False,
    by_order: bool = False, field: str | None = None,
) -> Scored:  # fmt: skip
    """Answers to POPE under both labels: RePOPE's, without the removed questions, and POPE's.

    Args:
        paths: a file of answers for each split, in the order of splits, or one file for all of them.
        data: the folder with POPE's and RePOPE's files.
        splits: random, popular, adversarial; without them, those whose questions the file answers.
        protocol: reads the answers, under both labels.
        skip_bad: leave out what cannot be used, and say so.
        by_order: the n-th answer is to the n-th question of the splits, one after the other.
        field: where the rows have the answer, if it is not found by itself.

    Raises:
        FileNotFoundError, ValueError: a file that is missing; another number of files than of splits; answers to other
            questions, or to none; as `read_split`.
    """
    known = [read_split(data, name) for name in splits or STRATEGIES]
    skipped: list[str] = []
    pairs: list[tuple[Split, dict[Any, str]]] = []
    if len(paths) == len(known) and (splits or len(paths) > 1):
        for path, split in zip(paths, known, strict=True):
            rows, left_out = read_answer_rows(path, by_order or not skip_bad, field)
            skipped += left_out
            pairs.append((split, _by_order(path, [split], rows)[0] if by_order else _by_id(path, split, rows)))
    elif len(paths) == 1:
        rows, left_out = read_answer_rows(paths[0], by_order or not skip_bad, field)
        skipped += left_out
        if by_order:
            pairs = list(zip(known, _by_order(paths[0], known, rows), strict=True))
        else:
            pairs = _found(paths[0], known, rows)
    else:
        raise ValueError(f"{len(paths)} files of answers to {len(known)} splits; needed: one a split, or one for all.")
    scored = [_of_split(split, answers, skip_bad, skipped) for split, answers in pairs]
    tables: dict[str, Table] = {}
    for name, rows_of in scored:
        left = [row for row in rows_of if row["label"] is not None]
        tables[name] = repope.estimates(*_columns(left, "label"), protocol)
        tables[f"{name}, POPE's labels"] = repope.estimates(*_columns(rows_of, "POPE's label"), protocol)
    if len(scored) > 1:
        parts = [[row for row in rows_of if row["label"] is not None] for _, rows_of in scored]
        tables["mean"] = repope.mean_of_splits([_columns(part, "label") for part in parts], protocol)
        whole = [_columns(rows_of, "POPE's label") for _, rows_of in scored]
        tables["mean, POPE's labels"] = repope.mean_of_splits(whole, protocol)
    rows_out = [
        {"split": split, **row, "read": repope.READERS[protocol](row["answer"])}
        for split, rows_of in scored for row in rows_of
    ]  # fmt: skip
    removed = sum(row["label"] is None for row in rows_out)
    about = {
        "name": protocol, "answers": len(rows_out), "questions": len(rows_out) - removed, "removed questions": removed,
        "labels changed": sum(row["label"] not in (None, row["POPE's label"]) for row in rows_out),
        "constant answers": {
            f"always yes, {split}": {
                name: round(value, 6) for name, value in repope.score(["yes"] * len(labels), labels).items()
                if name in ("accuracy", "f1", "balanced_accuracy")
            } for split, labels in ((s, [r["label"] for r in rs if r["label"] is not None]) for s, rs in scored)
        },
    }  # fmt: skip
    notes = ["both labels are read by the same reader; `score pope` reads as POPE's own program does"]
    used = [path for split, _ in pairs for path in split.paths]
    return Scored(
        "repope", about, digests([*paths, *used]), tables, repope.HIGHER_IS_BETTER, rows_out, skipped, notes
    )


def _columns(rows: Sequence[Mapping[str, Any]], label: str) -> tuple[list[str], list[str], list[str]]:
    return [row["answer"] for row in rows], [row[label] for row in rows], [row["image"] for row in rows]


def _of_split(
    split: Split, answers: Mapping[Any, str], skip_bad: bool, skipped: list[str]
) -> tuple[str, list[dict[str, Any]]]:
    """A row for each answered question; its label is None where RePOPE removed it."""
    missing = [q["question_id"] for q in split.questions if q["question_id"] not in answers]
    needed = [number for number in missing if number in split.labels]
    if needed and not skip_bad:
        raise ValueError(
            f"{split.name}: {len(needed)} of RePOPE's {len(split.labels)} questions have no answer, such as "
            f"{needed[0]!r}; --skip-bad leaves them out."
        )
    skipped += [f"{split.name}: no answer to question {number!r}" for number in needed]
    return split.name, [
        {
            "question_id": q["question_id"], "image": q["image"], "text": q["text"],
            "answer": answers[q["question_id"]], "label": split.labels.get(q["question_id"]),
            "POPE's label": q["label"],
        }
        for q in split.questions if q["question_id"] in answers
    ]  # fmt: skip


def _by_id(path: Path, split: Split, rows: Sequence[AnswerRow]) -> dict[Any, str]:
    """Question id -> answer; a row that names another image or text than its question's is refused."""
    found, problem = _try(split, rows)
    if problem:
        raise ValueError(f"{path}: {problem}")
    return found


def _found(path: Path, known: Sequence[Split], rows: Sequence[AnswerRow]) -> list[tuple[Split, dict[Any, str]]]:
    """The splits that a file answers, found out by what its rows say of their questions."""
    blocks: dict[int, list[AnswerRow]] = {}
    for row in rows:
        blocks.setdefault(row.id // BLOCK if isinstance(row.id, int) else 0, []).append(row)
    named = all(prompt_of(row) is not None or ": " in str(row.id) for row in rows)
    if not named and len(known) > 1:
        raise ValueError(f"{path}: the rows do not hold their questions; say which split they answer (--split).")
    pairs: list[tuple[Split, dict[Any, str]]] = []
    problems: list[str] = []
    for block in blocks.values():
        for split in known:
            answers, problem = _try(split, block)
            if problem:
                problems.append(problem)
            else:
                pairs.append((split, answers))
    pairs = sorted({split.name: (split, answers) for split, answers in pairs}.values(), key=lambda p: known.index(p[0]))
    if not pairs:
        raise ValueError(f"{path} answers the questions of no split of POPE's: {problems[0]}")
    return pairs


def _try(split: Split, rows: Sequence[AnswerRow]) -> tuple[dict[Any, str], str]:
    """Question id -> answer, and why these rows are none of this split's; "" where they are."""
    by_number = {q["question_id"]: q for q in split.questions}
    by_name = {f"{q['image']}: {q['text']}": q for q in split.questions}
    found: dict[Any, str] = {}
    for row in rows:
        named = isinstance(row.id, str) and ": " in row.id
        number = row.id % BLOCK if isinstance(row.id, int) else int(str(row.id)) if str(row.id).isdecimal() else row.id
        question = by_name.get(str(row.id)) if named else by_number.get(number)
        if question is None:
            if named:
                continue  # a question of another split
            return {}, f"{row.where} answers {row.id!r}, which is no question of {split.name}."
        prompt, image = prompt_of(row), next((row.row[n] for n in ("image", "image_id") if row.row.get(n)), None)
        there = f"question {number!r} of {split.name}"
        if prompt is not None and prompt != same_text(question["text"]):
            return {}, f"{row.where} answers {prompt!r:.80}; {there} is {question['text']!r}."
        if image is not None and image_id(image) != image_id(question["image"]):
            return {}, f"{row.where} is about {image!r}; {there} is about {question['image']!r}."
        if question["question_id"] in found:
            return {}, f"{row.where} answers question {question['question_id']!r} of {split.name} again."
        found[question["question_id"]] = row.text
    return found, "" if found else f"no row answers a question of {split.name}."


def _by_order(path: Path, splits: Sequence[Split], rows: Sequence[AnswerRow]) -> list[dict[Any, str]]:
    questions = [(place, q) for place, split in enumerate(splits) for q in split.questions]
    if len(rows) != len(questions):
        raise ValueError(
            f"{path} has {len(rows)} answers to {len(questions)} questions of {', '.join(s.name for s in splits)}."
        )
    found: list[dict[Any, str]] = [{} for _ in splits]
    for row, (place, question) in zip(rows, questions, strict=True):
        prompt = prompt_of(row)
        if prompt is not None and prompt != same_text(question["text"]):
            raise ValueError(
                f"{path}: {row.where} answers {prompt!r:.80}, not {question['text']!r}: is it another order?"
            )
        found[place][question["question_id"]] = row.text
    return found
