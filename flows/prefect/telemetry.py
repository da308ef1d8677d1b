"""What Prefect hears of a run: sent by a thread of its own that no job waits for. What gets lost is counted and named.

An outage of Prefect's server costs a run seconds and none of its results. Importing this module imports no Prefect.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any

EVERY = 5.0  # seconds between two reports
PAUSE = 60.0  # seconds without a report after one that failed
PATIENCE = 5.0  # seconds that the end of a run waits for its last report
_BRIEF = {"PREFECT_CLIENT_MAX_RETRIES": 1, "PREFECT_API_REQUEST_TIMEOUT": 10.0, "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": 60}


class TelemetryLost(UserWarning):
    """Prefect could not be told something about a run."""


class Reporter:
    """Sends the latest state of each bar, the first and the last at once.

    Args:
        send: takes title, percent and text; its exceptions count as losses.

    Attributes:
        lost: reports that were not taken. why: the last reason.
    """

    def __init__(self, send: Callable[[str, float, str], None]) -> None:
        self.lost, self.why = 0, ""
        self._send, self._known = send, dict[str, float]()
        self._waiting: dict[str, tuple[float, str]] = {}
        self._news, self._ended, self._lock = threading.Event(), threading.Event(), threading.Lock()
        self._thread: threading.Thread | None = None

    def __call__(self, title: str, percent: float, text: str) -> None:
        with self._lock:
            self._waiting[title] = percent, text
        if title not in self._known or percent >= 100:
            self._known[title] = percent
            self._news.set()
        if self._thread is None:
            self._thread = threading.Thread(target=copy_context().run, args=(self._work,), daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Send what is waiting, for a few seconds; warn if reports were lost."""
        if self._thread is None:
            return
        self._ended.set()
        self._news.set()
        self._thread.join(PATIENCE)
        with self._lock:
            under_way = max(len(self._waiting), self._thread.is_alive())
            lost, why = self.lost + under_way, self.why or "it did not answer"
        if lost:
            text = f"Prefect did not take {lost} reports of progress ({why}); the run itself is not affected"
            warnings.warn(text, TelemetryLost, stacklevel=2)

    def _work(self) -> None:
        with brief(0):
            while not self._ended.is_set():
                self._news.wait(EVERY)
                self._news.clear()
                if not self._all_sent() and not self._ended.is_set():
                    self._ended.wait(PAUSE)
            self._all_sent()

    def _all_sent(self) -> bool:
        """Send what is waiting; False if that failed."""
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        for title, (percent, text) in waiting.items():
            try:
                self._send(title, percent, text)
            except Exception as error:  # whatever the server's trouble is, the numbers are on disk
                with self._lock:
                    self.lost += len(waiting)
                    self.why = f"{type(error).__name__}: {error}".partition("\n")[0]
                return False
        return True


@contextmanager
def brief(retries: int | None = None) -> Iterator[None]:
    """Prefect's client with short time limits for a block, where the user has set no others.

    By its own defaults a call to a server that is gone is tried for more than a minute, and the end of a run makes
    several. Flow runs also emit heartbeats, by which an automation finds those that were killed.
    """
    from prefect import settings

    now, changes = settings.get_current_settings().to_environment_variables(exclude_unset=True), {}
    for name, value in _BRIEF.items():
        if name not in now and hasattr(settings, name):
            changes[getattr(settings, name)] = value
    if retries is not None:
        changes[settings.PREFECT_CLIENT_MAX_RETRIES] = retries
    with settings.temporary_settings(changes):
        yield


def is_outage(error: BaseException) -> bool:
    """Whether an exception says that Prefect's server cannot be reached or does not work.

    A run that Prefect itself refuses or cancels is none.
    """
    status = getattr(getattr(error, "response", None), "status_code", 0)
    transport = type(error).__module__.startswith(("httpx", "httpcore")) and not status
    return transport or status >= 500 or "Failed to reach API" in str(error)


def is_reachable(url: str) -> bool:
    """Whether a Prefect server answers at an address, asked once."""
    import httpx

    try:
        return httpx.get(f"{url}/health", timeout=3).status_code == 200
    except httpx.HTTPError:
        return False


# -- the end of the process ----------------------------------------------------------------------------------------
_gone: list[str] = []


def give_up(url: str) -> None:
    """Note that a server is gone, so that `leave` does not wait for what Prefect still has to send there."""
    _gone.append(url)


def leave(code: int) -> None:
    """End this process at once if a server is gone: at its exit Prefect would try to send every event that is left."""
    if _gone:
        os._exit(code)


def current() -> dict[str, Any] | None:
    """Id, name and server of the flow run that this is part of; None outside of one."""
    from prefect.context import FlowRunContext
    from prefect.settings import PREFECT_API_URL

    context = FlowRunContext.get()
    run = None if context is None else context.flow_run
    return None if run is None else {"id": str(run.id), "name": run.name, "api": PREFECT_API_URL.value()}
