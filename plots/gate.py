"""Hallucination against the share of steps that a gate lets a decoder act on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .axis import COLOURS, axis_of

Row = Mapping[str, Any]


def gate_curve(found: Mapping[str, Any], decoder: str, ax: Any = None) -> Any:
    """One decoder's CHAIR_i over the share of steps acted on, a line per detector with its intervals. Returns `ax`.

    found: what `veridical gate-curve` measures and keeps as JSON: `rows` with share and chair_i as value, low and high,
        and the names of `detectors`.

    Raises:
        ValueError: a decoder that was not measured.
    """
    rows = found["rows"]
    plain = next(row for row in rows if row["share"] is None)
    ungated = [row for row in rows if row["decoder"] == decoder and row["detector"] is None and row["share"]]
    if not ungated:
        measured = dict.fromkeys(row["decoder"] for row in rows if row["share"] is not None)
        raise ValueError(f"the curve has no decoder {decoder!r}; it has {', '.join(measured)}.")
    ax = axis_of(ax)
    for row, name in ((plain, "plain"), (ungated[0], "ungated")):
        level = row["chair_i"]["value"]
        ax.axhline(level, color="0.55", linestyle="--", linewidth=1)
        ax.annotate(f"{name} {level:.3f}", (1, level), ha="right", va="bottom", color="0.35", fontsize=8)
    for number, detector in enumerate(found["detectors"]):
        points = sorted([(0.0, plain), *_points(rows, decoder, detector)], key=lambda point: point[0])
        shares, cells = [share for share, _ in points], [row["chair_i"] for _, row in points]
        values, colour = [cell["value"] for cell in cells], COLOURS[number % len(COLOURS)]
        ax.plot(shares, values, color=colour, linewidth=2, label=detector)
        ends = [[abs(cell["value"] - cell[end]) for cell in cells[1:]] for end in ("low", "high")]
        ax.errorbar(shares[1:], values[1:], yerr=ends, fmt="o", markersize=4, color=colour, elinewidth=1, alpha=0.7)
    ax.set_title(decoder, loc="left", fontsize=10, fontweight="bold")
    ax.set_xlim(0, 1)
    ax.xaxis.set_major_formatter("{x:.0%}")
    ax.set_xlabel("share of steps acted on")
    ax.set_ylabel("CHAIR_i")
    return ax


def _points(rows: Sequence[Row], decoder: str, detector: str) -> list[tuple[float, Row]]:
    return [(row["share"]["value"], row) for row in rows if (row["decoder"], row["detector"]) == (decoder, detector)]
