"""What operators watch a job by: a log of JSON lines, figures for Prometheus, a sign of life; and what stops it.

Nothing of this decides a caption, so none of it is part of a job's settings.
"""

from __future__ import annotations

import datetime
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import atomic

LEVELS = ("debug", "info", "warning", "error")
LEAST = 20  # images that are done before their share of errors can stop a job
_LOGGER = logging.getLogger("veridical.captioning")
_PACKAGE = logging.getLogger("veridical")
PREFIX = "veridical_caption_"
_last_sign = time.monotonic()


class JobStopped(RuntimeError):
    """A limit of the operator's was passed; the message says which."""


@dataclass(frozen=True)
class Watch:
    """How a job is watched. Each field is off by default.

    Args:
        log_file: JSON lines are added to it. log_level: the least severe that are.
        metrics_file: images, errors, speed and time left in Prometheus' text format, for the node exporter.
        heartbeat_file: its time is that of the last batch.
        max_error_share: errors among the images of this run above which it stops.
        stall_timeout: seconds without a batch after which the process ends.
    """

    log_file: str | None = None
    log_level: str = "info"
    metrics_file: str | None = None
    heartbeat_file: str | None = None
    max_error_share: float | None = None
    stall_timeout: float | None = None

    def check(self) -> None:
        """
        Raises:
            ValueError: a level that does not exist, or a limit out of range.
        """
        if self.log_level not in LEVELS:
            raise ValueError(f"no log level {self.log_level!r}. Known: {', '.join(LEVELS)}.")
        if self.max_error_share is not None and not 0 <= self.max_error_share <= 1:
            raise ValueError(f"max_error_share={self.max_error_share} is outside 0 to 1 (errors among the images)")
        if self.stall_timeout is not None and self.stall_timeout <= 0:
            raise ValueError(f"stall_timeout={self.stall_timeout} is not above 0 (seconds)")


UNWATCHED = Watch()


def sign_of_life() -> None:
    """To be called after every batch, in whichever thread."""
    global _last_sign
    _last_sign = time.monotonic()


class Watched:
    """A job under watch. done: images that are finished; errors: rows without a caption."""

    def __init__(self, watch: Watch, total: int, done: int, errors: int) -> None:
        self.watch, self.total, self.done, self.errors = watch, total, done, errors
        self._start, self._began, self._rows, self._fresh_errors = done, time.monotonic(), 0, 0

    def advance(self, shard: int, images: int, rows: int, errors: int) -> None:
        """Count a shard.

        Raises:
            JobStopped: too large a share of this run's rows are errors.
        """
        sign_of_life()
        self.done, self.errors, self._rows = self.done + images, self.errors + errors, self._rows + rows
        self._fresh_errors += errors
        log("shard", {"shard": shard, "errors_of_shard": errors, **self.figures()})
        self.report()
        most = self.watch.max_error_share
        if most is not None and self._rows >= LEAST and self._fresh_errors > most * self._rows:
            raise JobStopped(
                f"{self._fresh_errors} of {self._rows} rows of this run are errors, a larger share than "
                f"--max-error-share {most:g}: is every disk mounted? The shards say what failed; --retry-errors "
                "captions those images again"
            )

    def figures(self) -> dict[str, float]:
        """Images done and in all, errors, and where they are known images per second of this run and seconds left."""
        known: dict[str, float] = {"images_done": self.done, "images_total": self.total, "errors": self.errors}
        seconds, fresh = time.monotonic() - self._began, self.done - self._start
        if fresh and seconds:
            left = (self.total - self.done) * seconds / fresh
            known |= {"images_per_second": round(fresh / seconds, 4), "seconds_left": round(left, 1)}
        return known

    def report(self, finished: bool = False) -> None:
        """Write the figures for Prometheus and the sign of life; a job does not stop for want of them."""
        if self.watch.heartbeat_file:
            with suppress(OSError):
                atomic.write(Path(self.watch.heartbeat_file), f"{_now()}\n".encode())
        if self.watch.metrics_file:
            figures = {**self.figures(), "finished": int(finished), "written_timestamp_seconds": round(time.time(), 3)}
            lines = [f"# TYPE {PREFIX}{name} gauge\n{PREFIX}{name} {value}\n" for name, value in figures.items()]
            with suppress(OSError):
                atomic.write(Path(self.watch.metrics_file), "".join(lines).encode())


@contextmanager
def watching(watch: Watch, total: int, done: int, errors: int) -> Iterator[Watched]:
    """Watch a job for the length of a block."""
    watched, ended = Watched(watch, total, done, errors), threading.Event()
    handler = _Json(watch.log_file) if watch.log_file else None
    before = _PACKAGE.level
    if handler is not None:
        handler.setLevel(watch.log_level.upper())
        _PACKAGE.addHandler(handler)
        _PACKAGE.setLevel(min(before or logging.WARNING, handler.level))
    if watch.stall_timeout is not None:
        sign_of_life()
        threading.Thread(target=_end_if_stalled, args=(watch.stall_timeout, ended), daemon=True).start()
    log("started", watched.figures())
    watched.report()
    try:
        yield watched
    except BaseException as error:
        reason = f"{type(error).__name__}: {error}"
        log("stopped", {"reason": reason, **watched.figures()}, logging.ERROR)
        raise
    else:
        log("finished", watched.figures())
        watched.report(finished=True)
    finally:
        ended.set()
        if handler is not None:
            _PACKAGE.removeHandler(handler)
            _PACKAGE.setLevel(before)
            handler.close()


def log(event: str, fields: Mapping[str, Any], level: int = logging.INFO) -> None:
    """Write an event of a job to the log."""
    _LOGGER.log(level, "%s", event, extra={"fields": dict(fields)})


# -- helpers -------------------------------------------------------------------------------------------------------
class _Json(logging.FileHandler):
    """Records as JSON lines."""

    def __init__(self, path: str) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        super().__init__(path, encoding="utf-8")

    def format(self, record: logging.LogRecord) -> str:
        line = {"time": _now(), "level": record.levelname.lower(), "event": record.getMessage(),
                "logger": record.name, **getattr(record, "fields", {})}  # fmt: skip
        return json.dumps(line, ensure_ascii=False, default=str)


def _end_if_stalled(seconds: float, ended: threading.Event) -> None:
    """End this process if nothing happens for so long: a call that hangs in a driver cannot be interrupted."""
    while not ended.wait(min(1.0, seconds / 4)):
        quiet = time.monotonic() - _last_sign
        if quiet > seconds:
            reason = f"no batch was finished for {quiet:.0f} s, longer than --stall-timeout {seconds:g}"
            log("stalled", {"reason": reason}, logging.ERROR)
            print(f"Error: {reason}. What was finished is kept; the same command goes on.", file=sys.stderr, flush=True)
            os._exit(1)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
