"""The tables that `veridical train-detector`, `evaluate-detectors` and `calibrate-detectors` print."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ...flows.detection.request import RESULTS
from ...flows.detection.table import cells, title
from ...flows.files.atomic import read_json
from .scores import plain_table

if TYPE_CHECKING:
    from ...flows.detection.calibrate import Judged


def results(out: Path) -> None:
    """Every detector with its figures and intervals, the best first."""
    found = read_json(out / RESULTS)
    head, *rows = cells(found)
    plain_table(title(found), head, rows)
    typer.echo(f"results: {out / RESULTS}")


def calibrated(found: Sequence[Judged]) -> None:
    """The calibration error of every detector's curves on images that they were not fitted on."""
    head = ["detector", "unit", "ECE ↓", "judged on", "mean probability − share"]
    rows = [
        [
            one.detector, one.unit, str(one.ece).split(" (")[0], f"{one.items} of {one.ece.n} images",
            f"{one.mean_error:+.3f}",
        ]
        for one in found
    ]  # fmt: skip
    plain_table("calibration", head, rows)
