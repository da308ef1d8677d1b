"""The curve of a gate as a Markdown table and as an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ..evaluation.text import interval

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM, LEGEND = 420, 300, 56, 34, 16, 44, 130
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")

Row = Mapping[str, Any]


def markdown(found: Mapping[str, Any], image: str) -> str:
    """The measurement in words, a table and the image."""
    test, validation, rows = found["test"], found["validation"], found["rows"]
    lines = [
        "# Gating", "",
        "Hallucination against the share of steps at which a decoder may act, written by", "",
        "```", found["command"], "```", "",
        f"Model {found['model']}; {test['images']} images of {test['split']}, greedy, at most "
        f"{found['max_new_tokens']} new tokens.",
        f"Thresholds: quantiles of each detector's risk over the tokens of plain captions of {validation['images']} "
        f"images of {validation['split']};", "the test images chose nothing. Intervals: 95 %, bootstrap by image "
        f"(n = {test['images']} throughout).", "",
        "*steps*: share of the steps at which the decoder acted. *kept*: share of the ungated decoder's CHAIR_i gain "
        "that is left,", "(plain − gated) / (plain − ungated); it says nothing where the ungated decoder gains none.",
        "", f"![CHAIR_i against the share of steps acted on]({image})", "",
        "| decoder | gate | θ | steps | CHAIR_i ↓ | kept | CHAIR_s ↓ | recall ↑ | length |",
        "|---|---|---|---|---|---|---|---|---|", *map(_line, rows), "", "## At 30 % of the steps", "", *verdicts(rows),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def verdicts(rows: Sequence[Row], most: float = 0.3, least: float = 0.8) -> list[str]:
    """For every decoder that gains: whether a gate within `most` of the steps keeps `least` of the gain, and which."""
    plain = next(row for row in rows if row["share"] is None)
    out = []
    for decoder in dict.fromkeys(row["decoder"] for row in rows if row["share"] is not None):
        ungated = next(row for row in rows if row["decoder"] == decoder and row["detector"] is None)
        gain = plain["chair_i"]["value"] - ungated["chair_i"]["value"]
        if gain <= 0:
            out.append(f"- `{decoder}`: ungated it gains nothing in CHAIR_i ({-gain:+.3f}); there is nothing to keep.")
            continue
        within = [
            row for row in _gated(rows, decoder) if row["share"]["value"] <= most and row["kept"]["value"] is not None
        ]
        if not within:
            out.append(f"- `{decoder}`: no gate stayed within {most:.0%} of the steps.")
            continue
        best = max(within, key=lambda row: row["kept"]["value"])
        kept, share = interval(best["kept"], ".2f"), best["share"]["value"]
        reached = "yes" if best["kept"]["value"] >= least else "no"
        limit = "" if reached == "no" or (best["kept"]["low"] or 0) >= least else ", though its interval reaches lower"
        out.append(
            f"- `{decoder}`: {reached}{limit}. `{best['detector']}` keeps {kept} of the gain of {gain:.3f} at "
            f"{share:.1%} of the steps."
        )
    return [*out, "", "The gate named is the best of those tried, on the images reported: read its neighbours too."]


def svg(found: Mapping[str, Any]) -> str:
    """One panel per decoder: CHAIR_i over the share of steps acted on, a line per detector with its intervals."""
    rows, decoders = found["rows"], found["decoders"]
    plain = next(row for row in rows if row["share"] is None)
    values = [row["chair_i"][end] for row in rows for end in ("low", "high")]
    low, high = min(values), max(values)
    low, high = (low - 0.01, high + 0.01) if high - low < 0.02 else (low, high)
    panels = [_panel(rows, plain, name, found["detectors"], low, high, at) for at, name in enumerate(decoders)]
    wide = max(WIDTH * min(2, len(decoders)), LEFT + LEGEND * len(found["detectors"]))
    tall = HEIGHT * ((len(decoders) + 1) // 2) + 26
    legend = "".join(
        f'<g transform="translate({LEFT + LEGEND * at},{tall - 10})"><line x2="18" y1="-4" y2="-4" stroke="'
        f'{COLOURS[at % len(COLOURS)]}" stroke-width="2"/><text x="24">{escape(name)}</text></g>'
        for at, name in enumerate(found["detectors"])
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {tall}" width="{wide}" height="{tall}" '
        'font-family="sans-serif" font-size="11" fill="#222"><rect width="100%" height="100%" fill="white"/>'
        + "".join(panels) + legend + "</svg>\n"
    )  # fmt: skip


def _panel(
    rows: Sequence[Row], plain: Row, decoder: str, detectors: Sequence[str], low: float, high: float, at: int
) -> str:
    x = lambda share: LEFT + share * (WIDTH - LEFT - RIGHT)
    y = lambda value: TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)
    ungated = next(row for row in rows if row["decoder"] == decoder and row["detector"] is None and row["share"])
    parts = [f'<text x="{LEFT}" y="{TOP - 14}" font-weight="bold">{escape(decoder)}</text>']
    for level, name in ((plain["chair_i"]["value"], "plain"), (ungated["chair_i"]["value"], "ungated")):
        parts.append(f'<line x1="{x(0)}" x2="{x(1)}" y1="{y(level):.1f}" y2="{y(level):.1f}" stroke="#888" '
                     f'stroke-dasharray="4 3"/><text x="{x(1) - 2}" y="{y(level) - 3:.1f}" text-anchor="end" '
                     f'fill="#666">{name} {level:.3f}</text>')  # fmt: skip
    for number, detector in enumerate(detectors):
        colour, line = COLOURS[number % len(COLOURS)], [(0.0, plain), *_points(rows, decoder, detector)]
        dots = sorted(line, key=lambda point: point[0])
        path = " ".join(f"{x(share):.1f},{y(row['chair_i']['value']):.1f}" for share, row in dots)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for share, row in dots[1:]:
            ends, title = row["chair_i"], f"{detector}, θ = {row['threshold']:.4g}: {share:.1%} of the steps"
            parts.append(
                f'<g stroke="{colour}"><title>{escape(title)}</title><line x1="{x(share):.1f}" x2="{x(share):.1f}" '
                f'y1="{y(ends["low"]):.1f}" y2="{y(ends["high"]):.1f}" opacity="0.4"/><circle cx="{x(share):.1f}" '
                f'cy="{y(ends["value"]):.1f}" r="3" fill="{colour}"/></g>'
            )
    parts += [f'<text x="{x(tick):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{tick:.0%}</text>'
              for tick in (0, 0.25, 0.5, 0.75, 1)]  # fmt: skip
    parts += [f'<text x="{LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.3f}</text>'
              for tick in (low, (low + high) / 2, high)]  # fmt: skip
    parts.append(f'<text x="{x(0.5)}" y="{HEIGHT - BOTTOM + 32}" text-anchor="middle">share of steps acted on</text>')
    frame = f'<path d="M{x(0)},{TOP} V{HEIGHT - BOTTOM} H{x(1)}" fill="none" stroke="#222"/>'
    return f'<g transform="translate({WIDTH * (at % 2)},{HEIGHT * (at // 2)})">{frame}{"".join(parts)}</g>'


def _gated(rows: Sequence[Row], decoder: str) -> list[Row]:
    return [row for row in rows if row["decoder"] == decoder and row["detector"] is not None]


def _points(rows: Sequence[Row], decoder: str, detector: str) -> list[tuple[float, Row]]:
    return [(row["share"]["value"], row) for row in _gated(rows, decoder) if row["detector"] == detector]


def _line(row: Row) -> str:
    gate = f"`{row['detector']}`" if row["detector"] else "–" if row["share"] is None else "ungated"
    threshold = "–" if row["threshold"] is None else f"{row['threshold']:.4g}"
    share = interval(row["share"])
    left = interval(row["kept"], ".2f")
    cells = [gate, threshold, share, interval(row["chair_i"]), left, interval(row["chair_s"]), interval(row["recall"])]
    return f"| `{row['decoder']}` | " + " | ".join(cells) + f" | {row['length']['value']:.1f} |"
