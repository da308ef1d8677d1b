"""What went wrong, in one message: bad input exits with 2, anything unexpected with 1, a traceback only on request."""

from __future__ import annotations

import errno
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from .terminal import echo

BAD_INPUT, UNEXPECTED, STOPPED = 2, 1, 130
_STOPS = ("ModelFailed", "DiskFull", "JobStopped")  # by name, so that showing help imports neither
_USAGE: Any = next(cls for cls in typer.BadParameter.__mro__ if cls.__name__ == "ClickException")


class Reported(TyperGroup):
    """A group of commands whose failures become one message on standard error."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, _USAGE):
            raise
        except BrokenPipeError:  # whoever read our output has seen enough
            sys.stderr.close()
            raise typer.Exit(0) from None
        except KeyboardInterrupt:
            kept = "What was written stays; evaluate, caption --out and train-embedded can go on from it."
            typer.echo(f"Stopped. {kept}", err=True)
            raise typer.Exit(STOPPED) from None
        except Exception as error:
            if ctx.params.get("debug"):
                raise
            message, code = explain(error)
            echo(f"Error: {message}", err=True)
            raise typer.Exit(code) from None


def explain(error: Exception) -> tuple[str, int]:
    """The message for an exception, and the exit code.

    ValueError, OSError and LookupError with a sentence are how this package reports bad input; a bare KeyError or
    IndexError, and anything else, is our mistake or the machine's. What stops a job says by itself how it goes on.
    """
    text = str(error).strip() or type(error).__name__
    if type(error).__name__ in _STOPS:
        return getattr(error, "strerror", None) or text, UNEXPECTED
    if isinstance(error, OSError) and error.errno is not None and text.startswith("[Errno"):
        return _of_the_system(error), BAD_INPUT
    if isinstance(error, RecursionError) and _in_json(error):
        return "a JSON file is nested too deeply; no file that is read here has more than a few levels.", BAD_INPUT
    if isinstance(error, UnicodeDecodeError):
        return f"a file is no UTF-8 text (byte {error.start}: {error.reason}); save it as UTF-8.", BAD_INPUT
    named = type(error) not in (KeyError, IndexError) and isinstance(error, ValueError | OSError | LookupError)
    if named and not isinstance(error, UnicodeError):
        return text, BAD_INPUT
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
        return f"out of memory ({text.splitlines()[0]}). Use a smaller --batch-size.", UNEXPECTED
    if type(error).__module__.startswith(("prefect.", "httpx")) or "Failed to reach API" in text:
        return f"Prefect failed: {text.splitlines()[0]} `--no-prefect` runs the same without it.", UNEXPECTED
    if isinstance(error, ImportError) and "pip install 'veridical[" in text:  # an extra that is not installed
        return text, BAD_INPUT
    hint = "`veridical --debug …` shows where; please report it."
    return f"unexpected {type(error).__name__}: {text.splitlines()[0]} ({hint})", UNEXPECTED


def _in_json(error: BaseException) -> bool:
    """Whether an exception is raised by Python's JSON reader."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return place is not None and place.tb_frame.f_globals.get("__name__", "").startswith("json.")


def _of_the_system(error: OSError) -> str:
    """What the operating system refused, as a sentence."""
    where = f"{error.filename}" if error.filename else "a file"
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return f"{where} is needed as a folder, but a file is in its place: choose another --out."
    if error.errno == errno.EISDIR:
        return f"{where} is a folder where a file is needed: name a file in it."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        reason = "it is on a read-only file system" if error.errno == errno.EROFS else "permission is denied"
        return f"{where} cannot be read or written, because {reason}: choose another place, or change its permissions."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no room is left for {where}: free some space, or choose another --out. What was written stays."
    if error.errno == errno.ENOENT:
        return f"{where} does not exist: check the path."
    return f"{where} cannot be used ({error.strerror})."


@contextmanager
def notes() -> Iterator[None]:
    """Print each different warning of this package once, as a note on standard error; keep others quiet.

    So is each hyper-parameter that a method takes from its paper because of the model.
    """
    picked, log = _Kept(), logging.getLogger("veridical.pipelines.per_model")
    texts: dict[str, None] = {}

    def keep(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
    ) -> None:  # fmt: skip
        if category.__module__.startswith("veridical."):  # the libraries' would pile up over a million images
            texts[str(message)] = None

    before = log.level
    log.addHandler(picked)
    log.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = keep
            yield
    finally:
        log.removeHandler(picked)
        log.setLevel(before)
    for text in dict.fromkeys([*picked.messages, *texts]):
        echo(f"note: {text}", err=True)


class _Kept(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def hush(debug: bool) -> None:
    """Keep the libraries underneath from talking over our output."""
    import os

    if debug:
        return
    for name, value in {
        "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
        "PREFECT_LOGGING_LEVEL": "CRITICAL", "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120", "DASK_LOGGING__DISTRIBUTED": "error",
    }.items():  # fmt: skip
        os.environ.setdefault(name, value)


def hush_transformers() -> None:
    """No bars while weights load; to be called where transformers is about to be used."""
    import transformers

    transformers.logging.disable_progress_bar()
