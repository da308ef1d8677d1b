"""Progress bars with images/s and time left, on standard error so that output can be piped."""

from __future__ import annotations

import datetime
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

EVERY = 60.0  # seconds between two lines where there is no terminal
# Hears of every step of every bar: title, percent, and how far in words. `flows.prefect.artifacts` shows them.
LISTENER: ContextVar[Callable[[str, float, str], None] | None] = ContextVar("listener", default=None)


class Speed(ProgressColumn):
    """Units a second since the bar began; "12.3 images/s"."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        fresh, seconds = task.completed - task.fields["done"], task.finished_time or task.elapsed
        speed = fresh / seconds if seconds else 0.0
        shown = "–" if not speed else f"{speed:.3g}" if speed < 100 else f"{speed:.0f}"
        return Text(f"{shown} {self.unit}/s", style="progress.data.speed")


@contextmanager
def progress(
    title: str, total: int, unit: str, done: int = 0, passing: bool = False, errors: int | None = None
) -> Iterator[Callable[..., None]]:
    """A bar for `total` units, `done` of which are there already; gives what advances it, by units and errors.

    Where standard error is no terminal there is no bar, but a line per minute, and one when it is finished.

    Args:
        passing: leave nothing behind; for a bar beside output that matters more.
        errors: how many there are already; None shows no number of errors.
    """
    console = Console(stderr=True)
    beside = sys.stdout.isatty()  # otherwise output goes elsewhere, and must not be caught
    columns: tuple[ProgressColumn, ...] = (
        TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), MofNCompleteColumn(), Speed(unit),
        TimeRemainingColumn(compact=True), TimeElapsedColumn(),
    )  # fmt: skip
    if errors is not None:
        columns = (*columns, TextColumn("{task.fields[errors]} errors", style="red"))
    hidden = passing and not console.is_terminal
    with Progress(*columns, console=console, transient=passing, redirect_stdout=beside, disable=hidden) as bar:
        task = bar.add_task(title, total=total, completed=done, done=done, errors=errors)
        last = time.monotonic()

        def advance(count: int, bad: int = 0) -> None:
            nonlocal last
            bar.update(task, advance=count, errors=(bar.tasks[0].fields["errors"] or 0) + bad)
            if not console.is_terminal and not hidden and time.monotonic() - last >= EVERY:
                last = time.monotonic()
                print(_line(title, bar.tasks[0], unit), file=sys.stderr, flush=True)
            if listener := LISTENER.get():
                so_far = bar.tasks[0]
                listener(title, so_far.percentage, f"{so_far.completed:.0f} of {total} {unit}")

        yield advance


def _line(title: str, task: Task, unit: str) -> str:
    """How far a bar is, for a log: "captions: 320 of 1,000 images, 2 errors, 3.41 images/s, 0:03:19 left"."""
    fresh, seconds = task.completed - task.fields["done"], task.elapsed or 0.0
    speed = fresh / seconds if seconds else 0.0
    parts = [f"{title}: {task.completed:,.0f} of {task.total or 0:,.0f} {unit}"]
    if task.fields["errors"] is not None:
        parts.append(f"{task.fields['errors']} errors")
    if speed:
        left = datetime.timedelta(seconds=round(((task.total or 0) - task.completed) / speed))
        parts += [f"{speed:.3g} {unit}/s", f"{left} left"]
    return ", ".join(parts)
