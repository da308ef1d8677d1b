"""The runs of a scheduled evaluation: a folder each, and a log that says which of them were good."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from ..files import atomic
from ..prefect import cache_key
from . import regression, steps
from .regression import Checked, Regression
from .request import MANIFEST, RESULTS, Evaluation

HISTORY, CHECKED = "history.jsonl", "checked.json"
PLAIN = steps.Steps()


def run_name(moment: datetime.datetime, mark: str = "") -> str:
    """A run's folder: when it was due, in UTC, and whose it is; sorted by name they are in order.

    >>> run_name(datetime.datetime(2026, 3, 1, 3, 0, tzinfo=datetime.UTC), "1f2e")
    '2026-03-01T03-00-00Z-1f2e'
    """
    shown = moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    return f"{shown}-{mark}" if mark else shown


def last_good(out: Path) -> Path | None:
    """The latest run that was not worse than the one before it, or that was accepted; None if there is none."""
    good = [line["run"] for line in _lines(out) if line["good"]]
    there = [out / name for name in good if (out / name / RESULTS).is_file()]
    return there[-1] if there else None


def accept(out: Path) -> Path:
    """Make the latest run the one that later runs are compared with, although it was worse. Returns its folder.

    Raises:
        ValueError: there is no run, or it was good anyway.
    """
    lines = _lines(out)
    if not lines:
        raise ValueError(f"{out} holds no run of `veridical schedule evaluate`.")
    if lines[-1]["good"]:
        raise ValueError(f"the latest run, {lines[-1]['run']}, is good already.")
    atomic.append(out / HISTORY, {**lines[-1], "good": True, "accepted": _shown(now())})
    return out / str(lines[-1]["run"])


def run(out: str, name: str, request: Evaluation, parts: steps.Steps = PLAIN) -> Checked:
    """Evaluate into a folder of its own, compare it with the last good run, and note the result.

    Args:
        out: where the runs of this schedule are. name: this one's folder in it; one that is there is continued.
        request: of the evaluation. parts: its steps, plain or as tasks.

    Raises:
        as `steps.evaluation`. ValueError: the log of earlier runs, or the one to compare with, is damaged.
    """
    folder = Path(out) / name
    if (baseline := last_good(Path(out))) is not None:  # before hours of answers that could not be compared
        for file in (RESULTS, MANIFEST):
            atomic.read_json(baseline / file)
    steps.evaluation(request, str(folder), parts)
    checked = regression.check(folder, last_good(Path(out)))
    atomic.write_json(folder / CHECKED, checked.record())
    atomic.append(Path(out) / HISTORY, {
        "run": name, "finished": _shown(now()), "good": checked.good, "code": cache_key.code_version()[:16],
        "against": checked.baseline and Path(checked.baseline).name, "worse": checked.reasons,
    })  # fmt: skip
    return checked


def refuse(checked: Checked) -> None:
    """Raise what is wrong with a run.

    Raises:
        Regression: it is worse than the last good one.
    """
    if not checked.good:
        name = Path(checked.baseline or "").name
        raise Regression(f"worse than {name}, the last good run: {'; '.join(checked.reasons)}")


def _lines(out: Path) -> list[dict[str, Any]]:
    """The runs of a schedule, in order.

    Raises:
        ValueError: a line that is damaged; a bad run could become the baseline if it were left out.
    """
    records, bad = atomic.lines(out / HISTORY)
    if bad:
        raise ValueError(f"{out / HISTORY}: line {bad[0]} is damaged or was changed by hand; delete it.")
    return records


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _shown(moment: datetime.datetime) -> str:
    return moment.isoformat(timespec="seconds")
