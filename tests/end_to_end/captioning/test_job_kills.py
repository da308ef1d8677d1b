"""A job that is killed ends in the same bytes as one that is not: a minute on a free core, a third of it imports."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from veridical.flows.captioning import shard_format
from veridical.flows.captioning.request import Captioning

NURSERY = Path(__file__).with_name("job_nursery.py")
VARYING = {"ledger.jsonl", "timings.jsonl", "lock"}  # seconds, and who was at work


def noise_images(folder: Path, count: int) -> Path:
    """Noise under names that return in every folder; a few are no images."""
    dice = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"part{number % 3}" / f"{number // 3:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number % 37 == 5:
            path.write_text(f"no image {number}", encoding="utf-8")
        else:
            Image.fromarray(dice.integers(0, 256, (24, 24, 3), np.uint8)).save(path)
    return folder


def contents(out: Path) -> dict[str, bytes]:
    """Every file of a job that has to be the same each time."""
    files = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if name not in VARYING}


@pytest.fixture(scope="module")
def nursery(tmp_path_factory):
    """Folder and what the program says, once for both tests."""
    base = tmp_path_factory.mktemp("kills")
    many, few = noise_images(base / "many", 300), noise_images(base / "few", 15)
    command = [sys.executable, str(NURSERY), str(many), "12", str(few), str(base)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return base, json.loads(done.stdout.splitlines()[-1])


def test_300_images_killed_at_12_random_moments_end_in_the_same_bytes(nursery):
    base, records = nursery
    whole, killed = contents(base / "whole"), contents(base / "killed")
    assert records["kills"] >= 10, records
    assert len(set(records["shards"])) >= 4, f"kills have to fall on different stages: {records}"
    assert sorted(killed) == sorted(whole)
    assert [name for name in whole if killed[name] != whole[name]] == []
    assert len(whole) == 30 + 7, "shards; plan, job, captions, errors, summary, report"
    rows = shard_format.read(base / "killed" / "captions.parquet")
    named = sorted(path.relative_to(base / "many").as_posix() for path in (base / "many").rglob("*.png"))
    assert [row["id"] for row in rows] == named, "no row lost, none twice"
    assert sum(row["error"] is not None for row in rows) == len(range(5, 300, 37))
    assert len({row["caption"] for row in rows}) > 150, "sampled captions differ, so that a wrong seed would be seen"


def test_a_kill_before_any_write_or_rename_loses_nothing(nursery):
    base, records = nursery
    whole = contents(base / "points" / "0")
    assert records["points"] > 25
    for number in range(1, records["points"] + 1):
        out = base / "points" / str(number)
        assert contents(out) == whole, f"killed before call {number} of {records['points']}"
        assert len((out / "timings.jsonl").read_text(encoding="utf-8").splitlines()) == 15


def test_a_kill_while_errors_are_asked_again_changes_no_other_row(nursery):
    """Its shard is asked with another batch than the first time: rows that were kept must not be made anew."""
    base, records = nursery
    before, after = (shard_format.read(base / part / "0" / "captions.parquet") for part in ("points", "retry"))
    changed = [(old["error"] is not None, new["error"]) for old, new in zip(before, after, strict=True) if old != new]
    assert changed == [(True, None)]
    assert records["retry"] > 15
    whole = contents(base / "retry" / "0")
    for number in range(1, records["retry"] + 1):
        assert contents(base / "retry" / str(number)) == whole, f"killed before call {number} of {records['retry']}"


def test_a_flow_that_is_killed_goes_on_and_ends_in_the_same_bytes(tmp_path, prefect_server):
    """Killed as a process, continued as a flow; compared with plain functions."""
    from prefect import get_client

    from veridical.flows.caption import overnight
    from veridical.flows.captioning import job
    from veridical.flows.captioning import run as captioning

    images, out = noise_images(tmp_path / "images", 40), tmp_path / "flow"
    words = ["caption", str(images), "--out", str(out), "--shard-size", "4", "--max-new-tokens", "4"]
    code = "import sys\nfrom veridical.cli.main import app\napp(sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words], env={**os.environ, "PREFECT_API_URL": prefect_server},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    ledger = out / "ledger.jsonl"
    until = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < until:
        if ledger.exists() and ledger.read_bytes().count(b"\n") >= 3:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.05)
    _, answers = process.communicate()
    assert process.returncode == -signal.SIGKILL, answers.decode()
    path = lambda shard: out / "shards" / f"{shard:06d}.parquet"
    before = {shard: path(shard).stat().st_mtime_ns for shard in job.ledger(job.Job.read(out))}
    assert 2 <= len(before) < 10, "the file comes after its line"
    requests = Captioning([str(images)], shard_size=4, generation={"max_new_tokens": 4})
    assert overnight(requests, str(out)) == str(out / "summary.json")
    assert {n: path(n).stat().st_mtime_ns for n in before} == before, "shards that were finished are not made again"
    captioning.captioning(requests, str(tmp_path / "plain"))
    assert contents(out) == contents(tmp_path / "plain")
    with get_client(sync_client=True) as client:
        shown = [run.state_name for run in client.read_flow_runs() if run.parameters["out"] == str(out)]
    assert sorted(shown) == ["Completed", "Crashed"], "the one that went on has ended the killed one"


def test_bad_input_inside_the_flow_keeps_its_message(tmp_path, prefect_server):
    from veridical.flows.caption import overnight

    with pytest.raises(ValueError, match=r"^form='xml' is neither of parquet, jsonl, csv, coco$"):
        overnight(Captioning([str(tmp_path)], form="xml"), str(tmp_path / "out"))
