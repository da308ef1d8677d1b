"""Prefect artifacts of a run: a report, a table, a link to the HTML page, and its progress.

Artifacts are for people who look: where Prefect cannot take one, that is logged and the run goes on. Importing this
module imports Prefect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.context import FlowRunContext, TaskRunContext
from prefect.logging import get_logger

from ..evaluation import regression, request
from ..files.progress import LISTENER
from . import telemetry

REPORT, TABLE, LINK = "evaluation-report", "evaluation-table", "evaluation-html"


def publish(run: Path, checked: regression.Checked | None = None, reports: str | None = None) -> None:
    """The report and the table of a finished run, and a link to its HTML page.

    Args:
        checked: how it compares with an earlier run, if it was compared.
        reports: the address under which the folder above the run's is served, such as "https://host/reports/"; None
            links to the file, which only a browser on this machine can open.
    """
    if not _in_a_run():
        return
    page = run.resolve() / request.REPORT
    link = page.as_uri() if reports is None else f"{reports.rstrip('/')}/{run.name}/{request.REPORT}"
    with _tolerant("report"):
        create_markdown_artifact(regression.markdown(run, checked), REPORT, str(run))
    with _tolerant("table"):
        create_table_artifact(regression.table(run), TABLE, str(run))
    with _tolerant("link"):
        create_link_artifact(link, request.REPORT, LINK, str(run))


@contextmanager
def progressing() -> Iterator[None]:
    """Show the bars of a block in Prefect too, an artifact each."""
    if not _in_a_run():
        yield
        return
    reporter = telemetry.Reporter(_Bars())
    token = LISTENER.set(reporter)
    try:
        yield
    finally:
        LISTENER.reset(token)
        reporter.close()


class _Bars:
    """Shows each bar as an artifact."""

    def __init__(self) -> None:
        self._numbers: dict[str, UUID] = {}

    def __call__(self, title: str, percent: float, text: str) -> None:
        if (number := self._numbers.get(title)) is not None:
            update_progress_artifact(number, percent, f"{title}: {text}")
        else:
            created = create_progress_artifact(percent, description=f"{title}: {text}")
            self._numbers[title] = cast(UUID, created)  # a coroutine only inside an event loop


@contextmanager
def _tolerant(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever the server's trouble is, the numbers are on disk
        get_logger("veridical").warning("Prefect did not take the %s artifact: %s", what, error)


def _in_a_run() -> bool:
    return FlowRunContext.get() is not None or TaskRunContext.get() is not None


def watched(step: Callable[..., Any]) -> Callable[..., Any]:
    """A step whose bars are shown in Prefect too, in whichever process it runs."""
    @wraps(step)
    def shown(*arguments: Any, **named: Any) -> Any:
        with progressing():
            return step(*arguments, **named)

    return shown
