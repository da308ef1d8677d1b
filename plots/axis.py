"""The axis that a figure is drawn on, and colours that are told apart in every kind of colour vision."""

from __future__ import annotations

import importlib.util
from typing import Any

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito's


def require() -> None:
    """Raise ImportError, with what to do, where matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ImportError("figures are drawn by matplotlib, which is not installed: pip install 'veridical[plots]'.")


def axis_of(ax: Any) -> Any:
    """The given axis; without one, pyplot's current one.

    Raises:
        ImportError: matplotlib is not installed.
    """
    require()
    if ax is not None:
        return ax
    from matplotlib import pyplot

    return pyplot.gca()
