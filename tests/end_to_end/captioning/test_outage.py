"""A captioning job whose Prefect server goes away: captions are whole and in time, and what is lost is named."""

import json
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from PIL import Image

import veridical
from veridical.flows.captioning import run, shard_format
from veridical.flows.captioning.request import EMBEDDED
from veridical.flows.prefect import flow_runs, telemetry
from veridical.pipelines.model.spec import load
from veridical.pipelines.results import Answer

MOST = 60.0  # seconds; it was eleven minutes


class Line:
    """A line to a server that can be cut: from then on nobody answers, or whoever connects waits for ever."""

    def __init__(self, url: str) -> None:
        self._target = httpx.URL(url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/api"
        self._open: list[socket.socket] = []
        self._silent = False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, silent: bool) -> None:
        self._silent = silent
        if not silent:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)  # wakes who accepts, which closing does not
            self._listener.close()
            for one in self._open:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._open.append(near)
                if not self._silent:
                    far = socket.create_connection((self._target.host, self._target.port))
                    self._open.append(far)
                    for pair in ((near, far), (far, near)):
                        threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while content := source.recv(65536):
                if not self._silent:
                    sink.sendall(content)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def line(prefect_server, monkeypatch):
    """The test's server behind a line of its own, which is what Prefect is configured with."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.setattr(telemetry, "PAUSE", 0.2)
    monkeypatch.setattr(telemetry, "_gone", [])
    built = Line(prefect_server)
    for path, method in (("health", "GET"), ("flow_runs/filter", "POST")):  # a server's first answers take seconds
        httpx.request(method, f"{built.url}/{path}", json={}, timeout=60).raise_for_status()
    monkeypatch.setenv("PREFECT_API_URL", built.url)
    with temporary_settings({PREFECT_API_URL: built.url}):
        yield built
    built.cut(silent=False)


@pytest.fixture
def images(tmp_path, monkeypatch) -> Path:
    """Eight images, and answers without a model."""
    (tmp_path / "images").mkdir()
    for number in range(8):
        Image.new("RGB", (20, 20), (number, 0, 0)).save(tmp_path / "images" / f"{number}.png")
    monkeypatch.setattr(type(load(EMBEDDED)), "answer", lambda self, images, *a, **k: [Answer("a") for _ in images])
    return tmp_path / "images"


def runs_of(server: str, out: Path) -> list[dict]:
    found = httpx.post(f"{server}/flow_runs/filter", json={}, timeout=30).raise_for_status().json()
    return [one for one in found if one["parameters"].get("out") == str(out)]


@pytest.mark.parametrize("silent", [False, True], ids=["refuses", "hangs"])
def test_a_server_that_goes_away_costs_no_caption_and_no_minutes(
    veridical, line, prefect_server, images, tmp_path, monkeypatch, silent
):
    out, whole = tmp_path / "out", run.caption_shard
    seconds = 3.0 if silent else 10.0
    monkeypatch.setattr(telemetry, "_BRIEF", {**telemetry._BRIEF, "PREFECT_API_REQUEST_TIMEOUT": seconds})

    def cutting(folder, shard, retry_errors=False):
        if shard == 2:
            line.cut(silent)
        return whole(folder, shard, retry_errors)

    monkeypatch.setattr("veridical.flows.caption.TASKS", _with(cutting))
    began = time.monotonic()
    shown = veridical("caption", images, "--out", out, "--shard-size", 2, "--format", "jsonl")
    assert time.monotonic() - began < MOST
    assert shown.exit_code == 0, shown.stderr
    assert f"captions: {out / 'captions.jsonl'}" in shown.stdout
    assert len(shard_format.read(out / "captions.jsonl")) == 8
    assert "may not know that the flow run" in shown.stderr
    assert line.url in shown.stderr
    assert telemetry._gone == [line.url], "the process does not wait at its exit for what cannot be sent"
    note = json.loads((out / flow_runs.NAME).read_text())
    assert note["ended"]
    (before,) = runs_of(prefect_server, out)
    assert before["state_type"] == "RUNNING"
    (out / flow_runs.NAME).write_text(json.dumps({**note, "api": prefect_server}))
    monkeypatch.setenv("PREFECT_API_URL", prefect_server)
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: prefect_server}):
        assert veridical("caption", images, "--out", out, "--shard-size", 2, "--format", "jsonl").exit_code == 0
    (after,) = runs_of(prefect_server, out)
    assert after["state_type"] == "COMPLETED"
    assert not (out / flow_runs.NAME).exists()


def _with(shard):
    from dataclasses import replace

    from veridical.flows import caption
    from veridical.flows.prefect.tasks import as_task

    return replace(caption.TASKS, shard=as_task(shard, "shard"))


def test_a_server_that_is_not_there_at_the_start_is_done_without_unless_wanted(veridical, line, images, tmp_path):
    line.cut(silent=False)
    shown = veridical("caption", images, "--out", tmp_path / "out", "--format", "jsonl")
    assert shown.exit_code == 0, shown.stderr
    assert "note: Prefect cannot be reached" in shown.stderr
    assert "the job goes on without" in shown.stderr
    requests = veridical("caption", images, "--out", tmp_path / "asked", "--format", "jsonl", "--prefect")
    assert requests.exit_code == 1
    assert "Prefect failed" in requests.stderr
    assert not (tmp_path / "asked" / "summary.json").exists()


def test_reports_never_hold_up_who_makes_them_and_losses_are_counted():
    gate = threading.Event()
    reporter = telemetry.Reporter(lambda *given: gate.wait(60))
    began = time.monotonic()
    for percent in range(100):
        reporter("captions", percent, "some")
    assert time.monotonic() - began < 1
    gate.set()
    reporter.close()
    assert reporter.lost == 0


def test_the_first_and_the_last_report_are_sent_and_a_failure_is_named(monkeypatch):
    sent = []
    reporter = telemetry.Reporter(lambda *given: sent.append(given))
    reporter("captions", 0.0, "none")
    for percent in (50.0, 100.0):
        reporter("captions", percent, "some")
    reporter.close()
    assert sent[-1] == ("captions", 100.0, "some")

    def refuse(*given):
        raise httpx.ConnectError("refused")

    monkeypatch.setattr(telemetry, "PAUSE", 0.01)
    broken = telemetry.Reporter(refuse)
    broken("captions", 0.0, "none")
    with pytest.warns(telemetry.TelemetryLost, match=r"did not take [1-9]\d* reports of progress \(ConnectError: ref"):
        broken.close()


@pytest.mark.parametrize(
    ("error", "outage"),
    [
        (httpx.ConnectError("refused"), True), (httpx.ReadTimeout("slow"), True),
        (RuntimeError("Failed to reach API at http://x"), True), (ValueError("no decoder"), False),
        (OSError("No space left on device"), False),
        (httpx.HTTPStatusError("", request=None, response=httpx.Response(500)), True),
        (httpx.HTTPStatusError("", request=None, response=httpx.Response(403)), False),
    ],
)  # fmt: skip
def test_an_outage_is_told_from_a_refusal_and_from_a_fault_of_the_job(error, outage):
    assert telemetry.is_outage(error) is outage


def test_the_automations_of_the_documents_are_taken_by_a_server(prefect_server):
    page = Path(veridical.__file__).parent / "docs" / "operations.md"
    if not page.exists():
        pytest.skip("docs are in the repository, not in the installed package")
    exec(page.read_text("utf-8").split("<!-- caption automations -->\n```python\n")[1].split("```")[0], {})
    found = httpx.post(f"{prefect_server}/automations/filter", json={}, timeout=30).raise_for_status().json()
    kept = {one["name"]: one for one in found if one["name"].startswith("a captioning job")}
    stopped, killed = kept["a captioning job stopped"], kept["a captioning job was killed"]
    assert stopped["actions"][0]["type"] == "send-notification"
    assert (killed["actions"][0]["type"], killed["actions"][0]["state"]) == ("change-flow-run-state", "CRASHED")
    assert killed["trigger"]["posture"] == "Proactive"
    assert killed["trigger"]["within"] >= 3 * 60 + telemetry._BRIEF["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]
    assert killed["trigger"]["match_related"] == {"prefect.resource.role": "flow", "prefect.resource.name": "caption"}
