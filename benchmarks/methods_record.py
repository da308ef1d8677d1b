"""docs/methods.json: what benchmarks/methods_table.py measured, a row per setting; docs/methods.md is written from it.

A setting that is measured again takes its row's place and all others stay, so that one more method needs no other run
but plain decoding's. Each row keeps the p of its differences from plain decoding, by which the verdicts of a column
hold together.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from methods_table import CHOSEN, FIRST, GREEDY, GRID, RECORD, SECOND, TIMES, figures, folder_of, labelled

from veridical.flows.evaluation.request import RESULTS
from veridical.flows.files import atomic
from veridical.flows.scoring import compare
from veridical.metrics import compare as metrics
from veridical.metrics.estimate import Estimate

COLUMNS = {  # heading -> benchmark, table, figure, whether higher is better
    "CHAIR_i": ("chair", "", "chair_i", False),
    "CHAIR_i at equal length": ("chair", "at equal length", "chair_i", False),
    "recall": ("chair", "", "recall", True), "adversarial accuracy": ("pope", "adversarial", "accuracy", True),
}  # fmt: skip
KEPT = {
    "chair": ("chair_s", "chair_i", "recall", "length", "repetition"),
    "pope": ("accuracy", "random_accuracy", "popular_accuracy", "adversarial_accuracy", "f1", "yes_ratio"),
}
Record = dict[str, Any]


@dataclass(frozen=True)
class Difference:
    """Of a setting from plain decoding; without its interval where the page never had it."""

    value: float
    low: float | None
    high: float | None
    verdict: str


def read(path: Path = RECORD) -> Record:
    return atomic.read_json(path) if path.exists() else {"models": {}}


def write(path: Path, record: Record) -> None:
    """With a value and its interval in one line, so that a change of a figure is a line of a comparison."""
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
    atomic.write_text(path, re.sub(r"\[[^][{}]*\]", lambda found: " ".join(found[0].split()), text) + "\n")


def rows(record: Record, model: str, benchmark: str) -> dict[str, dict[str, Any]]:
    """setting -> its row, in the order of the table."""
    found = record["models"].get(model, {}).get(benchmark, {})
    return {setting: found[setting] for _, setting, _ in labelled(record.get("tried", {})) if setting in found}


def column(record: Record, model: str, heading: str) -> Mapping[str, Difference]:
    """setting -> its difference from plain decoding.

    The verdicts of the differences with a p hold together (Holm). One without a p, from a run before this file kept
    them, has the verdict that it got among those of its time.
    """
    benchmark, _, _, higher = COLUMNS[heading]
    found = {
        setting: row["differences"][heading]
        for setting, row in rows(record, model, benchmark).items() if heading in row["differences"]
    }  # fmt: skip
    tested = {
        setting: metrics.Comparison(
            0.0, 0.0, Estimate(one["value"], one["low"], one["high"], one["n"]), higher, one["p"],
            differing=one["differing"],
        )
        for setting, one in found.items() if "p" in one
    }  # fmt: skip
    judged = dict(zip(tested, metrics.together(list(tested.values())), strict=True))
    return {
        setting: Difference(
            one["value"], one.get("low"), one.get("high"),
            judged[setting].verdict if setting in judged else one["verdict"],
        )
        for setting, one in found.items()
    }  # fmt: skip


def row_of(out: Path, setting: str, benchmark: str, model: str) -> dict[str, Any]:
    """A setting's row from its folder of results and that of plain decoding."""
    folder = folder_of(out, setting, "test", benchmark, model)
    found = figures(folder)
    row: dict[str, Any] = {
        "figures": {key: [round(found[key][end], 5) for end in ("value", "low", "high")] for key in KEPT[benchmark]},
        "differences": {},
    }
    if setting == GREEDY:
        return row
    (plain,) = compare.of_folder(folder_of(out, GREEDY, "test", benchmark, model))
    (mine,) = compare.of_folder(folder)
    tables = compare.pair(plain, mine).tables
    for heading, (of, title, figure, _) in COLUMNS.items():
        if of == benchmark:
            one = tables[title][figure]
            row["differences"][heading] = {**vars(one.difference), "p": one.p, "differing": one.differing}
    return row


def add(record: Record, out: Path) -> list[str]:
    """Put what a folder of results holds into the record; the rows that came into it."""
    if (out / CHOSEN).exists():
        record["tried"] = atomic.read_json(out / CHOSEN)
    added = []
    for model in (FIRST, SECOND):
        for benchmark in KEPT:
            table = record["models"].setdefault(model, {}).setdefault(benchmark, {})
            for setting in [one for tried in GRID.values() for one in tried]:
                if (folder_of(out, setting, "test", benchmark, model) / RESULTS).exists():
                    table[setting] = row_of(out, setting, benchmark, model)
                    added.append(f"{model} {benchmark} {setting}")
    if (out / TIMES).exists():
        record["times"] = atomic.read_json(out / TIMES)
    return added
