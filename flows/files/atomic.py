"""Files that are there whole or not at all, also after a power cut, and logs of checked lines.

Every write is followed by an fsync of the file, and every rename by one of the folder.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

CHECK = "check"  # the field of a line that holds its checksum
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DiskFull(OSError):
    """There is no room for a file; the message says which. What was written before it is unharmed."""


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to that takes the place of `path` when the block ends without an exception.

    Raises:
        DiskFull: no room. The old file, if there was one, is still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with _room(path):
        try:
            with partial.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
        _sync_folder(path.parent)


def write(path: Path, content: bytes) -> str:
    """Write a file. Returns the SHA-256 of its content."""
    with replacing(path) as file:
        file.write(content)
    return hashlib.sha256(content).hexdigest()


def write_json(path: Path, content: Any) -> None:
    write(path, (json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def write_text(path: Path, text: str) -> None:
    write(path, text.encode())


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        FileNotFoundError, ValueError: no such file, or no JSON in it (with the line).
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; is {path.parent} the folder of an evaluation?")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: line {error.lineno} is not JSON ({error.msg}).") from error
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply for any file of ours.") from error


def append(path: Path, record: Mapping[str, Any]) -> None:
    """Add a line to a log of JSON lines, with its checksum; half a line at its end is cut off first.

    Processes on one machine take turns.
    """
    line = _checked_line(record)
    with _room(path), path.open("a+b") as file, _alone(file):
        end = _whole(file)
        file.truncate(end)
        try:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):
                os.truncate(path, end)
            raise
    _sync_folder(path.parent)


class Lines(NamedTuple):
    """A log as it was read. records: of its good lines, without their checksums. bad: numbers of the others, from 1."""

    records: list[dict[str, Any]]
    bad: list[int]


def lines(path: Path) -> Lines:
    """The complete lines of a log. A line whose checksum is another, or that is no JSON object, is bad.

    Lines without a checksum, as earlier versions wrote them, are good.
    """
    if not path.exists():
        return Lines([], [])
    found = Lines([], [])
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        record = _record(line)
        if record is None:
            found.bad.append(number)
        else:
            found.records.append(record)
    return found


def rewrite(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write a log anew, with these lines."""
    write(path, b"".join(map(_checked_line, records)))


def digest(path: Path) -> str | None:
    """SHA-256 of a file's content; None if it is not there."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def sweep(folder: Path) -> None:
    """Delete what killed processes left half written in a folder."""
    for path in folder.glob(".*.partial"):
        path.unlink(missing_ok=True)


# -- helpers -------------------------------------------------------------------------------------------------------
def _checked_line(record: Mapping[str, Any]) -> bytes:
    return (_json({**record, CHECK: _checksum(record)}) + "\n").encode()


def _record(line: bytes) -> dict[str, Any] | None:
    """What a line holds; None if it is bad."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    checksum = record.pop(CHECK, None)
    return record if checksum in (None, _checksum(record)) else None


def _checksum(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(_json(record).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _json(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False, allow_nan=False)


@contextmanager
def _room(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise DiskFull(
            error.errno, f"no room to write {path.name} in {path.parent} ({error.strerror}). Nothing that was finished "
            "is lost: make room and start the same command again"
        ) from error  # fmt: skip


@contextmanager
def _alone(file: BinaryIO) -> Iterator[None]:
    """Wait for the file and keep it until it is closed, where the system has flock."""
    with suppress(ImportError):
        import fcntl

        fcntl.flock(file.fileno(), fcntl.LOCK_EX)
    yield


def _whole(file: BinaryIO) -> int:
    """Where the last complete line ends."""
    here = file.seek(0, os.SEEK_END)
    while here:
        start = max(0, here - 65536)
        file.seek(start)
        found = file.read(here - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        here = start
    return 0


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # which cannot open folders
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
