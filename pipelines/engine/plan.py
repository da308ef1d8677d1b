"""What one run carries out: which models are in a run at this moment, and of which thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

BUSY: set[int] = set()  # models with methods in place: hooks belong to one run at a time
OWNERS: dict[int, int] = {}  # models that a run prepares or decodes with -> its thread
_CLAIM = threading.Lock()


def refuse_if_busy(model: Any) -> None:
    """Raise RuntimeError if the model is in a run with methods in place, or in any run of another thread."""
    if id(model) in BUSY or OWNERS.get(id(model), threading.get_ident()) != threading.get_ident():
        raise RuntimeError(
            f"{type(model).__name__} is already in a run with methods in place; "
            "finish that run first, or load the model a second time"
        )


@contextmanager
def claimed(model: Any) -> Iterator[None]:
    """Within this block no other thread can start a run of the model; raises as `refuse_if_busy`."""
    with _CLAIM:
        refuse_if_busy(model)
        first = id(model) not in OWNERS
        OWNERS[id(model)] = threading.get_ident()
    try:
        yield
    finally:
        if first:
            del OWNERS[id(model)]
