"""Files of answers that any program wrote, scored, and what all such scores have. Loads neither torch nor Prefect."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...metrics import pope
from ...metrics.captions_file import image_id, in_order, read_answers
from ...metrics.estimate import Estimate
from .matching import check_order, joined, without_removed

Table = Mapping[str, Estimate]


@dataclass(frozen=True)
class Scored:
    """What a file scores, and all that this depends on.

    Args:
        benchmark: chair, pope, amber, …
        protocol: how the texts were read.
        files: file name -> SHA-256 of all that was read.
        tables: title -> figure -> estimate.
        higher_is_better: figure -> direction; figures without one are left out.
        rows: one per caption or answer.
        skipped: what was left out, and why; empty when read strictly.
        notes: what to know before quoting the figures.
    """

    benchmark: str
    protocol: dict[str, Any]
    files: dict[str, str]
    tables: dict[str, Table]
    higher_is_better: Mapping[str, bool]
    rows: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """As JSON; figures have value, low, high and n."""
        return {
            "benchmark": self.benchmark,
            "protocol": self.protocol,
            "files": self.files,
            "scores": {
                title: {name: vars(estimate) for name, estimate in table.items()}
                for title, table in self.tables.items()
            },
            "skipped": self.skipped,
            "notes": self.notes,
        }


# -- POPE ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Answered:
    """Answers beside their questions, split by split."""

    questions: dict[str, list[dict[str, Any]]]
    answers: dict[str, list[str]]
    files: dict[str, str]
    skipped: list[str]
    notes: list[str] = field(default_factory=list)


def answered(
    paths: Sequence[Path], questions: Sequence[Path], skip_bad: bool = False, by_order: bool = False,
    field: str | None = None,
) -> Answered:  # fmt: skip
    """The answers to each file of questions: one file of answers for each, in the same order.

    by_order: the n-th answer is to the n-th question, whatever their ids say; nothing can be left out then. One file
        may then hold the answers to all files of questions, one after the other, as LLaVA's and lmms-eval's do.
    field: where the rows have the answer, if it is not found by itself.

    Raises:
        FileNotFoundError, ValueError: as `read_answers` and `read_questions`; another number of files; questions
            without an answer, or answers to no question; by_order where an answer's own prompt is another question, or
            its image another one.
    """
    names = [path.stem if [p.stem for p in questions].count(path.stem) == 1 else str(path) for path in questions]
    question_rows: dict[str, list[dict[str, Any]]] = {}
    for name, path in zip(names, questions, strict=True):
        question_rows[name] = pope.read_questions(path)
    if len(question_rows) < len(questions):
        raise ValueError(f"the same file of questions twice among {listed(questions)}.")
    answer_texts: dict[str, list[str]] = {}
    skipped: list[str] = []
    notes: list[str] = []
    if by_order and len(paths) == 1 < len(questions):
        every = [q for part in question_rows.values() for q in part]
        whole = in_order(every, read_answers(paths[0], True, True, field))
        check_order(paths[0], every, field)
        for name, part in question_rows.items():
            answer_texts[name], whole = whole[: len(part)], whole[len(part) :]
        return Answered(question_rows, answer_texts, digests([*paths, *questions]), skipped)
    if len(paths) != len(questions):
        raise ValueError(
            f"{len(paths)} files of answers and {len(questions)} of questions: each file of questions needs its file "
            "of answers, in the same order (ids repeat from split to split), or one file that answers all of them one "
            "after the other (--by-order)."
        )
    for answers, name in zip(paths, names, strict=True):
        read = read_answers(answers, by_order or not skip_bad, by_order, field)
        skipped += read.skipped
        if "repope" in name.lower():
            read = without_removed(question_rows[name], read, notes, answers)
        question_rows[name], answer_texts[name] = joined(question_rows[name], read, skip_bad, skipped, answers)
        if by_order:
            check_order(answers, question_rows[name], field)
    return Answered(question_rows, answer_texts, digests([*paths, *questions]), skipped, notes)


def score_pope(read: Answered, protocol: str = "official") -> Scored:
    """POPE of each split, their mean, and of all questions together; images are resampled with all their questions."""
    tables: dict[str, Table] = {}
    splits = []
    rows, labels, images, texts = [], [], [], []  # type: ignore[var-annotated]
    for name, question_rows in read.questions.items():
        answer_texts = read.answers[name]
        split = [q["label"] for q in question_rows], [q["image"] for q in question_rows]
        splits.append((answer_texts, *split))
        tables[name] = pope.estimates(answer_texts, *split, protocol=protocol)
        judged = pope.outcomes(answer_texts, split[0], protocol)
        rows += [
            {
                "split": name, "question_id": q["question_id"], "image": q["image"], "text": q["text"],
                "answer": text, "label": q["label"], "parsed": pope.parse(text, protocol), "correct": bool(one.correct),
            }
            for q, text, one in zip(question_rows, answer_texts, judged, strict=True)
        ]  # fmt: skip
        labels, images, texts = labels + split[0], images + split[1], texts + answer_texts
    if len(tables) > 1:
        tables["mean"] = pope.mean_of_splits(splits, protocol)
        tables["all"] = pope.estimates(texts, labels, images, protocol=protocol)
    unread = sum(row.unparsed for row in pope.outcomes(texts, labels, protocol))
    about = {
        "name": protocol, "questions": len(texts), "images": len(set(images)), "unparsed": unread,
        "prompt suffix of its users": pope.PROMPT_SUFFIX[protocol],
    }  # fmt: skip
    notes = list(read.notes)
    if unread and protocol != "strict":
        notes.append(f"{unread} of {len(texts)} answers hold neither or both of yes and no; {protocol} decides anyway")
    return Scored("pope", about, read.files, tables, pope.HIGHER_IS_BETTER, rows, read.skipped, notes)


# -- shared --------------------------------------------------------------------------------------------------------
def read_ids(path: Path) -> list[int | str]:
    """Image ids from a file: a JSON array, or one a line; numbers or file names. Each once, in the file's order.

    Raises:
        FileNotFoundError: no such file.
        ValueError: none in it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file of image ids at {path}.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text (byte {error.start}); needed: a list of image ids.") from error
    try:
        content = json.loads(text)
    except json.JSONDecodeError:
        content = text.split("\n")
    names = content if isinstance(content, list) else [content]
    ids = [image_id(name) for name in names if isinstance(name, int) or (isinstance(name, str) and name.strip())]
    if not ids or len(ids) < sum(name not in ("", None) for name in names):
        raise ValueError(f"{path} holds no list of image ids; needed: a JSON array, or one id or file name a line.")
    return list(dict.fromkeys(ids))


def digests(paths: Collection[Path]) -> dict[str, str]:
    """SHA-256 of files, by name; of a folder its annotation files."""
    found: dict[str, str] = {}
    for path in paths:
        inside = [*path.glob("*.json"), *path.glob("annotations/*.json")] if path.is_dir() else [path]
        for file in sorted(inside):
            with file.open("rb") as content:
                found[file.name] = hashlib.file_digest(content, "sha256").hexdigest()
    return found


def listed(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths))


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """One JSON object a line."""
    from ..files.atomic import write_text

    write_text(path, "".join(_line(row) + "\n" for row in rows))


def refuse(bad: Sequence[Any], skip_bad: bool, skipped: list[str], of: str, what: str) -> None:
    """Stop at what cannot be used, or count it."""
    if bad and not skip_bad:
        raise ValueError(
            f"{len(bad)} of {of} {what}, such as {bad[0]}. Give all that is needed, or --skip-bad to leave them out."
        )
    skipped += [f"{one} {what.replace('have', 'has').replace('are ', 'is ')}" for one in bad]


def _line(row: Mapping[str, Any]) -> str:
    """As readable as can be: half a surrogate pair, cut off by some program, has no UTF-8."""
    text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    return json.dumps(row, allow_nan=False) if re.search("[\ud800-\udfff]", text) else text
