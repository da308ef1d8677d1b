"""The table that `veridical train-detector` and `veridical evaluate-detectors` print."""

from __future__ import annotations

from pathlib import Path

import typer

from ...flows.detection.request import RESULTS
from ...flows.detection.table import cells, title
from ...flows.files.atomic import read_json
from .scores import plain_table


def results(out: Path) -> None:
    """Every detector with its figures and intervals, the best first."""
    found = read_json(out / RESULTS)
    head, *rows = cells(found)
    plain_table(title(found), head, rows)
    typer.echo(f"results: {out / RESULTS}")
