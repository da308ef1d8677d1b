"""Scheduled evaluation: it fires on a real server, asks again only for what changed, and fails when it is worse."""

import inspect
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
import yaml

import veridical
from veridical.flows.evaluation import answer_file, history, steps
from veridical.pipelines.model.spec import ModelSpec, load
from veridical.pipelines.results import Answer

from ..evaluations import request

REQUEST = request(decoders=["greedy"], limit=8, benchmarks=["pope"])
ROOT = Path(veridical.__file__).parent


# -- on a server ---------------------------------------------------------------------------------------------------
@pytest.fixture
def results(prefect_server, tmp_path, monkeypatch) -> Iterator[Path]:
    """What Prefect keeps of results goes to a folder of this test's own."""
    from prefect.settings import PREFECT_RESULTS_LOCAL_STORAGE_PATH, temporary_settings

    monkeypatch.setenv("PREFECT_RESULTS_LOCAL_STORAGE_PATH", str(tmp_path / "results"))
    with temporary_settings({PREFECT_RESULTS_LOCAL_STORAGE_PATH: tmp_path / "results"}):
        yield tmp_path / "results"


@pytest.fixture
def model(monkeypatch) -> dict[str, Any]:
    """A model that says what it is told to, and counts what it is asked."""
    state: dict[str, Any] = {"says": "yes", "asked": 0}

    def canned(self, images, *arguments, **options):
        state["asked"] += len(images)
        return [Answer(state["says"]) for _ in images]

    monkeypatch.setattr(type(load(ModelSpec("embedded"))), "answer", canned)
    return state


def found(server: str, what: str, **body: Any) -> list[dict[str, Any]]:
    answered = httpx.post(f"{server}/{what}/filter", json=body, timeout=30).raise_for_status().json()
    return answered["events"] if what == "events" else answered


def until(look: Any, seconds: float = 120.0) -> Any:
    """What `look` gives as soon as it gives something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if seen := look():
            return seen
        time.sleep(0.3)
    return look()


def test_a_second_run_asks_only_for_what_changed(results, model, tmp_path):
    from veridical.flows.scheduled import scheduled

    first = Path(scheduled(REQUEST, str(tmp_path / "runs")))
    questions = model["asked"]
    assert questions > 8
    second = Path(scheduled(replace(REQUEST, decoders=["greedy", "vcd"]), str(tmp_path / "runs")))
    assert model["asked"] == 2 * questions, "greedy is known"
    third = Path(scheduled(replace(REQUEST, source=replace(REQUEST.source, seed=3)), str(tmp_path / "elsewhere")))
    assert model["asked"] > 2 * questions
    assert len({first, second, third}) == 3
    paths = [answer_file.answers_path(run, "pope", "greedy") for run in (first, second)]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    before = model["asked"]
    for path in paths:
        path.write_text(path.read_text("utf-8").replace("yes", "no!"), encoding="utf-8")
    scheduled(REQUEST, str(tmp_path / "more"))
    assert model["asked"] == before + questions, "a file that was changed is not taken"
    scheduled(REQUEST, str(tmp_path / "more"), fresh=True)
    assert model["asked"] == before + 2 * questions


def test_a_worse_run_fails_and_emits_an_event_and_leaves_its_artifacts(results, model, tmp_path, prefect_server):
    from veridical.flows.scheduled import EVENT, scheduled

    runs = tmp_path / "watched"
    state = scheduled(REQUEST, str(runs), return_state=True)
    assert state.is_completed()
    baseline = history.last_good(runs)
    assert baseline is not None
    path = answer_file.answers_path(baseline, "pope", "greedy")
    rows = [{**row, "text": row["label"]} for row in answer_file.read_rows(path)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    steps.score(str(baseline))

    state = scheduled(REQUEST, str(runs), reports="https://host/reports/", return_state=True)
    assert state.is_failed()
    assert "Regression" in state.message
    assert f"worse than {baseline.name}, the last good run: pope greedy" in state.message
    assert history.last_good(runs) == baseline
    [event] = until(lambda: found(prefect_server, "events", filter={"event": {"name": [EVENT]}}))
    assert event["resource"]["prefect.resource.id"] == "veridical.evaluation.watched"
    assert "accuracy" in event["payload"]["worse"][0]
    assert any(one["prefect.resource.role"] == "flow-run" for one in event["related"])
    run_id = str(state.state_details.flow_run_id)
    listed = found(prefect_server, "artifacts", artifacts={"flow_run_id": {"any_": [run_id]}})
    kinds = {one["type"]: one for one in listed}
    assert "worse than the last good run" in next(o["data"] for o in listed if o["key"] == "evaluation-report")
    assert json.loads(kinds["table"]["data"])[0]["method"] == "greedy"
    name = Path(event["payload"]["run"]).name
    assert any(f"https://host/reports/{name}/report.html" in str(o["data"]) for o in listed)
    assert kinds["progress"]["data"] == 100.0


def test_the_automation_of_the_documents_calls_a_web_hook(results, tmp_path, prefect_server):
    from veridical.flows.evaluation import regression
    from veridical.flows.scheduled import emit

    page = ROOT / "docs" / "schedule.md"
    if not page.exists():
        pytest.skip("docs are in the repository, not in the installed package")
    code = page.read_text("utf-8").split("<!-- automation -->\n```python\n")[1].split("```")[0]
    heard: list[str] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self):
            heard.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            self.end_headers()

    with HTTPServer(("127.0.0.1", 0), Hook) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        exec(code.replace("https://hooks.example.org/veridical", f"http://127.0.0.1:{server.server_port}/"), {})
        change = regression.Change("pope", "vcd", "popular_accuracy", 0.9, 0.8, -0.1, -0.12, -0.08, 500)
        until(lambda: heard or emit(tmp_path / "run", regression.Checked("before", [change])) or time.sleep(3), 90)
        server.shutdown()
    report = json.loads(heard[0])["text"]
    assert report == f"veridical: {tmp_path / 'run'} is worse: {change}"


def test_a_run_keeps_a_place_under_the_limit_and_a_missing_limit_is_named(results, model, tmp_path, prefect_server):
    from prefect.client.orchestration import get_client

    from veridical.flows.prefect import serve
    from veridical.flows.scheduled import scheduled

    with pytest.raises(ValueError, match="prefect gcl create nowhere --limit 1"):
        scheduled(REQUEST, str(tmp_path), gpu="nowhere")
    serve._make_limit("one-gpu")
    taken = []
    with get_client(sync_client=True) as client:
        places = lambda: client.read_global_concurrency_limit_by_name("one-gpu").active_slots
        look = type(load(ModelSpec("embedded"))).answer

        def seen(self, images, *arguments, **options):
            taken.append(places())
            return look(self, images, *arguments, **options)

        type(load(ModelSpec("embedded"))).answer = seen
        scheduled(REQUEST, str(tmp_path), gpu="one-gpu")
        assert set(taken) == {1}
        assert until(lambda: places() == 0, 20)


def test_a_schedule_fires_on_a_real_server_and_overlapping_runs_are_cancelled(prefect_server, tmp_path):
    """Runs are due every two seconds and take longer: one is at work, those that come due meanwhile are cancelled."""
    words = ["schedule", "evaluate", "--interval", "2", "--limit", "1", "--benchmark", "chair", "--max-new-tokens", "2"]
    code = "import sys\nfrom veridical.cli.main import app\napp(sys.argv[1:])"
    environment = {**os.environ, "PREFECT_API_URL": prefect_server, "PREFECT_HOME": str(tmp_path / "home")}
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words, "--out", str(tmp_path / "serving")], env=environment, cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    ran = lambda: found(
        prefect_server, "flow_runs", deployments={"name": {"any_": ["serving"]}},
        flow_runs={"state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]}}},
    )  # fmt: skip
    states = lambda: [run["state"]["type"] for run in ran()]
    try:
        until(lambda: {"COMPLETED", "FAILED", "CRASHED"} & {*states()} or process.poll() is not None, 300)
        seen = states()
    finally:
        process.terminate()
        try:
            report = process.communicate(timeout=30)[0].decode()
        except subprocess.TimeoutExpired:
            process.kill()
            report = process.communicate()[0].decode()
    assert "COMPLETED" in seen, report
    assert seen.count("CANCELLED") >= 2, seen
    [line, *_] = history.atomic.lines(tmp_path / "serving" / history.HISTORY).records
    assert line["good"]
    assert (tmp_path / "serving" / line["run"] / "report.html").exists()
    [deployment] = found(prefect_server, "deployments", deployments={"name": {"any_": ["serving"]}})
    assert deployment["schedules"][0]["schedule"]["interval"] == 2.0
    assert deployment["entrypoint"] == "veridical.flows.scheduled.scheduled"


@pytest.mark.parametrize("file", ["prefect.yaml", "prefect-docker.yaml"])
def test_deployments_of_the_repository_name_flows_and_parameters_that_exist(prefect_server, file):
    path = ROOT / file
    if not path.exists():
        pytest.skip("prefect.yaml is in the repository, not in the installed package")
    from prefect.flows import load_flow_from_entrypoint

    for deployment in yaml.safe_load(path.read_text("utf-8"))["deployments"]:
        flow = load_flow_from_entrypoint(deployment["entrypoint"])
        given = deployment.get("parameters") or {"request": {"sources": ["/data"]}, "out": "/data/out"}
        flow.validate_parameters(given)
        assert deployment["work_pool"]["job_variables"]["env"]["PYTHONSAFEPATH"] == "1"


def test_a_flow_that_is_handed_on_without_its_module_still_knows_the_type_of_its_request(prefect_server):
    """`serve` does so: an annotation that is a text could not be looked up."""
    from veridical.flows import caption, detectors, evaluate, scheduled

    detecting = detectors.train_detector, detectors.evaluate_detectors
    for flow in (evaluate.evaluate, scheduled.scheduled, caption.overnight, *detecting):
        assert inspect.isclass(inspect.signature(flow.fn).parameters["request"].annotation)


def test_all_deployments_of_the_repository_are_made_by_the_documented_commands(prefect_server, tmp_path):
    """Also that a schedule served from a folder "nightly" does not replace the nightly deployment of the pool."""
    if not (ROOT / "prefect.yaml").exists():
        pytest.skip("prefect.yaml is in the repository, not in the installed package")
    prefect = {"PREFECT_API_URL": prefect_server, "PREFECT_HOME": str(tmp_path), "PYTHONSAFEPATH": "1"}
    environment = {**os.environ, **prefect}
    page = (ROOT / "docs" / "schedule.md").read_text("utf-8")
    for words in (
        "work-pool create veridical-process --type process", "--no-prompt deploy --all",
        """deployment run evaluate/evaluate --param request='{"source": {"limit": 100}}' --param out=/srv/first""",
    ):  # fmt: skip
        assert f"prefect {words}" in page
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *shlex.split(words)], cwd=ROOT, env=environment, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    found_names = {one["name"]: one["work_pool_name"] for one in found(prefect_server, "deployments")}
    assert {"nightly-pool", "evaluate", "caption"} <= {n for n, pool in found_names.items() if pool}
    assert "nightly" not in found_names
    from veridical.flows.prefect import serve

    with pytest.raises(serve.NameTaken, match="nightly-pool belongs to the work pool veridical-process already"):
        serve.serve({}, None, "nightly-pool", None, 60.0, "UTC", "CANCEL_NEW")


# -- the command ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "x"], "say when: one of --cron, --interval and --once"),
        (["--out", "x", "--once", "--interval", "5"], "one of --cron, --interval and --once"),
        (["--out", "x", "--cron", "0 3 * * *", "--overlap", "stop"], "stop is neither of cancel, queue"),
        (["--out", "x", "--cron", "0 3 * * *", "--no-prefect"], "--no-prefect goes with --once"),
        (["--out", "x", "--once", "-d", "vdc"], 'Did you mean "vcd"'),
    ],
)
def test_what_cannot_be_scheduled_is_said(veridical, words, message):
    done = veridical("schedule", "evaluate", *words)
    assert done.exit_code == 2
    assert message in done.stderr


def test_a_schedule_without_a_server_says_how_to_start_one(tmp_path):
    settings = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    code = "import sys\nfrom veridical.cli.main import app\napp(sys.argv[1:])"
    words = ["schedule", "evaluate", "--cron", "0 3 * * *", "--out", "x", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False,
        env={**settings, "PREFECT_HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "prefect server start" in done.stderr
