"""The merged captions in formats of other programs: CSV for spreadsheets, and COCO's results for its evaluation."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...metrics.captions_file import image_id
from ..evaluation.request import chain
from ..files import atomic
from .request import Captioning

Row = dict[str, Any]
PLAIN = ("id", "path", "sha256", "decoder", "caption", "error")
TOKENS = "tokens"  # as JSON in a cell, like each risk
COUNTS = ("steps", "acted", "flipped", "kl")


def flat_columns(request: Captioning, rows: Iterable[Row]) -> list[str]:
    """The columns `risk.<detector>` and `acted.<method>.<count>` of a job's CSV file.

    Those that the request promises come first, so that they are there without any caption; behind them what else the
    rows have, such as a procedure's own counts.
    """
    from ...pipelines.chain import name_of
    from ...pipelines.registry import DETECTORS

    methods = [name_of(method) for decoder in request.decoders for method in chain(decoder, request.model.name)]
    risks = {f"risk.{DETECTORS.name_of(one)}": None for one in DETECTORS.make_all(list(request.detectors))}
    acted = {f"acted.{method}.{count}": None for method in methods for count in COUNTS}
    for row in rows:
        risks.update(dict.fromkeys(f"risk.{name}" for name in row["risk"]))
        acted.update(dict.fromkeys(f"acted.{name}.{count}" for name, found in row["acted"].items() for count in found))
    return [*risks, *acted]


@contextmanager
def csv_file(path: Path, flat: Sequence[str]) -> Iterator[Callable[[Sequence[Row]], None]]:
    """Gives what adds rows to a CSV file, which is there when the block has ended. flat: as `flat_columns` gives it."""
    with atomic.replacing(path) as file:

        def write(lines: Sequence[Sequence[Any]]) -> None:
            sink = io.StringIO()
            csv.writer(sink, lineterminator="\n").writerows(lines)
            file.write(sink.getvalue().encode())

        def add(rows: Sequence[Row]) -> None:
            write([[*(row[name] for name in PLAIN), _json(row[TOKENS]), *map(_flat(row).get, flat)] for row in rows])

        write([[*PLAIN, TOKENS, *flat]])
        yield add


def _flat(row: Row) -> dict[str, Any]:
    """Each risk as JSON and each count as a number, under the names of their columns."""
    risks = {f"risk.{name}": _json(risk) for name, risk in row["risk"].items()}
    counts = {f"acted.{name}.{count}": n for name, found in row["acted"].items() for count, n in found.items()}
    return {**risks, **counts}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


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
