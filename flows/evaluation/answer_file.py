"""Answers on disk: JSON lines that a killed run goes on from, and that refuse to be mixed with another run's."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Row = dict[str, Any]


class OtherSettings(ValueError):
    """A folder holds answers that were made with other settings; the message says which differ."""


def file_name(decoder: str) -> str:
    """A decoder's name as a file name that every system takes, another one for every decoder.

    >>> file_name("vcd"), file_name("vista:strength=0.1"), file_name("sla:window=(-7,-2)")
    ('vcd', 'vista-strength=0.1', 'sla-window=--7,-2-ed656c')
    """
    plain = decoder.replace(":", "-", 1)
    safe = re.sub(r"[^A-Za-z0-9._=,+-]+", "-", plain).strip("-.")[:80]
    return safe if safe == plain else f"{safe}-{hashlib.sha256(decoder.encode()).hexdigest()[:6]}"


def answers_path(out: str | Path, benchmark: str, decoder: str) -> Path:
    return Path(out) / benchmark / f"{file_name(decoder)}.jsonl"


def settings_path(answers: Path) -> Path:
    """Where the settings of a file of answers stand."""
    return answers.with_suffix(".settings.json")


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        FileNotFoundError, ValueError: no such file, or no JSON in it (with the line).
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; is {path.parent} the folder of an evaluation?")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: line {error.lineno} is not JSON ({error.msg}).") from error


def check_settings(answers: Path, settings: Mapping[str, Any]) -> None:
    """Refuse a file of answers that was begun with other settings.

    Raises:
        OtherSettings: says what differs.
    """
    if not answers.exists() or not answers.stat().st_size:
        return
    stored = settings_path(answers)
    if not stored.exists():
        raise OtherSettings(f"{answers} exists, but not its settings {stored.name}; delete it or choose another --out.")
    if said := difference(read_json(stored), settings):
        raise OtherSettings(f"{answers} was made with other settings: {said}. Choose another --out, or delete it.")


def difference(there: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """In what stored settings and these differ, as one sentence; "" if in nothing."""
    here = json.loads(json.dumps(settings))
    different = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    if len(different) > 1 and "data_sha256" in different:
        different.remove("data_sha256")  # it follows from the others
    return "; ".join(f"{name} was {_short(there.get(name))}, now {_short(here.get(name))}" for name in different)


def read_rows(answers: Path) -> list[Row]:
    """The complete lines of a file of answers; a last line without its end is left out.

    Raises:
        ValueError: a line in the middle that is no JSON (with its number).
    """
    if not answers.exists():
        return []
    lines = answers.read_bytes().split(b"\n")[:-1]  # behind the last line end: nothing, or half a line
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{answers}: line {number} is not JSON; delete that line or the file.") from error
    return rows


@contextmanager
def continued(
    answers: Path, settings: Mapping[str, Any], order: Sequence[str]
) -> Iterator[tuple[set[str], Callable[[Sequence[Row]], None]]]:
    """Go on with a file of answers, or begin it: gives the ids that are there, and what appends rows.

    A half-written last line is cut off and rows with an error are taken out, so that both are tried again. Rows end
    up in the order of `order`.

    Raises:
        OtherSettings: it was begun with other settings.
    """
    check_settings(answers, settings)
    write_json(settings_path(answers), settings)
    kept = [row for row in read_rows(answers) if row["error"] is None]
    _write_rows(answers, kept)
    with answers.open("a", encoding="utf-8", newline="\n") as file:

        def append(rows: Sequence[Row]) -> None:
            file.write("".join(_line(row) for row in rows))
            file.flush()
            os.fsync(file.fileno())

        yield {row["id"] for row in kept}, append
    place = {name: number for number, name in enumerate(order)}
    rows = {row["id"]: row for row in read_rows(answers)}
    _write_rows(answers, sorted(rows.values(), key=lambda row: place[row["id"]]))


def _write_rows(answers: Path, rows: Sequence[Row]) -> None:
    """Replace the file's content, if it is another."""
    text = "".join(map(_line, rows))
    if not answers.exists() or answers.read_bytes() != text.encode():
        write_text(answers, text)


def _line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"
