"""Images on disk, and the command line in this process."""

import datetime
import ipaddress
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from veridical.cli.main import app
from veridical.datasets.world import scene

from .evaluations import evaluate


@pytest.fixture(scope="session")
def veridical() -> Callable[..., Any]:
    """Runs a command: exit_code, stdout, stderr."""

    def run(*arguments: object) -> Any:
        return CliRunner().invoke(app, [str(one) for one in arguments])

    return run


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A certificate for 127.0.0.1 that signs itself. context: for a server; file: for who is to trust it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    signed = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("tls")
    (folder / "certificate.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return SimpleNamespace(context=context, file=folder / "certificate.pem")


@pytest.fixture
def serve(tls, monkeypatch):
    """Serves a folder on an address whose certificate is trusted, and gives the address."""
    servers = []

    def started(folder):
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=folder))
        server.socket = tls.context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        servers.append(server)
        return f"https://127.0.0.1:{server.server_port}"

    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tls.file))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *arguments: None)
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    yield started
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def image_files(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Two good image files, one cut off, one that holds text, one that is not there."""
    folder = tmp_path_factory.mktemp("images")
    for name, index in (("a.png", 0), ("b.png", 1)):
        scene("validation", index).image.save(folder / name)
    whole = (folder / "a.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_text("no image", encoding="utf-8")
    return SimpleNamespace(
        a=folder / "a.png", b=folder / "b.png", cut=folder / "cut.png", text=folder / "text.png",
        none=folder / "none.png",
    )  # fmt: skip


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an evaluation of two decoders on six scenes; to be looked at, not changed."""
    out = tmp_path_factory.mktemp("small") / "run"
    options = {"decoders": ["greedy", "vcd"], "limit": 6, "batch_size": 16, "generation": {"max_new_tokens": 24}}
    return evaluate(out, **options)


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A whole Prefect server, its scheduler too, with a database that is thrown away. Gives its address.

    Prefect's own test harness starts one without the scheduler.
    """
    for name, value in (("DO_NOT_TRACK", "1"), ("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")):
        os.environ.setdefault(name, value)
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    home = tmp_path_factory.mktemp("prefect")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "1", "PREFECT_LOGGING_SERVER_LEVEL": "ERROR",
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2", "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
    }  # fmt: skip
    command = ["-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *command], env={**environment, **settings}, stdout=log, stderr=subprocess.STDOUT, cwd=home
        )
    url = f"http://127.0.0.1:{port}/api"
    try:
        _wait_for(f"{url}/health", process, home / "server.log")
        with temporary_settings({PREFECT_API_URL: url, PREFECT_HOME: home}):
            yield url
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(address: str, process: subprocess.Popen, log: Path, seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            if httpx.get(address, timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    pytest.fail(f"Prefect's server does not answer: {log.read_text('utf-8')[-2000:]}")
