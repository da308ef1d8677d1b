"""Rows of a Parquet file of captions, such as `caption --out` writes, and the file of captions in such a folder."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

NAME = "captions"  # of the file inside the folder of a job
KINDS = (".parquet", ".jsonl", ".csv", ".json")


def file_of(path: Path) -> Path:
    """The file of captions inside a folder that `caption --out` wrote; any other path as it is."""
    inside = [path / f"{NAME}{kind}" for kind in KINDS]
    return next((file for file in inside if file.is_file()), path)


def parquet_rows(path: Path, columns: Collection[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, row), of those of the columns that the file has; cells without a value are left out.

    Raises:
        ValueError: no Parquet file.
    """
    import pyarrow
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(columns=[name for name in file.schema_arrow.names if name in columns]):
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", {name: cell for name, cell in row.items() if cell is not None}
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path} is no Parquet file ({str(error).splitlines()[0]}).") from error
