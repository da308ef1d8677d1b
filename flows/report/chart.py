"""The figure at the top of a report: a point per decoder, with intervals and cost, as coordinates for the template."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ...plots.plane import PLANES

WIDTH, HEIGHT = 640, 380
LEFT, RIGHT, TOP, BOTTOM = 70, 190, 20, 50  # margins; names stand on the right
SPACE = 17  # between two names
COSTS = (1.25, 1.75, 2.5, 4.0)  # times the cheapest, where the colour changes

Record = Mapping[str, Any]


def chart(benchmark: str, headline: str, records: Sequence[Record], higher: Mapping[str, bool]) -> dict[str, Any]:
    """Hallucination over recall where a benchmark has both; otherwise its first figure, a line per decoder.

    records: of results.json, of one benchmark.
    """
    wrong, found = PLANES.get(benchmark, ("", headline))
    if not all(name in record["metrics"] for record in records for name in (wrong, found) if name):
        wrong, found = "", headline
    known = [one for one in records if _drawable(one, wrong, found)]
    cells = {name: [one["metrics"][name] for one in known] for name in (wrong, found) if name}
    across = _scale(cells[found], LEFT, WIDTH - RIGHT)
    up = _scale(cells[wrong], HEIGHT - BOTTOM, TOP) if wrong else None
    cheapest = min((one["seconds_per_image"] for one in known), default=0) or 1
    points = []
    for number, record in enumerate(known):
        x = record["metrics"][found]
        y = record["metrics"][wrong] if wrong else None
        row = TOP + (HEIGHT - TOP - BOTTOM) * (number + 0.5) / max(len(known), 1)
        cost = record["seconds_per_image"] / cheapest
        points.append({
            "name": record["decoder"], "cost": cost, "colour": sum(cost > edge for edge in COSTS),
            "x": across["at"](x["value"]), "left": across["at"](x["low"]), "right": across["at"](x["high"]),
            "y": up["at"](y["value"]) if up and y else row, "low": up["at"](y["low"]) if up and y else None,
            "high": up["at"](y["high"]) if up and y else None, "of_x": x, "of_y": y,
        })  # fmt: skip
    _place_names(points)
    sides = {"x": found, "y": wrong}
    return {
        "benchmark": benchmark, "points": points, "width": WIDTH, "height": HEIGHT,
        "frame": {"left": LEFT, "right": WIDTH - RIGHT, "top": TOP, "bottom": HEIGHT - BOTTOM},
        "x_ticks": across["ticks"], "y_ticks": up["ticks"] if up else [],
        **{f"{side}_name": _named(name, higher) for side, name in sides.items()},
    }  # fmt: skip


def _drawable(record: Record, *names: str) -> bool:
    cells = [record["metrics"].get(name) for name in names if name]
    return all(c and all(c[part] is not None for part in ("value", "low", "high")) for c in cells)


def _named(name: str, higher: Mapping[str, bool]) -> str:
    better = {True: " (more is better)", False: " (less is better)", None: ""}[higher.get(name)]
    return name + better if name else ""


def _scale(cells: Sequence[Record], start: float, end: float) -> dict[str, Any]:
    """A linear axis from pixel to pixel that holds every interval, with about five round ticks."""
    low = min((cell["low"] for cell in cells), default=0.0)
    high = max((cell["high"] for cell in cells), default=1.0)
    width = (high - low) or 0.1
    low, high = low - 0.06 * width, high + 0.06 * width
    rough = (high - low) / 5
    step = 10 ** math.floor(math.log10(rough))
    step *= next(factor for factor in (1, 2, 5, 10) if factor * step >= rough)
    at = lambda value: round(start + (end - start) * (value - low) / (high - low), 1)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    ticks = [step * n for n in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return {"at": at, "ticks": [(at(tick), f"{tick:.{digits}f}") for tick in ticks]}


def _place_names(points: Sequence[dict[str, Any]]) -> None:
    """Names in a column on the right, in the order of their points, none on another."""
    line = TOP - SPACE
    for point in sorted(points, key=lambda point: point["y"]):
        line = max(line + SPACE, point["y"])
        point["line"] = line
    over = line - (HEIGHT - BOTTOM)
    for point in points:
        point["line"] = round(point["line"] - max(over, 0), 1)
