"""What one run carries out: which models are in a run at this moment."""

from __future__ import annotations

from typing import Any

BUSY: set[int] = set()  # models with a run in progress: hooks belong to one run at a time


def refuse_if_busy(model: Any) -> None:
    """Raise RuntimeError if the model is in a run with methods in place."""
    if id(model) in BUSY:
        raise RuntimeError(
            f"{type(model).__name__} is already in a run with methods in place; "
            "finish that run first, or load the model a second time"
        )
