"""A captioning job on a real local Ray: the same bytes as one process with a worker killed, and no door open.

Ray is no part of the development environment: `pip install 'veridical[ray]'` lets this test run (a minute and a half).
"""

import importlib.util
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from veridical.flows.captioning import run
from veridical.flows.captioning.request import Captioning
from veridical.flows.prefect import runners

from .open_sockets import listening

QUESTIONS = {"shard_size": 2, "batch_size": 2, "generation": {"max_new_tokens": 24}}
VARYING = {"ledger.jsonl", "timings.jsonl", "lock"}
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("prefect_ray") is None, reason="prefect-ray is not installed: pip install 'veridical[ray]'"
)


def contents(out: Path) -> dict[str, bytes]:
    files = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if name not in VARYING}


def shards(out: Path) -> int:
    path = out / "ledger.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def at_work() -> list[psutil.Process]:
    """Ray's workers that have a task, which they are called after; not its agents, without which a machine is lost."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            name = process.cmdline()[0]
            if name.startswith("ray::") and not any(other in name for other in ("IDLE", "Agent")):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.ZombieProcess, IndexError):
            continue
    return found


def test_a_local_ray_writes_what_one_process_writes_also_when_a_worker_is_killed(tmp_path, prefect_server):
    from veridical.flows.caption import overnight

    images, dice = tmp_path / "images", np.random.default_rng(0)
    images.mkdir()
    for number in range(24):
        Image.fromarray(dice.integers(0, 256, (24, 24, 3), np.uint8)).save(images / f"{number:02d}.png")
    (images / "05.png").write_text("no image", encoding="utf-8")
    run.captioning(Captioning([str(images)], **QUESTIONS), str(tmp_path / "plain"))
    out, killed, opened = tmp_path / "out", [], set()

    def kill() -> None:
        until = time.monotonic() + 300
        while shards(out) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        opened.update(listening())
        while not killed and shards(out) < 12 and time.monotonic() < until:
            for worker in at_work()[:1]:
                killed.append(worker.pid)
                os.kill(worker.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    with runners.running(overnight, "ray", 2, None, gpus=0) as flow:
        killer.start()
        flow(Captioning([str(images)], **QUESTIONS), str(out))
    killer.join(30)
    assert killed, "a worker that was at work was killed"
    assert contents(out) == contents(tmp_path / "plain")
    assert opened, "Ray's processes listen"
    assert {address for address, _ in opened} <= {"127.0.0.1", "::1"}
    assert "RAY_AUTH_TOKEN" not in os.environ
