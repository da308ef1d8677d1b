"""Large files from the web: what is there is kept, the rest is asked for, and nothing takes its place unchecked.

A file grows as NAME.partial; NAME.partial.json says from which version at the server it is, so that the rest is asked
for with Range and If-Range, and another version starts anew. Only when size and digest are right is it renamed.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import atomic
from .downloads import DownloadFailed

CHUNK, TIMEOUT, TRIES = 1 << 18, 60.0, 4
PAUSE = 1.0  # seconds before the second try, twice as many before each further one
MD5 = re.compile(r'"([0-9a-f]{32})"')  # the ETag of a file that was stored in one piece
RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")
Advance = Callable[[int], None]


@dataclass(frozen=True)
class Expected:
    """What a file must be. size: bytes, if known. sha256: if published. limit: bytes that are never exceeded."""

    size: int | None = None
    sha256: str | None = None
    limit: int = 1 << 30


class _Gone(Exception):
    """A failure that another try does not mend."""


def download(
    url: str, out: Path, expected: Expected = Expected(), advance: Advance = lambda count: None, tries: int = TRIES
) -> str:
    """Write the file behind a URL to `out`, going on with what is there of it. Returns its SHA-256.

    Args:
        url: http or https.
        advance: called with every number of bytes that comes in.
        tries: in a row that bring nothing.

    Raises:
        DownloadFailed: no connection, an answer other than the file, or another content than expected; what has come
            in stays for the next time, unless it is wrong.
    """
    if not url.lower().startswith(("http://", "https://")):
        raise DownloadFailed(f"{url} is no http or https address")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    state = out.with_name(out.name + ".partial.json")
    failures, why = 0, ""
    while failures < tries:
        before = _size(partial)
        try:
            tag = _more(url, partial, state, expected, advance)
            break
        except _Gone as error:
            raise DownloadFailed(f"{url} could not be fetched: {error}") from None
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in atomic._FULL:
                raise
            failures = 1 if _size(partial) > before else failures + 1
            why = str(error) or type(error).__name__
            if failures < tries:
                time.sleep(PAUSE * 2 ** (failures - 1))
    else:
        raise DownloadFailed(
            f"{url} could not be fetched ({why}); {_size(partial):,} bytes of it are there, the same command goes on"
        )
    found = _check(url, partial, expected, tag)
    os.replace(partial, out)
    atomic._sync_folder(out.parent)
    state.unlink(missing_ok=True)
    return found


def _more(url: str, partial: Path, state: Path, expected: Expected, advance: Advance) -> str | None:
    """Append what is missing. Returns the file's ETag."""
    there, tag = _size(partial), _tag(state, url)
    request = urllib.request.Request(url, headers={"User-Agent": "veridical", "Accept-Encoding": "identity"})
    if there and tag:
        request.add_header("Range", f"bytes={there}-")
        request.add_header("If-Range", tag)
    try:
        answer: Any = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and there:  # all of it is there already, or it is longer than the file
            if error.headers.get("Content-Range") == f"bytes */{there}":
                return tag
            partial.unlink()
            raise ConnectionError("the server has less than what is here; it is fetched anew") from None
        if error.code >= 500 or error.code == 429:
            raise ConnectionError(f"the server answered {error.code}") from None
        raise _Gone(f"the server answered {error.code} ({error.reason})") from None
    with answer:
        start, total = _range(answer, there)
        if total is not None and total > expected.limit:
            raise _Gone(f"it has {total:,} bytes; at most {expected.limit:,} are taken")
        tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        if not start:
            atomic.write_json(state, {"url": url, "tag": None if tag is None or tag.startswith("W/") else tag})
        with partial.open("ab" if start else "wb") as file:
            here = start
            while part := answer.read(CHUNK):
                here += len(part)
                if here > expected.limit:
                    raise _Gone(f"it has more than {expected.limit:,} bytes")
                file.write(part)
                advance(len(part))
            file.flush()
            os.fsync(file.fileno())
        if total is not None and here < total:
            raise ConnectionError(f"the connection ended {total - here:,} bytes too early")
    return tag


def _range(answer: Any, there: int) -> tuple[int, int | None]:
    """(where what comes begins, size of the whole file)."""
    if answer.status == 206:
        told = RANGE.fullmatch(answer.headers.get("Content-Range") or "")
        if told is None or int(told[1]) != there:
            raise _Gone(f"the server was asked for the bytes from {there} on and sent {told and told[0]!r}")
        return there, int(told[2])
    length = answer.headers.get("Content-Length")
    return 0, None if length is None else int(length)


def _check(url: str, partial: Path, expected: Expected, tag: str | None) -> str:
    """The SHA-256 of a file that is what it must be; another one is deleted."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with partial.open("rb") as file:
        while part := file.read(CHUNK):
            sha256.update(part)
            md5.update(part)
    found, named = sha256.hexdigest(), MD5.fullmatch(tag or "")
    size = _size(partial)
    wrong = ""
    if expected.size is not None and size != expected.size:
        wrong = f"it has {size:,} bytes, not {expected.size:,}"
    elif expected.sha256 is not None and found != expected.sha256:
        wrong = f"its SHA-256 is {found[:12]}…, not {expected.sha256[:12]}…"
    elif expected.sha256 is None and named and md5.hexdigest() != named[1]:
        wrong = f"its MD5 is {md5.hexdigest()[:12]}…, and the server says {named[1][:12]}…"
    if wrong:
        partial.unlink()
        raise DownloadFailed(f"{url} is not the published file: {wrong}; it was deleted, and can be fetched again")
    return found


def _tag(state: Path, url: str) -> str | None:
    """The version of which the partial file is; None where that is not known."""
    try:
        told = json.loads(state.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return told.get("tag") if isinstance(told, dict) and told.get("url") == url else None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
