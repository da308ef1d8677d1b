"""Prefect's temporary server ends with the process that started it, whatever ends that one."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

# A caller that stops in the middle. In the server's process a small module stands in for uvicorn and answers.
CALLER = """
import os, sys, time
from veridical.flows.prefect import temporary_server
os.environ["PYTHONPATH"] = sys.argv[1]
with temporary_server.running() as url:
    if sys.argv[2] == "fork" and os.fork() == 0:
        os.close(1); os.close(2)
        time.sleep(600)
    print(url, flush=True)
    time.sleep(600 if sys.argv[2] != "end" else 0)
"""
UVICORN = """
import http.server
class Config:
    def __init__(self, app, **options): self.app = app
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self): self.send_response(200); self.end_headers()
    def log_message(self, *given): pass
class Server:
    should_exit = False
    def __init__(self, config): assert config.app == "prefect.server.api.server:create_app"
    def run(self, sockets):
        server = http.server.HTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
        server.socket.close()
        server.socket = sockets[0]
        server.server_activate()
        server.timeout = 0.1
        while not self.should_exit: server.handle_request()
"""
BROKEN = "raise RuntimeError('no room for a server')"


@pytest.fixture
def call(tmp_path):
    """Starts a caller; gives it, and the process of its server once that answers."""
    started = []

    def run(how, module=UVICORN):
        (tmp_path / "uvicorn.py").write_text(module, encoding="utf-8")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
        caller = subprocess.Popen(
            [sys.executable, "-P", "-c", CALLER, str(tmp_path), how], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env={**environment, "PREFECT_HOME": str(tmp_path / "home"), "DO_NOT_TRACK": "1"},
        )  # fmt: skip
        started.append(caller)
        url = caller.stdout.readline().strip()
        children = psutil.Process(caller.pid).children()
        return caller, url, [one for one in children if "-m" in one.cmdline()]

    yield run
    for caller in started:
        caller.kill()
        caller.wait()


def _open_file(process, number):
    return os.readlink(f"/proc/{process}/fd/{number}")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("how", ["wait", "fork"])
def test_a_caller_that_is_killed_leaves_no_server_behind_and_nobody_waits_for_its_output(call, number, how):
    """Also where the caller had forked, and its child holds the pipe."""
    caller, url, servers = call(how)
    assert url.startswith("http://127.0.0.1:")
    assert len(servers) == 1
    for descriptor in (1, 2):
        assert _open_file(servers[0].pid, descriptor) != _open_file(caller.pid, 2)
    forked = [one for one in psutil.Process(caller.pid).children() if one not in servers]
    began = time.monotonic()
    caller.send_signal(number)
    caller.communicate(timeout=10)  # would wait for whoever holds its standard error
    assert time.monotonic() - began < 5
    assert caller.returncode == -number
    _, alive = psutil.wait_procs(servers, timeout=20)
    for one in forked:
        one.kill()
    assert not alive
    assert len(forked) == (how == "fork")


def test_a_caller_that_ends_by_itself_ends_its_server(call):
    caller, _, servers = call("end")
    _, alive = psutil.wait_procs(servers, timeout=20)
    assert not alive
    assert caller.wait(20) == 0


def test_a_server_that_does_not_start_says_why(call):
    caller, url, _ = call("wait", BROKEN)
    _, records = caller.communicate(timeout=60)
    assert url == ""
    assert "ServerFailed: Prefect's temporary server ended with 1 (RuntimeError: no room for a server)." in records
