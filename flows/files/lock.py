"""One process at a time in a folder: a lock file that says who, and that a killed process cannot leave behind.

The lock is the kernel's, on the open file, so that it ends with its process however that ends. What is written in the
file tells the next one who it is, and covers shared file systems on which the kernel's lock does not reach other
machines: there the file's time has to keep moving.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAME = "lock"
BEAT, SILENT = 30.0, 600.0  # seconds between signs of life, and without one until another machine's lock is stale


class InUse(OSError):
    """Another process works in the folder; the message says which and where."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder for the length of a block.

    Raises:
        InUse: one is in there. OSError: nothing can be written there, and why.
    """
    path = folder / NAME
    with _opened(path) as file:
        taken = _taken(file)
        if taken is False:
            raise InUse(f"{folder} is in use by {_who(path)}; wait for it, stop it, or choose another --out")
        owner = _owner(path)
        quiet = time.time() - path.stat().st_mtime
        elsewhere = owner.get("host") != socket.gethostname() or taken is None
        if owner and elsewhere and quiet < SILENT:
            raise InUse(
                f"{folder} was in use by {_who(path)} {quiet:.0f} s ago, and this machine cannot see whether it still "
                f"runs; try again in {SILENT - quiet:.0f} s, or delete {path} if you know that it does not"
            )
        _write(file, {"pid": os.getpid(), "host": socket.gethostname(), "since": _now()})
        done = threading.Event()
        heart = threading.Thread(target=_beat, args=(path, done), daemon=True)
        heart.start()
        try:
            yield
        finally:
            done.set()
            heart.join()
            _write(file, None)  # the file stays: deleting it would let two in


def _opened(path: Path) -> Any:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a+", encoding="utf-8")
    except OSError as error:
        raise OSError(f"nothing can be written in {path.parent} ({error.strerror}); choose another --out") from error


def _taken(file: Any) -> bool | None:
    """Whether the kernel's lock was free, and is ours now; None where there is no such lock."""
    try:
        import fcntl
    except ImportError:
        return None
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS):
            return None
        raise
    return True


def _owner(path: Path) -> dict[str, Any]:
    """What the file says; {} if nobody, or a writer that was killed while writing."""
    with contextlib.suppress(ValueError, OSError):
        found = json.loads(path.read_text(encoding="utf-8") or "{}")
        return found if isinstance(found, dict) else {}
    return {}


def _who(path: Path) -> str:
    owner = _owner(path)
    return f"process {owner.get('pid', '?')} on {owner.get('host', '?')} since {owner.get('since', '?')}"


def _write(file: Any, owner: dict[str, Any] | None) -> None:
    file.seek(0)
    file.truncate()
    file.write(json.dumps(owner) if owner else "")
    file.flush()


def _beat(path: Path, done: threading.Event) -> None:
    while not done.wait(BEAT):
        with contextlib.suppress(OSError):
            os.utime(path)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
