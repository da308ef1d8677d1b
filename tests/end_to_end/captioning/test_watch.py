"""What operators see of a job, and the limits at which it stops."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from veridical.flows.captioning import run, shard_format
from veridical.flows.captioning.request import EMBEDDED, Captioning
from veridical.flows.captioning.watch import JobStopped, Watch
from veridical.flows.files import progress
from veridical.flows.files.lock import locked
from veridical.pipelines.model.spec import load
from veridical.pipelines.results import Answer


@pytest.fixture
def canned(monkeypatch):
    """Answers without a model."""
    monkeypatch.setattr(type(load(EMBEDDED)), "answer", lambda self, images, *a, **k: [Answer("a") for _ in images])


def some(folder: Path, good: int, bad: int = 0) -> Path:
    folder.mkdir()
    for number in range(good):
        Image.new("RGB", (20, 20), (number, 0, 0)).save(folder / f"{number:02d}.png")
    for number in range(bad):
        (folder / f"bad{number:02d}.png").write_text("no image")
    return folder


def job(images: Path, out: Path, **watch: object) -> None:
    run.captioning(Captioning([str(images)], shard_size=2, form="jsonl"), str(out), watch=Watch(**watch))


def test_the_log_has_a_json_line_for_each_shard_with_speed_and_time_left(tmp_path, canned):
    job(some(tmp_path / "images", 4, 1), tmp_path / "out", log_file=str(tmp_path / "logs" / "job.jsonl"))
    lines = [json.loads(line) for line in (tmp_path / "logs" / "job.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["started", "shard", "shard", "shard", "finished"]
    assert [line["images_done"] for line in lines] == [0, 2, 4, 5, 5]
    assert (lines[3]["errors_of_shard"], lines[3]["errors"], lines[3]["images_total"]) == (1, 1, 5)
    assert lines[1]["images_per_second"] > 0
    assert lines[1]["seconds_left"] >= 0
    assert {line["level"] for line in lines} == {"info"}


def test_a_level_leaves_the_lesser_lines_out_and_a_stop_is_an_error_with_its_reason(tmp_path, canned):
    images, log = some(tmp_path / "images", 2), tmp_path / "log"
    job(images, tmp_path / "quiet", log_file=str(log), log_level="error")
    assert log.read_text() == ""

    def broken(out, shard, retry_errors):
        raise OSError("the disk is gone")

    request = Captioning([str(images)], form="jsonl")
    with pytest.raises(OSError, match="the disk is gone"):
        run.captioning(request, str(tmp_path / "out"), steps=run.Steps(shard=broken), watch=Watch(log_file=str(log)))
    last = json.loads(log.read_text().splitlines()[-1])
    assert (last["event"], last["level"], last["reason"]) == ("stopped", "error", "OSError: the disk is gone")


def test_the_figures_are_in_prometheus_text_format_and_the_sign_of_life_is_fresh(tmp_path, canned):
    metrics, heart = tmp_path / "job.prom", tmp_path / "heart"
    began = time.time()
    job(some(tmp_path / "images", 3, 1), tmp_path / "out", metrics_file=str(metrics), heartbeat_file=str(heart))
    text = metrics.read_text()
    line = re.compile(r"(?:# TYPE (veridical_caption_\w+) gauge\n\1 [0-9.e+-]+\n)+")
    assert line.sub("", text) == ""
    found = dict(re.findall(r"^(veridical_caption_\w+) (\S+)$", text, re.M))
    assert (found["veridical_caption_images_done"], found["veridical_caption_images_total"]) == ("4", "4")
    assert (found["veridical_caption_errors"], found["veridical_caption_finished"]) == ("1", "1")
    assert heart.stat().st_mtime >= began - 1


def test_files_of_a_watch_that_cannot_be_written_cost_no_caption(tmp_path, canned):
    (tmp_path / "file").touch()
    job(some(tmp_path / "images", 2), tmp_path / "out", metrics_file=str(tmp_path / "file" / "x"))
    assert len(shard_format.read(tmp_path / "out" / "captions.jsonl")) == 2


def test_a_share_of_errors_above_the_limit_stops_the_job_and_the_same_command_goes_on(tmp_path, canned):
    images, out = some(tmp_path / "images", 10, 30), tmp_path / "out"
    with pytest.raises(JobStopped, match=r"11 of 20 rows of this run are errors, a larger share than --max-error-sh"):
        job(some(tmp_path / "few", 9, 30), tmp_path / "stopped", max_error_share=0.5)
    job(images, out, max_error_share=0.75)
    assert len(shard_format.read(out / "captions.jsonl")) == 40


def test_the_command_ends_with_1_and_the_reason(veridical, tmp_path, canned):
    images = some(tmp_path / "images", 0, 30)
    shown = veridical(
        "caption", images, "--out", tmp_path / "out", "--no-prefect", "--shard-size", 5, "--max-error-share", 0.5
    )
    assert shown.exit_code == 1
    assert "20 of 20 rows of this run are errors" in shown.stderr
    assert "please report" not in shown.stderr


@pytest.mark.parametrize("lost", ["empty", "gone"])
def test_a_folder_that_is_unmounted_stops_the_job_instead_of_filling_it_with_errors(tmp_path, canned, lost):
    images, out = some(tmp_path / "images", 4), tmp_path / "out"

    def unmounted(folder, shard, retry_errors):
        for path in images.iterdir():
            path.unlink()
        if lost == "gone":
            images.rmdir()
        return run.caption_shard(folder, shard, retry_errors)

    with pytest.raises(JobStopped, match=r"images is empty or gone, and with it every image of a shard"):
        run.captioning(Captioning([str(images)]), str(out), steps=run.Steps(shard=unmounted))
    assert not (out / "shards").exists()


def test_a_job_that_stalls_ends_with_a_reason_and_the_lock_is_free(tmp_path):
    """In a process of its own, whose model hangs."""
    images = some(tmp_path / "images", 2)
    code = (
        "import sys, time\nfrom veridical.pipelines.lvlm import LVLM\n"
        "LVLM.answer = lambda *arguments, **options: time.sleep(600)\n"
        "from veridical.cli.main import app\napp(sys.argv[1:])"
    )
    words = ["caption", images, "--out", tmp_path / "out", "--no-prefect", "--stall-timeout", 1,
             "--log-file", tmp_path / "log"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 1
    assert re.search(r"Error: no batch was finished for \d+ s, longer than --stall-timeout 1\. What", done.stderr)
    assert json.loads((tmp_path / "log").read_text().splitlines()[-1])["event"] == "stalled"
    with locked(tmp_path / "out"):
        pass


@pytest.mark.parametrize(
    ("watch", "message"),
    [({"log_level": "loud"}, "no log level 'loud'. Known: debug, info"), ({"max_error_share": 2.0}, "outside 0 to 1"),
     ({"stall_timeout": 0.0}, "is not above 0")],
)  # fmt: skip
def test_a_watch_that_cannot_be_is_refused(tmp_path, watch, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        job(tmp_path, tmp_path / "out", **watch)


def test_where_there_is_no_terminal_a_line_now_and_then_says_how_far_a_job_is(monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    with progress.progress("captions", 1000, "images", 100, errors=1) as advance:
        time.sleep(0.01)
        advance(220, 1)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("captions: ")]
    assert re.fullmatch(r"captions: 320 of 1,000 images, 2 errors, \S+ images/s, \d+:\d\d:\d\d left", lines[0])


def test_lines_are_a_minute_apart(capsys):
    with progress.progress("captions", 3, "images") as advance:
        advance(1)
        advance(1)
    assert "captions: " not in capsys.readouterr().err
    assert progress.EVERY == 60
