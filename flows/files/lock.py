"""One process at a time in a folder: `filelock`'s lock, and a note that says who holds it.

The lock is the kernel's, on the open file, so that it ends with its process however that ends: a lock that the system
gives is ours, whatever an earlier process has left written. On a file system without such locks a lock file takes its
place, which a killed process of another machine can leave behind.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from . import atomic

NAME, HOLDER, SOFT = "lock", "lock.json", "lock.soft"
_UNSUPPORTED = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS)


class InUse(OSError):
    """Another process works in the folder; the message says which and where."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder for the length of a block.

    A folder that is made for it and stays empty, since a request was refused, is removed.

    Raises:
        InUse: one is in there. DiskFull: no room for the lock. OSError: nothing can be written there, and why.
    """
    holder, fresh = folder / HOLDER, not folder.exists()
    lock = _acquired(folder)
    try:
        with contextlib.suppress(OSError):  # a full disk must not keep a job from saying what it lacks room for
            holder.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}), "utf-8")
        yield
    finally:
        with contextlib.suppress(OSError):
            holder.unlink(missing_ok=True)
            if fresh and {path.name for path in folder.iterdir()} <= {NAME, SOFT}:
                (folder / NAME).unlink(missing_ok=True)
        lock.release()  # the file stays where something was written: deleting it would let two in
        with contextlib.suppress(OSError):
            if fresh:
                folder.rmdir()


def _acquired(folder: Path) -> BaseFileLock:
    """The kernel's lock on the folder; where the file system has none, a lock file."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            return _taken(FileLock(folder / NAME))
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
        return _taken(SoftFileLock(folder / SOFT))
    except Timeout as error:
        remedy = "wait for it, stop it, or choose another --out"
        if Path(error.lock_file).name == SOFT:
            remedy += f"; if you know that it does not run any more, delete {error.lock_file}"
        raise InUse(f"{folder} is in use by {_who(folder / HOLDER)}; {remedy}") from None
    except OSError as error:
        if error.errno in atomic.FULL:
            raise atomic.DiskFull(
                error.errno, f"no room for the lock of {folder} ({error.strerror}). Nothing that was finished is lost: "
                "make room and start the same command again"
            ) from error  # fmt: skip
        reason = "a file is in its place" if folder.is_file() else str(error.strerror).lower()
        raise OSError(f"nothing can be written in {folder} ({reason}); choose another --out") from error


def _taken(lock: BaseFileLock) -> BaseFileLock:
    lock.acquire(timeout=0)
    return lock


def _who(holder: Path) -> str:
    found: Any = {}
    with contextlib.suppress(ValueError, OSError):
        found = json.loads(holder.read_text("utf-8"))
    found = found if isinstance(found, dict) else {}
    return f"process {found.get('pid', '?')} on {found.get('host', '?')} since {found.get('since', '?')}"


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
