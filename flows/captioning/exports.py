"""The merged captions in formats of other programs: CSV for spreadsheets, and COCO's results for its evaluation."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...metrics.captions_file import image_id
from ..files import atomic

Row = dict[str, Any]
PLAIN = ("id", "path", "sha256", "decoder", "caption", "error")
NESTED = ("tokens", "risk", "acted")  # as JSON in a cell


@contextmanager
def csv_file(path: Path) -> Iterator[Callable[[Sequence[Row]], None]]:
    """Gives what adds rows to a CSV file, which is there when the block has ended."""
    with atomic.replacing(path) as file:

        def write(lines: Sequence[Sequence[Any]]) -> None:
            sink = io.StringIO()
            csv.writer(sink, lineterminator="\n").writerows(lines)
            file.write(sink.getvalue().encode())

        def add(rows: Sequence[Row]) -> None:
            as_json = lambda row: [json.dumps(row[name], ensure_ascii=False) for name in NESTED]
            write([[*(row[name] for name in PLAIN), *as_json(row)] for row in rows])

        write([[*PLAIN, *NESTED]])
        yield add


@contextmanager
def coco_file(path: Path) -> Iterator[Callable[[Sequence[Row]], None]]:
    """As `csv_file`, an array of {image_id, caption, decoder}; images without a caption are left out."""
    with atomic.replacing(path) as file:
        start = b"[\n"

        def add(rows: Sequence[Row]) -> None:
            nonlocal start
            for row in rows:
                if row["error"] is None:
                    result = {"image_id": image_id(row["id"]), "caption": row["caption"], "decoder": row["decoder"]}
                    file.write(start + json.dumps(result, ensure_ascii=False).encode())
                    start = b",\n"

        yield add
        file.write(b"[]\n" if start == b"[\n" else b"\n]\n")
