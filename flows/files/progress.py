"""Progress bars with images/s and time left, on standard error so that output can be piped."""

from __future__ import annotations

import sys
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

    Where standard error is no terminal there is no bar, only a line when it is finished.

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

        def advance(count: int, bad: int = 0) -> None:
            bar.update(task, advance=count, errors=(bar.tasks[0].fields["errors"] or 0) + bad)
            if listener := LISTENER.get():
                so_far = bar.tasks[0]
                listener(title, so_far.percentage, f"{so_far.completed:.0f} of {total} {unit}")

        yield advance
