"""Prefect's temporary server as a process that ends with the one that started it, however that one ends.

Prefect's own is ended by an exit handler, which SIGKILL and SIGTERM pass by, and keeps the standard error of its
caller open. `running` starts this module as a program; it serves until the pipe that it was given is closed, which the
kernel does for any process that ends. Importing it imports no Prefect.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

APP = "prefect.server.api.server:create_app"
LOOPBACK = "127.0.0.1"
GRACE = 3.0  # seconds to close the database once its parent is gone


class ServerFailed(OSError):
    """The temporary server did not start; the message has its last line."""


@contextmanager
def running() -> Iterator[str]:
    """Prefect's temporary server for the length of a block, on a free port of this machine alone. Gives its address.

    It is in a session of its own, so that a terminal's Ctrl-C leaves it to a run's last report.

    Raises:
        ServerFailed: it ended, or was not ready in Prefect's own time limit.
    """
    from prefect.settings import PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS, get_current_settings

    here = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
    known = get_current_settings().to_environment_variables(exclude_unset=True)
    with tempfile.TemporaryFile() as trouble:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=trouble,
            env={**os.environ, **known, **here}, start_new_session=True,
        )  # fmt: skip
        try:
            yield _address(process, trouble, PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value())
        finally:
            _end(process)


def serve() -> None:
    """Serve Prefect's API until standard input is closed; its port is the first line of standard output."""
    import uvicorn

    listener = socket.socket()
    listener.bind((LOOPBACK, 0))  # here rather than in the parent: nobody can take the port in between
    server = uvicorn.Server(uvicorn.Config(APP, factory=True, log_level="error", lifespan="on"))
    threading.Thread(target=_end_with_parent, args=(server, os.getppid()), daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    os.dup2(2, 1)  # nobody reads what follows
    server.run(sockets=[listener])


# -- helpers -------------------------------------------------------------------------------------------------------
def _address(process: subprocess.Popen[bytes], trouble: IO[bytes], seconds: float) -> str:
    """The address of the server once it answers."""
    import httpx

    assert process.stdout is not None
    port, until = process.stdout.readline().strip().decode(), time.monotonic() + seconds
    url = f"http://{LOOPBACK}:{port}/api"
    if not port:  # it is ending, and how it ends is to be known
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
    while port and process.poll() is None and time.monotonic() < until:
        try:
            if httpx.get(f"{url}/health", timeout=5).status_code == 200:
                return url
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    trouble.seek(0)
    last = (trouble.read().decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
    why = f"was not ready in {seconds:g} s" if process.poll() is None else f"ended with {process.returncode}"
    raise ServerFailed(f"Prefect's temporary server {why} ({last}). `--no-prefect` runs the same without it.")


def _end(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    try:
        process.wait(GRACE + 2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _end_with_parent(server: Any, parent: int) -> None:
    """Wait until the pipe is closed or the parent is another; processes that the parent forked keep the pipe open."""
    if os.name == "nt":  # where a pipe cannot be waited for, and nothing forks
        sys.stdin.buffer.read()
    else:
        while os.getppid() == parent and not select.select([0], [], [], 1.0)[0]:
            pass
    server.should_exit = True
    time.sleep(GRACE)
    os._exit(0)


if __name__ == "__main__":
    serve()
