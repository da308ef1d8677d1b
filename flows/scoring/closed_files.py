"""MME, MMVP, HallusionBench and DASH-B from files of answers. Loads neither torch nor Prefect."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...datasets.closed import dash_b as dash_b_files
from ...datasets.closed import hallusionbench as hallusionbench_files
from ...datasets.closed import mme as mme_files
from ...datasets.closed import mmvp as mmvp_files
from ...datasets.closed.base import ClosedQuestion, same_text
from ...metrics import dash_b, hallusionbench, mme, mmvp
from ...metrics.answer_rows import AnswerRow, read_answer_rows
from .files import Scored, Table, digests
from .matching import Matched, match, prompt_of


# -- MME -----------------------------------------------------------------------------------------------------------
def score_mme(
    path: Path, data: Path | None = None, protocol: str = "official", skip_bad: bool = False, field: str | None = None
) -> Scored:
    """MME's hallucination part.

    Args:
        path: a folder of {task}.txt with the answers as a fourth column, as the official program reads; an object
            {task: [answers]} in the order of the questions; or rows that name image and question.
        data: MME's question files. The first form holds the questions, the second can do without: they alternate
            between yes and no.

    Raises:
        FileNotFoundError, ValueError: as `mme_files.read` and `match`.
    """
    if path.is_dir():
        matched = _four_columns(path)
    elif path.is_file() and (lists := _lists(path)) is not None:
        matched = _by_task(path, lists, data)
    elif data is None:
        matched = _by_task(path, _rows_by_task(path, skip_bad, field), None)
    else:
        tasks = [task for task in mme.TASKS if (data / f"{task}.txt").is_file()] or mme.TASKS
        matched = match(
            path, mme_files.read(data, tasks), lambda row: (str(row.id), prompt_of(row)),
            lambda q: (q.image, same_text(q.text)), skip_bad, False, field, "MME's other tasks",
        )  # fmt: skip
    tasks_of: dict[str, list[mme.Question]] = {}
    for question, text in zip(matched.questions, matched.answers, strict=True):
        name = str(question.image).removeprefix(f"{question.part}/")
        tasks_of.setdefault(question.part, []).append(mme.Question(name, question.label, text))
    tables: dict[str, Table] = mme.estimates(tasks_of, protocol)  # type: ignore[assignment]
    rows = [
        {**_row(question, text), "read": mme.READERS[protocol](text)}
        for question, text in zip(matched.questions, matched.answers, strict=True)
    ]
    constants = {"always yes or always no": {"score of a task": 50.0, "accuracy_plus": 0.0}}
    about = {"name": protocol, "questions": len(rows), "constant answers": constants}
    files = digests([*(sorted(path.glob("*.txt")) if path.is_dir() else [path]), *_texts(data)])
    return Scored("mme", about, files, tables, mme.HIGHER_IS_BETTER, rows, matched.skipped, matched.notes)


def _four_columns(folder: Path) -> Matched:
    questions, answers = [], []
    tasks = [task for task in mme.TASKS if (folder / f"{task}.txt").is_file()]
    for task in tasks:
        for where, cells in mme_files.lines(folder, task):
            if len(cells) != 4:
                raise ValueError(f"{where} has {len(cells)} columns; needed: image, question, Yes or No, answer.")
            answers.append(cells[3])
        questions += mme_files.read(folder, [task])
    if not questions:
        raise FileNotFoundError(f"{folder} has none of {', '.join(f'{task}.txt' for task in mme.TASKS)}.")
    return Matched(questions, answers)


def _lists(path: Path) -> Mapping[str, list[str]] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError:
        return None
    if not isinstance(content, Mapping) or not content or not set(content) <= set(mme.TASKS):
        return None
    return content


def _rows_by_task(path: Path, skip_bad: bool, field: str | None) -> dict[str, list[str]]:
    """The answers of rows whose ids are task/image, two an image, in their order."""
    found: dict[str, list[tuple[str, str]]] = {}
    for row in read_answer_rows(path, not skip_bad, field)[0]:
        task, _, image = str(row.id).partition("/")
        if task in mme.TASKS:
            found.setdefault(task, []).append((image, row.text))
    for task, rows in found.items():
        torn = [a[0] for a, b in zip(rows[::2], rows[1::2], strict=False) if a[0] != b[0]]
        if torn or len(rows) % 2:
            raise ValueError(f"{path}: {task} has no two answers in a row about {(torn or [rows[-1][0]])[0]}.")
    if not found:
        raise ValueError(
            f"{path}: no row has an id such as existence/IMAGE; give MME's own question files with --data."
        )
    return {task: [text for _, text in rows] for task, rows in found.items()}


def _by_task(path: Path, lists: Mapping[str, list[str]], data: Path | None) -> Matched:
    questions: list[ClosedQuestion] = []
    answers: list[str] = []
    for task, texts in lists.items():
        if data is None:
            part = [
                ClosedQuestion(f"{task}/{n // 2}#{n % 2 + 1}", f"{task}/{n // 2}", "", ("yes", "no")[n % 2], task)
                for n in range(len(texts))
            ]
        else:
            part = mme_files.read(data, [task])
        if len(part) != len(texts):
            raise ValueError(f"{path}: {task} has {len(texts)} answers to {len(part)} questions.")
        questions, answers = questions + part, answers + list(texts)
    notes = [] if data else ["labels are taken to alternate between yes and no, as in MME's files; --data checks it"]
    return Matched(questions, answers, [], notes)


# -- MMVP ----------------------------------------------------------------------------------------------------------
def score_mmvp(
    path: Path, questions: Path, protocol: str = "strict", corrected: bool = False, skip_bad: bool = False,
    by_order: bool = False, field: str | None = None,
) -> Scored:  # fmt: skip
    """MMVP; answers go with questions by their index, from 1.

    Raises:
        FileNotFoundError, ValueError: as `mmvp_files.read` and `match`; pairs of which one question has no answer.
    """
    closed_questions = mmvp_files.read(questions, corrected)
    by_index = lambda row: str(row.row.get("index") or row.row.get("Index") or row.row.get("lndex") or row.id)
    matched = match(path, closed_questions, by_index, lambda q: q.id, skip_bad, by_order, field)
    labels, options = [q.label for q in matched.questions], [q.options for q in matched.questions]
    pairs = [q.group for q in matched.questions]
    table = mmvp.estimates(matched.answers, labels, options, pairs, protocol)
    rows = [
        {**_row(question, text), "read": mmvp.READERS[protocol](text, question.options)}
        for question, text in zip(matched.questions, matched.answers, strict=True)
    ]
    about = {
        "name": protocol, "keys": "corrected: pairs 99/100 and 279/280 swapped" if corrected else "as published",
        "questions": len(rows), "pairs": len(set(pairs)),
        "constant answers": {"always (a)": {"accuracy": labels.count("a") / len(labels), "pair_accuracy": 0.0}},
        "chance": {"figures": {"accuracy": 0.5, "pair_accuracy": 0.25}},
    }  # fmt: skip
    notes = [*matched.notes, "read by a rule; the official program asks GPT-4 whether an answer agrees with the key"]
    files = digests([path, questions / "Questions.csv" if questions.is_dir() else questions])
    return Scored("mmvp", about, files, {"": table}, mmvp.HIGHER_IS_BETTER, rows, matched.skipped, notes)


# -- HallusionBench ------------------------------------------------------------------------------------------------
def score_hallusionbench(
    path: Path, questions: Path | None = None, protocol: str = "strict", images_only: bool = False,
    skip_bad: bool = False, by_order: bool = False, field: str | None = None,
) -> Scored:  # fmt: skip
    """HallusionBench, the part that a rule can score; answers in the published rows ("model_prediction"), by id, or by
    order.

    Raises:
        FileNotFoundError, ValueError: as `hallusionbench_files.read` and `match`.
    """
    closed_questions = hallusionbench_files.read(questions or path, images_only)
    whole = len(hallusionbench_files.read(questions or path)) if images_only else len(closed_questions)
    if field is None and any("model_prediction" in row.row for row in _peek(path, "model_prediction")):
        field = "model_prediction"
    matched = match(
        path, closed_questions, _hallusion_name, lambda q: q.id, skip_bad, by_order, field,
        f"the {whole - len(closed_questions)} questions without an image" if images_only else "",
    )  # fmt: skip
    of = [hallusionbench.of_row(question.facts) for question in matched.questions]
    tables: dict[str, Table] = {"": hallusionbench.estimates(matched.answers, of, protocol)}
    for category in ("VD", "VS"):
        part = [(text, one) for text, one in zip(matched.answers, of, strict=True) if one.category == category]
        if part:
            tables[category] = hallusionbench.estimates([t for t, _ in part], [one for _, one in part], protocol)
    constants = {
        f"always {word}": {
            name: round(value, 6) for name, value in hallusionbench.score([word] * len(of), of, protocol).items()
            if name in ("aAcc", "fAcc", "qAcc")
        } for word in ("yes", "no")
    }  # fmt: skip
    rows = [
        {**_row(question, text), "grade": hallusionbench.grade(text, one, protocol)}
        for question, text, one in zip(matched.questions, matched.answers, of, strict=True)
    ]
    about = {
        "name": protocol, "rows": "with an image" if images_only else "all", "questions": len(rows),
        "constant answers": constants,
    }  # fmt: skip
    notes = [*matched.notes, "graded by a rule; the official program has GPT-4 grade each answer"]
    files = digests([path, *_files(questions, "HallusionBench.json")])
    return Scored(
        "hallusionbench", about, files, tables, hallusionbench.HIGHER_IS_BETTER, rows, matched.skipped, notes
    )


def _hallusion_name(row: AnswerRow) -> str | None:
    try:
        return hallusionbench_files.name_of(row.row)
    except KeyError:
        return None


def _peek(path: Path, field: str) -> list[AnswerRow]:
    """The rows if they have that field, else none."""
    try:
        return read_answer_rows(path, False, field)[0]
    except ValueError:
        return []


# -- DASH-B --------------------------------------------------------------------------------------------------------
def score_dash_b(
    path: Path, data: Path | None = None, protocol: str = "official", skip_bad: bool = False, field: str | None = None
) -> Scored:
    """DASH-B; rows {img_id, object_name, gt, response} as its program writes them, or ids with its lists as data.

    Raises:
        FileNotFoundError, ValueError: as `dash_b_files.read` and `match`.
    """
    own = _peek(path, field or "response")
    if data is None:
        matched = _own_rows(path, own)
    else:
        matched = match(
            path, dash_b_files.read(data), _dash_key, lambda q: (q.label, q.facts["object"], q.id.split("/")[-1]),
            skip_bad, False, field or ("response" if own else None),
        )  # fmt: skip
    labels = [question.label for question in matched.questions]
    tables: dict[str, Table] = {"": dash_b.estimates(matched.answers, labels, protocol)}
    for title, of in (("source", lambda q: q.part), ("object", lambda q: q.facts["object"])):
        names = dict.fromkeys(of(question) for question in matched.questions)
        for name in names if len(names) > 1 else ():
            part = [(t, q.label) for t, q in zip(matched.answers, matched.questions, strict=True) if of(q) == name]
            tables[f"{title} {name}"] = dash_b.estimates([t for t, _ in part], [one for _, one in part], protocol)
    rows = [
        {**_row(question, text), "object": question.facts["object"], "read": dash_b.READERS[protocol](text)}
        for question, text in zip(matched.questions, matched.answers, strict=True)
    ]
    about = {
        "name": protocol, "questions": len(rows), "without the object": labels.count("no"),
        "constant answers": {"always yes or always no": {"accuracy": 0.5, "harmonic_mean": 0.0}},
    }  # fmt: skip
    files = digests([path, *(sorted({*data.glob("*.json"), *data.glob("images/*.json")}) if data else [])])
    return Scored("dash-b", about, files, tables, dash_b.HIGHER_IS_BETTER, rows, matched.skipped, matched.notes)


def _dash_key(row: AnswerRow) -> tuple[str, str, str] | None:
    label, thing = row.row.get("gt"), row.row.get("object_name", row.row.get("object"))
    image = row.row.get("img_id", row.id)
    return None if label is None or thing is None else (str(label), str(thing), str(image))


def _own_rows(path: Path, rows: Sequence[AnswerRow]) -> Matched:
    keys = [key for key in map(_dash_key, rows) if key is not None]
    if not rows or len(keys) < len(rows):
        raise ValueError(f"{path}: rows need img_id, object_name, gt and response; give DASH-B's lists with --data.")
    questions = [
        ClosedQuestion(f"{label}/{thing}/{image}#{row.where}", image, "", label, "", thing, (), {"object": thing})
        for row, (label, thing, image) in zip(rows, keys, strict=True)
    ]
    return Matched(questions, [row.text for row in rows])


# -- shared --------------------------------------------------------------------------------------------------------
def _row(question: ClosedQuestion, text: str) -> dict[str, Any]:
    return {
        "id": question.id, "image": question.image, "question": question.text, "label": question.label, "answer": text,
    }  # fmt: skip


def _texts(folder: Path | None) -> list[Path]:
    return [] if folder is None else [p for p in sorted(folder.rglob("*.txt")) if p.stem in mme.TASKS]


def _files(path: Path | None, name: str) -> list[Path]:
    return [] if path is None else [path / name if path.is_dir() else path]
