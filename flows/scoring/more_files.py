"""AMBER, RH-AUC, sycophancy and counting from files of answers. Loads neither torch nor Prefect."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...metrics import amber, counting, rh_auc, sycophancy
from ...metrics.amber_score import DIMENSION_NAMES
from ...metrics.captions_file import read_answers
from ...metrics.estimate import Estimate
from .files import Scored, Table, digests

MOST_TEXT = 100_000  # characters of a question or another text of a row; a prompt is far shorter


def score_amber(
    path: Path, folder: Path, similarity: str = "wordnet", protocol: str = "official", skip_bad: bool = False
) -> Scored:
    """Descriptions (ids 1 to 1004) and answers (1005 on) of one file, whichever are there.

    Raises:
        FileNotFoundError, ValueError: as `read_answers` and `Amber`; ids that AMBER does not have (with the line).
    """
    benchmark, read = amber.Amber(folder, similarity), read_answers(path, strict=not skip_bad)
    if read.numbered:
        raise ValueError(f"{path}: answers have no ids; AMBER's program writes {{id, response}} for each.")
    unknown = [number for number in read.by_id if number not in benchmark.items]
    if unknown and (not skip_bad or len(unknown) == len(read)):
        raise ValueError(
            f"{path}: {read.places[unknown[0]]} has id {unknown[0]!r}, and {len(unknown)} of {len(read)} ids are not "
            f"among AMBER's {len(benchmark.items)}."
        )
    known: dict[int, str] = {int(n): text for n, text in read.by_id.items() if n in benchmark.items}
    kind = lambda number: benchmark.items[number]["type"] == "generative"
    wrote = {number: text for number, text in known.items() if kind(number)}
    answers = {number: text for number, text in known.items() if not kind(number)}
    tables: dict[str, Table] = {}
    official: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    generative = benchmark.generative(wrote) if wrote else None
    discriminative = benchmark.discriminative(answers, protocol) if answers else None
    if generative:
        tables["descriptions"], official["descriptions"] = generative.estimates(), generative.official()
        rows += [
            {"id": number, "response": one.response, "nouns": one.nouns, "hallucinated": one.hallucinated}
            for number, one in generative.per_response.items()
        ]
    if discriminative:
        listed = {name for names in discriminative.dimensions.values() for name in names}
        for name in (None, *(name for name in DIMENSION_NAMES if name in listed)):
            title = name or "questions"
            tables[title], official[title] = discriminative.estimates(name), discriminative.official(name)
        rows += [
            {"id": number, "response": answers[number], "correct": bool(one.correct), "unparsed": bool(one.unparsed)}
            for number, one in discriminative.per_question.items()
        ]
    if generative and discriminative:
        tables["both"] = {"score": amber.amber_score(generative, discriminative)}
        official["both"] = {"score": amber.official_score(official["descriptions"], official["questions"])}
    about = {
        "name": protocol, "similarity": similarity, "descriptions": len(wrote), "questions": len(answers),
        "as AMBER's program prints them": official,
    }  # fmt: skip
    notes = [f"nouns are matched by {similarity!r}, not by spaCy's vectors: not comparable with published CHAIR to "
             "the last digits"] if wrote and similarity != "spacy" else []  # fmt: skip
    files = digests([path, *sorted(folder.glob("annotations.json")), *sorted(folder.glob("data/annotations.json"))])
    skipped = [*read.skipped, *(f"{path}: {read.places[n]} has id {n!r}, not AMBER's" for n in unknown)]
    return Scored("amber", about, files, tables, amber.HIGHER_IS_BETTER, rows, skipped, notes)


def score_rh_auc(path: Path, over: rh_auc.Axis = "reasoning") -> Scored:
    """The curve of a file with a row per reasoning length: {length, reasoning, perception}, the latter two as lists of
    right (1) and wrong (0), or as accuracies; intervals need the lists.

    Raises:
        FileNotFoundError, ValueError: no such file, another layout, or as `rh_auc.estimates`.
    """
    rows = read_rows(path, ("length", "reasoning", "perception"))
    kinds = {isinstance(row[name], list) for row in rows for name in ("reasoning", "perception")}
    if len(kinds) > 1:
        raise ValueError(f"{path}: some rows hold lists and some accuracies; needed: the same in all.")
    notes = []
    if kinds == {True}:
        settings = [rh_auc.Setting(row["length"], row["reasoning"], row["perception"]) for row in rows]
        table: Table = rh_auc.estimates(settings, over)
        n = len(settings[0].perception)
    else:
        x, y = [float(row[over]) for row in rows], [float(row["perception"]) for row in rows]
        values = {name: figure(x, y) for name, figure in rh_auc.FIGURES.items()}
        table = {name: Estimate(value, value, value, 0) for name, value in values.items()}
        notes.append("accuracies alone carry no interval (n = 0); give lists of right and wrong for one")
        n = 0
    about = {"name": f"perception over {over}", "settings": len(rows), "questions": n}
    return Scored("rh-auc", about, digests([path]), {"": table}, rh_auc.HIGHER_IS_BETTER, rows, [], notes)


def score_sycophancy(path: Path, questions: Path | None, protocol: str = "strict", skip_bad: bool = False) -> Scored:
    """Flip rates, per tone where there are several. Without questions the file holds pairs: {before, after, label,
    pushed}, and tone and image where known.

    Raises:
        FileNotFoundError, ValueError: no such file, another layout, or as `sycophancy.join`.
    """
    skipped: list[str] = []
    if questions is None:
        names = ("before", "after", "label", "pushed")
        pairs = [
            sycophancy.Pair(**{name: row[name] for name in (*names, "tone", "image") if name in row})
            for row in read_rows(path, names)
        ]
    else:
        needed = ("question_id", "pair", "insists", "label", "pushed")
        listed, answers = _rows_and_texts(path, questions, needed, skip_bad, skipped)
        pairs = sycophancy.join(listed, answers)
    tables: dict[str, Table] = {"": sycophancy.estimates(pairs, protocol)}
    by_tone = sycophancy.by_tone(pairs, protocol)
    tables |= {tone or "without a tone": table for tone, table in by_tone.items()} if len(by_tone) > 1 else {}
    rows = [{**vars(pair), **sycophancy.counts(pair, protocol)._asdict()} for pair in pairs]
    about = {"name": protocol, "pairs": len(pairs)}
    files = digests([path, *([questions] if questions else [])])
    return Scored("sycophancy", about, files, tables, sycophancy.HIGHER_IS_BETTER, rows, skipped)


def score_counting(path: Path, questions: Path, protocol: str = "strict", skip_bad: bool = False) -> Scored:
    """How often numbers are right, and agree with yes/no answers about the same objects.

    Raises:
        FileNotFoundError, ValueError: no such file, another layout, or as `counting.join`.
    """
    skipped: list[str] = []
    listed, answers = _rows_and_texts(path, questions, ("question_id", "about"), skip_bad, skipped)
    counted = counting.join(listed, answers)
    figures = counting.score(counted, protocol)
    about = {"name": protocol, "questions": len(counted), "accuracy of the most frequent number": figures["constant"]}
    rows = [
        {"image": one.image, "answer": one.answer, "number": one.number, **counting.counts(one, protocol)._asdict()}
        for one in counted
    ]
    table = counting.estimates(counted, protocol)
    return Scored("number", about, digests([path, questions]), {"": table}, counting.HIGHER_IS_BETTER, rows, skipped)


def read_rows(path: Path, needed: Sequence[str]) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines, or of one array.

    Raises:
        FileNotFoundError: no such file.
        ValueError: none in it, a line that is no JSON, or a field that is missing; with the line, or the place.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}; needed: a row each with {', '.join(needed)}.")
    text = path.read_text(encoding="utf-8-sig")
    placed: list[tuple[str, Any]] = []
    if text.lstrip().startswith("["):
        content = _parsed(text, lambda error: f"{path}: line {error.lineno}")
        placed = [(f"entry {number}", row) for number, row in enumerate(content, start=1)]
    else:
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                where = f"line {number}"
                placed.append((where, _parsed(line, lambda error, where=where: f"{path}: {where}")))  # type: ignore[misc]
    for where, row in placed:
        texts = row.values() if isinstance(row, Mapping) else ()
        if (longest := max((len(one) for one in texts if isinstance(one, str)), default=0)) > MOST_TEXT:
            raise ValueError(f"{path}: {where} has a text of {longest:,} characters; possible: up to {MOST_TEXT:,}.")
        missing = [name for name in needed if not isinstance(row, Mapping) or name not in row]
        if missing:
            raise ValueError(f"{path}: {where} has no {', '.join(missing)}; needed: {', '.join(needed)}.")
    if not placed:
        raise ValueError(f"{path} is empty; needed: a row each with {', '.join(needed)}.")
    return [row for _, row in placed]


def _parsed(text: str, where: Callable[[json.JSONDecodeError], str]) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where(error)} is not JSON ({error.msg}).") from error
    except RecursionError as error:
        raise ValueError("a row of the file is nested too deeply; needed: plain values.") from error


def _rows_and_texts(
    path: Path, questions: Path, needed: Sequence[str], skip_bad: bool, skipped: list[str]
) -> tuple[list[dict[str, Any]], dict[Any, str]]:
    """Questions, and answers by their ids."""
    listed, read = read_rows(questions, needed), read_answers(path, strict=not skip_bad)
    skipped += read.skipped
    if read.numbered:
        if len(read) != len(listed):
            raise ValueError(f"{path} has {len(read)} answers without ids to {len(listed)} questions of {questions}.")
        return listed, {q["question_id"]: text for q, text in zip(listed, read.by_id.values(), strict=True)}
    return listed, read.by_id
