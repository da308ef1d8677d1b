"""Without Prefect a run leaves its record in its folder; Prefect is used where a server is configured."""

import json

import pytest

from veridical.cli import worker_options
from veridical.flows.files import run_log
from veridical.flows.prefect import choice


def answer(out, benchmark):
    if benchmark == "none":
        raise ValueError("no benchmark")
    return out


def lines(folder):
    return [json.loads(line) for line in (folder / run_log.RUN_LOG).read_text(encoding="utf-8").splitlines()]


def test_every_step_leaves_a_line_with_its_end(tmp_path):
    step = run_log.logged(answer)
    assert step(str(tmp_path), "pope") == str(tmp_path)
    with pytest.raises(ValueError, match="no benchmark"):
        step(str(tmp_path), "none")
    first, second = lines(tmp_path)
    assert (first["step"], first["of"], first["state"], first["error"]) == ("answer", ["pope"], "completed", None)
    assert (second["of"], second["state"], second["error"]) == (["none"], "failed", "ValueError: no benchmark")
    assert first["seconds"] >= 0
    assert first["started"] <= second["started"]


def test_a_step_that_is_refused_leaves_no_folder(tmp_path):
    with pytest.raises(ValueError, match="no benchmark"):
        run_log.logged(answer)(str(tmp_path / "new"), "none")
    assert not (tmp_path / "new").exists()


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    return tmp_path


def test_a_server_is_configured_by_the_environment_or_by_the_active_profile(home, monkeypatch):
    assert not choice.has_server()
    (home / "profiles.toml").write_text(
        'active = "here"\n[profiles.here]\n[profiles.there]\nPREFECT_API_URL = "http://127.0.0.1:4200/api"\n'
    )
    assert not choice.has_server()
    monkeypatch.setenv("PREFECT_PROFILE", "there")
    assert choice.has_server()
    monkeypatch.setenv("PREFECT_API_URL", "")
    assert not choice.has_server()
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    assert choice.has_server()


def test_a_broken_profile_counts_as_none(home):
    (home / "profiles.toml").write_text("active = ")
    assert not choice.has_server()


@pytest.mark.parametrize(
    ("wanted", "runner", "used"),
    [(None, "local", False), (None, "dask", True), (True, "local", True), (False, "local", False)],
)
def test_prefect_is_used_where_it_is_wanted_or_needed(home, wanted, runner, used):
    assert worker_options.under_prefect(wanted, runner) is used
