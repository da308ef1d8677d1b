"""Whether risks that claim to be probabilities are: the share of hallucinated words against what was claimed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .axis import COLOURS, axis_of


def reliability_diagram(bins: Sequence[Any], name: str = "", ax: Any = None) -> Any:
    """The share of hallucinated items over their mean risk, a point per bin with its interval. Returns the axis.

    On the dashed diagonal a risk of 0.3 means that three words in ten are hallucinated; below it risks are too high.
    The area of a point is proportional to the number of items in its bin. Guo et al., ICML 2017, arXiv 1706.04599.

    Args:
        bins: as `veridical.metrics.calibration.reliability` returns them: probability, count, and share with value,
            low and high. name: of the detector, for the legend.

    Raises:
        ValueError: no bins.
    """
    if not bins:
        raise ValueError("there are no bins to draw: give what metrics.calibration.reliability returns.")
    ax, total = axis_of(ax), sum(one.count for one in bins)
    x, shares = [one.probability for one in bins], [one.share for one in bins]
    y = [share.value for share in shares]
    ends = [[max(0.0, abs(share.value - getattr(share, end))) for share in shares] for end in ("low", "high")]
    ax.plot((0, 1), (0, 1), color="0.55", linestyle="--", linewidth=1)
    ax.errorbar(x, y, yerr=ends, fmt="none", color=COLOURS[0], elinewidth=1, capsize=2)
    ax.plot(x, y, color=COLOURS[0], linewidth=1, alpha=0.5)
    ax.scatter(x, y, s=[12 + 160 * one.count / total for one in bins], color=COLOURS[0], label=name or None, zorder=3)
    ax.set_xlim(-0.02, 1.02)
    ax.set_ylim(-0.02, 1.02)
    ax.set_xlabel("risk (mean of the bin)")
    ax.set_ylabel("share hallucinated")
    if name:
        ax.legend(frameon=False, fontsize=8)
    return ax
