"""Warnings of a run: each different one reaches the caller once, however many batches, decoders and shards raise it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

_SHOWN: dict[str, set[tuple[str, str]]] = {}  # folder of a run -> (category, text)


def begin_run(out: str | Path) -> None:
    """A new run in this folder: what an earlier one warned of is warned of again."""
    _SHOWN.pop(os.path.abspath(out), None)


@contextmanager
def once_per_run(out: str | Path) -> Iterator[None]:
    """Hand on each different warning of the block unless the run has shown it; out: the run's folder.

    `NeverActed` is left out, because the rows of a run have how often each method acted.
    """
    from ...pipelines.generate import NeverActed

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", NeverActed)
        yield
    for one in caught:
        if _is_new(out, one.message):
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


def warn_once(out: str | Path, found: Iterable[Warning]) -> None:
    """Show warnings that another process of the run has raised, unless the run has shown them."""
    for one in found:
        if _is_new(out, one):
            warnings.warn(one, stacklevel=3)


def _is_new(out: str | Path, warning: Warning | str) -> bool:
    shown, key = _SHOWN.setdefault(os.path.abspath(out), set()), (type(warning).__name__, str(warning))
    new = key not in shown
    shown.add(key)
    return new
