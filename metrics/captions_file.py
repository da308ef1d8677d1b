"""Captions and answers from the files that evaluation programs write: OPERA's, LLaVA's, CHAIR's, POPE's, our own.

Which layout a file has is found out from its content: JSON lines, one array, or one object. Tables go by their names:
.csv and .tsv, with the fields' names in the first line, and .parquet.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .captions_table import parquet_rows

# Names under which the peers' programs keep an id and a text, the ones that say most first. "text" is LLaVA's answer,
# but the question in POPE's files, so it is looked at last.
CAPTION_IDS = (
    "image_id", "image", "file_name", "filename", "image_file", "image_path", "image_name", "image_source", "img_id",
    "img", "img_path", "imgId", "id", "question_id",
)  # fmt: skip
ANSWER_IDS = ("question_id", "id", "qid", "questionId")
MORE = (
    "model_answer", "model_response", "model_output", "model_prediction", "generated_text", "generated_answer",
    "generation", "completion", "output_text", "predicted", "pred", "ans",
)  # fmt: skip
CAPTIONS = ("caption", "generated_caption", "answer", "response", "output", "prediction", "outputs", *MORE, "text")
ANSWERS = ("answer", "response", "output", "prediction", "outputs", *MORE, "text")
# Objects that hold the rows under one of these names: CHAIR's own output, its input, COCO's captions.
HOLDERS = ("sentences", "imgToEval", "annotations", "captions", "answers", "predictions", "results", "data", "logs")
SPACE = re.compile(r"\s*")
# COCO_val2014_000000310196.jpg, 000000310196.jpg, 310196.jpg
COCO_NAME = re.compile(r"(?:COCO_(?:train|val|test)\d{4}_)?(\d+)(?:\.\w{3,4})?")


@dataclass(frozen=True)
class Predictions:
    """What a file says, by id, in its order.

    Args:
        by_id: image or question id -> text.
        skipped: where and why something was left out; empty when read strictly.
        numbered: the rows had no ids; 1, 2, … is their place in the file.
        places: id -> where it stands in the file, such as "line 7".
    """

    by_id: dict[int | str, str]
    skipped: list[str] = field(default_factory=list)
    numbered: bool = False
    places: dict[int | str, str] = field(default_factory=dict, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.by_id)

    def __str__(self) -> str:
        reasons = f", {len(self.skipped)} skipped, such as {self.skipped[0]}" if self.skipped else ""
        return f"{len(self.by_id)} read{reasons}"


def image_id(name: int | str) -> int | str:
    """An image's id: COCO's number where a file name holds one, else the name itself without folders.

    >>> image_id("COCO_val2014_000000310196.jpg"), image_id("val2017/000000000139.jpg"), image_id("42")
    (310196, 139, 42)
    >>> image_id("test_000017.png"), image_id("AMBER_12.jpg")
    ('test_000017.png', 'AMBER_12.jpg')
    """
    if isinstance(name, int):
        return name
    last = re.split(r"[/\\]", name.strip())[-1]
    number = COCO_NAME.fullmatch(last)
    return int(number[1]) if number else last


def read_captions(
    path: str | Path, strict: bool = True, field: str | None = None, decoder: str | None = None
) -> Predictions:
    """Captions by image id from any of:

    JSON lines, objects one after the other, or an array of {image_id, caption} (OPERA, PAI, VISTA); of {question_id,
        prompt, text, image} (LLaVA), where the image decides, not the question; of our own rows {id, image_id, text,
        error, …}; of [id, caption]; of lmms-eval's logged samples {doc, filtered_resps, …}
    a table (.csv, .tsv, .parquet) with such columns
    an object id -> caption, or id -> {caption}
    an object with such rows below "sentences", "imgToEval", "annotations", … (CHAIR's output and input)

    Ids become numbers where they are COCO's, see `image_id`.

    Args:
        path: the file.
        strict: anything wrong is an error. False: it is left out and said in `skipped`; of a repeated id the first
            caption is kept.
        field: the name under which the rows have the caption. None looks under the usual names; rows that have
            different texts under two of them, such as an answer and a response, are an error.
        decoder: read the rows of this decoder alone, see `decoders_in`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: nothing in the file; a line that is no JSON, has no id, no caption or two, or repeats an id; with
            the line number, or the place in an array. An empty file is an error, strict or not.
    """
    return _read(Path(path), "caption", CAPTION_IDS, (field,) if field else CAPTIONS, image_id, strict, decoder=decoder)


def decoders_in(path: str | Path) -> list[str]:
    """The decoders that the rows of a file name, in its order; none where rows name none."""
    rows = (row for _, row in _rows(Path(path), "caption", lambda problem: None))
    named = (row["decoder"] for row in rows if isinstance(row, Mapping) and isinstance(row.get("decoder"), str))
    return list(dict.fromkeys(named))


def read_answers(
    path: str | Path, strict: bool = True, by_order: bool = False, field: str | None = None
) -> Predictions:
    """Answers by question id, from JSON lines, an array, an object or a table, as `read_captions`.

    The id is in question_id, id or qid, the text in answer, response, output or text. Files in which no row has an id,
    like those of POPE's own program ({question, answer}), are numbered by their order.

    Args:
        path, strict, field: as `read_captions`.
        by_order: number them all by their order, whatever ids they have, as POPE's own program does. For answers
            whose ids are another file's.

    Raises:
        FileNotFoundError, ValueError: as `read_captions`; rows of which some have an id and some have none.
    """
    return _read(Path(path), "answer", ANSWER_IDS, (field,) if field else ANSWERS, as_number, strict, by_order)


def in_order(questions: Sequence[Mapping[str, Any]], answers: Predictions) -> list[str]:
    """The answer to each question, by question_id; by order where the answers have no ids.

    >>> in_order([{"question_id": 2}, {"question_id": 1}], Predictions({1: "No", 2: "Yes"}))
    ['Yes', 'No']

    Raises:
        ValueError: questions without an answer, answers to no question, or another number where order decides.
    """
    if answers.numbered:
        if len(answers) != len(questions):
            raise ValueError(
                f"{len(answers)} answers without ids and {len(questions)} questions: they are matched by order, so "
                "there must be as many. Write question_id with each answer."
            )
        return list(answers.by_id.values())
    ids = [as_number(question["question_id"]) for question in questions]
    missing = [number for number in ids if number not in answers.by_id]
    other = answers.by_id.keys() - set(ids)
    if missing or other:
        problems = [f"{len(missing)} have no answer, such as {missing[0]!r}"] if missing else []
        problems += [f"{len(other)} answers are to none of them, such as {min(other, key=str)!r}"] if other else []
        raise ValueError(
            f"of {len(ids)} questions {' and '.join(problems)}: is it another question file, or a part? Answers in the "
            "questions' order, but with other ids, can be matched by order (--by-order)."
        )
    return [answers.by_id[number] for number in ids]


def _read(
    path: Path,
    what: str,
    ids: Sequence[str],
    texts: Sequence[str],
    as_id: Callable[[Any], int | str],
    strict: bool,
    by_order: bool = False,
    decoder: str | None = None,
) -> Predictions:
    skipped: list[str] = []

    def complain(problem: str) -> None:
        if strict:
            raise ValueError(f"{path}: {problem}")
        skipped.append(problem)

    picked: list[tuple[str, int | str | None, str]] = []
    for where, row in _rows(path, what, complain):
        if decoder is not None and not (isinstance(row, Mapping) and row.get("decoder") == decoder):
            continue
        try:
            number, text = _pick(row, what, ids, texts)
        except ValueError as error:
            complain(f"{where} {error}")
        else:
            picked.append((where, None if number is None or by_order else as_id(number), text))
    numbered = what == "answer" and all(number is None for _, number, _ in picked)
    found: dict[int | str, str] = {}
    places: dict[int | str, str] = {}
    for place, (where, number, text) in enumerate(picked, start=1):
        known = place if numbered else number
        if known is None:
            complain(f"{where} has no id; looked for {', '.join(ids)}.")
        elif known in found:
            complain(f"{where} repeats {known!r} of {places[known]}; each may come once.")
        else:
            found[known], places[known] = text, where
    if not found:
        raise ValueError(f"{path} holds no {what}s" + (f"; skipped: {skipped[0]}" if skipped else "."))
    return Predictions(found, skipped, numbered, places)


def _rows(path: Path, what: str, complain: Callable[[str], None]) -> Iterator[tuple[str, Any]]:
    """(where, row) of whatever layout the file has."""
    if not path.is_file():
        raise FileNotFoundError(f"no file of {what}s at {path}.")
    if path.suffix.lower() == ".parquet":
        yield from parquet_rows(path, {*CAPTION_IDS, *ANSWER_IDS, *CAPTIONS, *ANSWERS, "decoder", "error", "label"})
        return
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text (byte {error.start}); needed: JSON or JSON lines.") from error
    lines = text.split("\n")
    filled = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not filled:
        raise ValueError(f"{path} is empty; needed: {what}s as JSON lines, an array, or an object.")
    if path.suffix.lower() in (".csv", ".tsv"):
        table = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        for row in table:
            yield f"line {table.line_num}", {name: cell for name, cell in row.items() if name and cell is not None}
        return
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        try:
            chain = documents(text)
        except json.JSONDecodeError:
            chain = []
        if chain:  # JSON lines, or objects one after the other, indented or on one line
            yield from ((f"line {number}", row) for number, row in by_line(text, chain))
            return
        if 2 * sum(is_json(line) for _, line in filled) < len(filled):  # one torn document, not JSON lines
            raise ValueError(f"{path}: line {error.lineno} is not JSON ({error.msg}).") from error
        for number, line in filled:
            try:
                rows = documents(line)
            except json.JSONDecodeError as wrong:
                complain(f"line {number} is not JSON ({wrong.msg}): {line[:60]!r}")
            else:
                yield from ((f"line {number}", row) for _, row in rows)
        return
    if isinstance(content, Mapping) and len(filled) == 1 and content.keys() & {*CAPTIONS, *ANSWERS}:
        yield f"line {filled[0][0]}", content  # a file of JSON lines that has one
        return
    yield from _entries(content, path)


def _entries(content: Any, path: Path) -> Iterator[tuple[str, Any]]:
    """The rows of one JSON document."""
    inside = ""
    if isinstance(content, Mapping):
        holder = next((name for name in HOLDERS if isinstance(content.get(name), (list, Mapping))), None)
        if holder is not None:
            content, inside = content[holder], f" of {holder!r}"
    if isinstance(content, list):
        yield from ((f"entry {number}{inside}", row) for number, row in enumerate(content, start=1))
    elif isinstance(content, Mapping):
        for key, value in content.items():
            alone = value[0] if isinstance(value, list) and len(value) == 1 else value
            named = {"image_id": key, "question_id": key, **alone} if isinstance(alone, Mapping) else [key, alone]
            yield f"entry {key!r}{inside}", named
    else:
        raise ValueError(f"{path} holds a {type(content).__name__}; needed: JSON lines, an array, or an object.")


def _pick(row: Any, what: str, ids: Sequence[str], texts: Sequence[str]) -> tuple[int | str | None, str]:
    """(id or None, text) of a row; ValueError says what is wrong with it."""
    if isinstance(row, list) and len(row) == 2 and isinstance(row[1], str):
        row = {ids[0]: row[0], texts[0]: row[1]}
    if not isinstance(row, Mapping):
        raise ValueError(f"is {row!r:.60}; needed: an object with an id and the {what}, or [id, {what}].")
    if "filtered_resps" in row:
        row = _logged(row, ids, texts[0])
    number = next((row[name] for name in ids if row.get(name) is not None), None)
    if isinstance(number, bool) or not isinstance(number, (int, str, type(None))):
        raise ValueError(f"has an id that is neither number nor text: {number!r:.60}.")
    if row.get("error"):
        raise ValueError(f"has no {what}, but an error: {row['error']!s:.80}")
    name = next((name for name in texts if name in row), None)
    if name is None:
        raise ValueError(
            f"has no {what}; found {', '.join(map(str, row)) or 'nothing'}, looked for {', '.join(texts)}. Another "
            "name can be given (--field)."
        )
    rest = [other for other in texts if other in row and other != "text" and row[other] != row[name]]
    if rest and name != "text":
        raise ValueError(
            f"has {name} and {rest[0]}, which differ: {row[name]!r:.40} and {row[rest[0]]!r:.40}. Say which the model "
            f"wrote: --field {rest[0]}, or field={rest[0]!r} in Python."
        )
    if name == "text" and len(texts) > 1 and "label" in row and "question" not in row and "prompt" not in row:
        raise ValueError(f"has a text and a label, as a question has, but no {what}: is this the file of questions?")
    text = row[name]
    while isinstance(text, list) and len(text) == 1:
        text = text[0]
    if not isinstance(text, str):
        raise ValueError(f"has no text as {name}: {text!r:.60}.")
    return number, text


def _logged(row: Mapping[str, Any], ids: Sequence[str], text: str) -> dict[str, Any]:
    """A sample as lmms-eval logs it: the id inside the document, or inside what a metric keeps of it."""
    parts = [row, *(value for value in row.values() if isinstance(value, Mapping))]
    known = {name: part[name] for name in ids for part in parts if isinstance(part.get(name), (int, str))}
    return {"id": row.get("doc_id"), **known, text: row["filtered_resps"]}


def documents(text: str) -> list[tuple[int, Any]]:
    """(where it starts, value) of JSON values one after the other, whatever space is between them.

    >>> documents('{"a": 1} {"a": 2}')
    [(0, {'a': 1}), (9, {'a': 2})]

    Raises:
        JSONDecodeError: something that is no JSON.
    """
    decoder, found, place = json.JSONDecoder(), [], 0
    while (start := SPACE.match(text, place).end()) < len(text):  # type: ignore[union-attr]
        value, place = decoder.raw_decode(text, start)
        found.append((start, value))
    return found


def by_line(text: str, found: Sequence[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    """(line, value), counted once over the text."""
    line, before = 1, 0
    for start, value in found:
        line, before = line + text.count("\n", before, start), start
        yield line, value


def is_json(line: str) -> bool:
    try:
        documents(line)
    except json.JSONDecodeError:
        return False
    return True


def as_number(name: Any) -> int | str:
    return int(name) if isinstance(name, str) and name.strip().isdecimal() else name
