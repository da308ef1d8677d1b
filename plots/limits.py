"""What an object's size, place or occlusion does to accuracy and hallucination, a line per decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .axis import COLOURS, axis_of


def limit_curve(results: Sequence[Mapping[str, Any]], factor: str, figure: str = "accuracy", ax: Any = None) -> Any:
    """A figure of the benchmark `limits` at every level of a factor, with its intervals. Returns `ax`.

    Args:
        results: records of `results.json`, as `veridical evaluate --benchmark limits` writes them.
        factor: size, place, occlusion, number, distractors or background.
        figure: accuracy, hit_rate, false_alarm_rate, caption_recall or chair_i; count_accuracy of the number.

    Raises:
        ValueError: no record of the benchmark, or a factor or figure that it does not have.
        ImportError: matplotlib is not installed.
    """
    records = [one for one in results if one["benchmark"] == "limits"]
    front = f"{factor}_{figure}_"
    levels = [name.removeprefix(front) for name in (records[0]["metrics"] if records else ()) if name.startswith(front)]
    levels = [level for level in levels if not level.startswith("change_")]
    if not levels:
        raise ValueError(f"no {figure} by {factor} in {len(records)} results of the benchmark limits.")
    ax = axis_of(ax)
    try:
        places = [float(level) for level in levels]
    except ValueError:
        places = [float(place) for place in range(len(levels))]
    width = (max(places) - min(places)) * 0.012
    for at, record in enumerate(records):
        cells = [record["metrics"][front + level] for level in levels]
        values = [cell["value"] for cell in cells]
        ends = [[abs(cell["value"] - cell[end]) for cell in cells] for end in ("low", "high")]
        beside = [place + (at - (len(records) - 1) / 2) * width for place in places]
        ax.errorbar(
            beside, values, yerr=ends, color=COLOURS[at % len(COLOURS)], label=record["decoder"], marker="o",
            markersize=3, linewidth=1.5, elinewidth=0.8,
        )  # fmt: skip
    ax.set_xticks(places, levels)
    ax.set_ylim(0, 1)
    ax.set_xlabel(factor)
    ax.set_ylabel(figure)
    return ax
