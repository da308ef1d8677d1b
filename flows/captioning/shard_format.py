"""Rows of captions as the bytes of a Parquet or JSON-lines file, and back; the same rows are always the same bytes."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..files import atomic
from .exports import coco_file, csv_file

Row = dict[str, Any]
COLUMNS = ("id", "path", "sha256", "decoder", "caption", "tokens", "risk", "acted", "error", "settings")
_GROUP = 16384  # rows of a row group of the merged file


def encode(rows: Sequence[Row], form: str) -> bytes:
    """The content of a file, as Parquet or, for every other format, JSON lines."""
    if form != "parquet":
        return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows).encode()
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(_table(rows), sink, compression="zstd")
    return sink.getvalue()


def read(path: Path) -> list[Row]:
    """The rows of a file, in its order."""
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
    import pyarrow.parquet as pq

    rows = pq.read_table(path).to_pylist()
    for row in rows:
        row["risk"] = dict(row["risk"])
        row["acted"] = {name: dict(counts) for name, counts in row["acted"]}
    return rows


def known_settings(folder: Path) -> str | None:
    """The beginning of the SHA-256 over the settings under which a folder's shards were made; None without any."""
    for path in sorted(folder.glob("[0-9]*.*")):
        try:
            return str(read(path)[0]["settings"])
        except (OSError, ValueError, KeyError, IndexError):  # damaged: another shard knows it
            continue
    return None


def errors(path: Path) -> int:
    """How many rows of a file have an error."""
    if path.suffix == ".jsonl":
        return sum(row["error"] is not None for row in read(path))
    import pyarrow.parquet as pq

    column = pq.read_table(path, columns=["error"])["error"]
    return len(column) - column.null_count


@contextmanager
def merging(path: Path, flat: Sequence[str] = ()) -> Iterator[Callable[[Sequence[Row]], None]]:
    """Gives what adds rows to one large file, which is there when the block has ended. flat: columns, of CSV alone."""
    if path.suffix in (".csv", ".json"):
        with csv_file(path, flat) if path.suffix == ".csv" else coco_file(path) as add:
            yield add
        return
    if path.suffix == ".jsonl":
        with atomic.replacing(path) as file:

            def append(rows: Sequence[Row]) -> None:
                file.write(encode(rows, "jsonl"))

            yield append
        return
    import pyarrow.parquet as pq

    waiting: list[Row] = []
    with atomic.replacing(path) as file, pq.ParquetWriter(file, _schema(), compression="zstd") as writer:

        def flush(least: int) -> None:
            while waiting and len(waiting) >= least:
                writer.write_table(_table(waiting[:_GROUP]))
                del waiting[:_GROUP]

        def collect(rows: Iterable[Row]) -> None:
            waiting.extend(rows)
            flush(_GROUP)

        yield collect
        flush(0)


def _table(rows: Sequence[Row]) -> Any:
    import pyarrow as pa

    return pa.Table.from_pylist([_nested(row) for row in rows], schema=_schema())


def _nested(row: Row) -> Row:
    acted = [(name, list(counts.items())) for name, counts in row["acted"].items()]
    return {**row, "risk": list(row["risk"].items()), "acted": acted}


def _schema() -> Any:
    import pyarrow as pa

    text, number = pa.string(), pa.float64()
    types = {
        "tokens": pa.list_(text), "risk": pa.map_(text, pa.list_(number)),
        "acted": pa.map_(text, pa.map_(text, number)),
    }  # fmt: skip
    return pa.schema([(name, types.get(name, text)) for name in COLUMNS])
