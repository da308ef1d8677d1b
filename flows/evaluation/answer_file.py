"""Answers on disk: JSON lines from which a killed run continues, and which are never mixed with another run's."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...datasets.examples import Example
from ..files.atomic import read_json, write_json, write_text

Row = dict[str, Any]


class OtherSettings(ValueError):
    """A folder holds answers of other settings; the message says which differ."""


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


def check_settings(answers: Path, settings: Mapping[str, Any]) -> None:
    """Refuse a file of answers of other settings.

    Raises:
        OtherSettings: says what differs.
    """
    if not answers.exists() or not answers.stat().st_size:
        return
    stored = settings_path(answers)
    if not stored.exists():
        raise OtherSettings(f"{answers} exists, but not its settings {stored.name}; delete it or choose another --out.")
    if changes := difference(read_json(stored), settings):
        raise OtherSettings(f"{answers} was made with other settings: {changes}. Choose another --out, or delete it.")


def difference(there: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """The fields in which stored settings and these differ, as one sentence; "" where they are equal."""
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


def rows_of(out: str | Path, benchmark: str, decoder: str, examples: Sequence[Example]) -> list[Row]:
    """The rows of all examples, in their order.

    Raises:
        ValueError: some are missing.
    """
    path = answers_path(out, benchmark, decoder)
    rows = {row["id"]: row for row in read_rows(path)}
    missing = [e.id for e in examples if e.id not in rows]
    if missing:
        raise ValueError(
            f"{path} lacks {len(missing)} of {len(examples)} answers, such as {missing[0]!r}; run it again."
        )
    return [rows[e.id] for e in examples]


@contextmanager
def continued(
    answers: Path, settings: Mapping[str, Any], order: Sequence[str]
) -> Iterator[tuple[set[str], Callable[[Sequence[Row]], None]]]:
    """Continue a file of answers, or begin it: gives the ids of its rows, and a function that appends rows.

    A half-written last line and rows with an error are removed, so that both are tried again. At the end the rows stand
    in the order of `order`.

    Raises:
        OtherSettings: the file was begun with other settings.
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
    """Replace the file's content, if it differs."""
    text = "".join(map(_line, rows))
    if not answers.exists() or answers.read_bytes() != text.encode():
        write_text(answers, text)


def _line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"
