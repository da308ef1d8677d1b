"""Hallucination against recall: fewer wrong objects are worth little where fewer right ones are left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .axis import COLOURS, axis_of

PLANES: Mapping[str, tuple[str, str]] = {"chair": ("chair_i", "recall"), "amber": ("chair", "cover")}


def hallucination_recall(
    results: Sequence[Mapping[str, Any]] | str | Path, benchmark: str = "chair", ax: Any = None
) -> Any:
    """A point per decoder with both 95 % intervals; down and to the right is better. Returns the axis.

    x: recall, the share of the objects there that are named; y: CHAIR_i, the share of named objects that are not there
    (on AMBER its cover and chair). A number beside a decoder's name is its time per image in units of the first one's.

    Args:
        results: the records of results.json, or the folder of an evaluation.

    Raises:
        ValueError: a benchmark without both figures, or one that was not run. FileNotFoundError: no results.json.
    """
    import json

    named = isinstance(results, str | Path)
    every: Any = json.loads((Path(str(results)) / "results.json").read_text("utf-8")) if named else results
    if benchmark not in PLANES:
        raise ValueError(f"{benchmark!r} has no hallucination and recall to draw; possible: {', '.join(PLANES)}.")
    records = [record for record in every if record["benchmark"] == benchmark]
    if not records:
        there = ", ".join(dict.fromkeys(record["benchmark"] for record in every))
        raise ValueError(f"the results have no {benchmark!r}; they have {there or 'nothing'}.")
    ax, (wrong, found) = axis_of(ax), PLANES[benchmark]
    first = records[0].get("seconds_per_image") or 0
    for number, record in enumerate(records):
        x, y = record["metrics"][found], record["metrics"][wrong]
        ends = [[[abs(cell["value"] - cell[end])] for end in ("low", "high")] for cell in (x, y)]
        cost = f" ({record['seconds_per_image'] / first:.1f}×)" if first else ""
        ax.errorbar(
            x["value"], y["value"], xerr=ends[0], yerr=ends[1], fmt="o", color=COLOURS[number % len(COLOURS)],
            elinewidth=1, capsize=2, label=record["decoder"] + cost,
        )  # fmt: skip
    ax.set_xlabel(f"{found} (more is better)")
    ax.set_ylabel(f"{wrong} (less is better)")
    ax.legend(frameon=False, fontsize=8)
    return ax
