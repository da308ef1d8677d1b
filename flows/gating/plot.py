"""The curve of a gate as a Markdown table and as an image."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from ...plots.axis import require
from ...plots.gate import gate_curve
from ..evaluation.text import interval

Row = Mapping[str, Any]


def markdown(found: Mapping[str, Any], image: str) -> str:
    """The measurement in words, a table and the image."""
    test, validation, rows = found["test"], found["validation"], found["rows"]
    lines = [
        "# Gating", "",
        "Hallucination against the share of steps at which a decoder may act, written by", "",
        "```bash", found["command"], "```", "",
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


def figure(found: Mapping[str, Any]) -> Any:
    """A matplotlib figure with one panel per decoder.

    Raises:
        ImportError: matplotlib is not installed; says how to install it.
    """
    require()
    from matplotlib.figure import Figure

    decoders = found["decoders"]
    columns = min(2, len(decoders))
    lines = (len(decoders) + 1) // 2
    drawn = Figure(figsize=(4.2 * columns, 3.0 * lines + 0.4), layout="constrained")
    axes = drawn.subplots(lines, columns, sharey=True, squeeze=False).flatten()
    for ax, decoder in zip(axes, decoders, strict=False):
        gate_curve(found, decoder, ax)
    for ax in axes[len(decoders) :]:
        ax.set_visible(False)
    drawn.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return drawn


def svg(found: Mapping[str, Any]) -> str:
    """The figure as SVG: the same text for the same figures."""
    drawn, file = figure(found), io.StringIO()
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "veridical", "svg.fonttype": "none"}):
        drawn.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def _gated(rows: Sequence[Row], decoder: str) -> list[Row]:
    return [row for row in rows if row["decoder"] == decoder and row["detector"] is not None]


def _line(row: Row) -> str:
    gate = f"`{row['detector']}`" if row["detector"] else "–" if row["share"] is None else "ungated"
    threshold = "–" if row["threshold"] is None else f"{row['threshold']:.4g}"
    share = interval(row["share"])
    left = interval(row["kept"], ".2f")
    cells = [gate, threshold, share, interval(row["chair_i"]), left, interval(row["chair_s"]), interval(row["recall"])]
    return f"| `{row['decoder']}` | " + " | ".join(cells) + f" | {row['length']['value']:.1f} |"
