"""Several workers: the same files as one worker, also when a worker is killed."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from PIL import Image

from veridical.flows.captioning import run
from veridical.flows.captioning.request import Captioning
from veridical.flows.evaluation import answer_file
from veridical.flows.files import atomic
from veridical.flows.prefect import accelerate, runners
from veridical.pipelines.registry import UnknownName

from ..evaluations import request
from .open_sockets import listening

QUESTIONS = {"shard_size": 3, "batch_size": 2, "generation": {"max_new_tokens": 4}}
VARYING = {"ledger.jsonl", "timings.jsonl", "lock"}  # seconds, and who was at work
dask = pytest.mark.skipif(importlib.util.find_spec("prefect_dask") is None, reason="prefect-dask is not installed")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """24 images, one of them none."""
    folder, dice = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(24):
        Image.fromarray(dice.integers(0, 256, (24, 24 + number % 3, 3), np.uint8)).save(folder / f"{number:02d}.png")
    (folder / "05.png").write_text("no image", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def plain(images, tmp_path_factory) -> dict[str, bytes]:
    """The files of a job by one process, without Prefect."""
    out = tmp_path_factory.mktemp("plain") / "out"
    run.captioning(Captioning([str(images)], **QUESTIONS), str(out))
    return contents(out)


@pytest.fixture(scope="module")
def cluster(prefect_server):
    """Two workers of Dask's on this machine, as `--runner dask --workers 2` has them."""
    with runners.cluster(2) as built:
        yield built


def contents(out: Path) -> dict[str, bytes]:
    files = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if name not in VARYING}


def shards(out: Path) -> list[int]:
    path = out / "ledger.jsonl"
    return [json.loads(line)["shard"] for line in path.read_text("utf-8").splitlines()] if path.exists() else []


# -- Dask ----------------------------------------------------------------------------------------------------------
@dask
def test_two_workers_of_dask_write_what_one_process_writes(images, plain, cluster, tmp_path, prefect_server):
    from veridical.flows.caption import overnight

    out = tmp_path / "out"
    with runners.running(overnight, "dask", None, cluster.scheduler_address, gpus=0) as flow:
        assert flow(Captioning([str(images)], **QUESTIONS), str(out)) == str(out / "summary.json")
    assert contents(out) == plain
    assert sorted(shards(out)) == list(range(8)), "every shard once"
    assert len(plain) == 8 + 7
    requests = {"artifacts": {"type": {"any_": ["progress"]}}}
    built = httpx.post(f"{prefect_server}/artifacts/filter", json=requests, timeout=60).json()  # other tests' too
    records = [(one["data"], one["description"]) for one in built if one["description"].endswith("of 24 images")]
    assert records == [(100.0, "captions: 24 of 24 images")]


@dask
def test_dask_listens_on_loopback_alone_its_scheduler_its_nannies_and_its_workers(cluster):
    """Whoever reaches one of them can have it run any code."""
    opened = listening()
    assert len(opened) >= 5, "a scheduler, two nannies, two workers"
    assert {address for address, _ in opened} <= {"127.0.0.1", "::1"}


@dask
def test_what_a_killed_worker_was_at_is_done_again(images, plain, cluster, tmp_path):
    """Killed by SIGKILL while it has work; another takes its place."""
    from distributed import Client

    from veridical.flows.caption import overnight

    out, killed = tmp_path / "out", []

    def kill() -> None:
        with Client(cluster.scheduler_address, set_as_default=False) as client:
            numbers = client.run(os.getpid)
            while len(shards(out)) < 2:
                time.sleep(0.02)
            while not killed and len(shards(out)) < 8:  # between two shards a worker may have nothing to do
                at_work = [numbers[address] for address, keys in client.processing().items() if keys]
                if at_work:
                    killed.append(at_work[0])
                    os.kill(at_work[0], signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    with runners.running(overnight, "dask", None, cluster.scheduler_address, gpus=0) as flow:
        killer.start()
        flow(Captioning([str(images)], **QUESTIONS), str(out))
    killer.join(30)
    assert killed, "a worker that was at work was killed"
    with pytest.raises(ProcessLookupError):
        os.kill(killed[0], 0)
    assert contents(out) == plain
    assert set(shards(out)) == set(range(8))


@dask
def test_an_evaluation_on_workers_has_the_same_answers(small_run, cluster, tmp_path):
    from veridical.flows.evaluate import evaluate

    with runners.running(evaluate, "dask", None, cluster.scheduler_address, gpus=0) as flow:
        small = request(decoders=["greedy", "vcd"], limit=6, batch_size=16, generation={"max_new_tokens": 24})
        out = Path(flow(small, str(tmp_path)))
    for benchmark in ("pope", "chair"):
        for name in ("greedy", "vcd"):
            texts = [[row["text"] for row in answer_file.read_rows(answer_file.answers_path(folder, benchmark, name))]
                     for folder in (small_run, out)]  # fmt: skip
            assert texts[0] == texts[1]
    figures = [[record["metrics"] for record in atomic.read_json(folder / "results.json")]
               for folder in (small_run, out)]  # fmt: skip
    assert figures[0] == figures[1]


@dask
def test_bad_input_on_a_worker_keeps_its_message(cluster, tmp_path):
    from veridical.flows.caption import overnight

    with (
        runners.running(overnight, "dask", None, cluster.scheduler_address, gpus=0) as flow,
        pytest.raises(UnknownName, match=r'no decoder "vdc"\. Did you mean "vcd"'),
    ):
        flow(Captioning([str(tmp_path)], decoders=["vdc"]), str(tmp_path / "out"))


@dask
def test_a_cluster_without_gpus_is_refused_where_they_are_needed(cluster):
    with (
        pytest.raises(runners.NoRunner, match=r"none of 2 workers at tcp://.* has 1 GPU for itself.*--resources GPU=1"),
        runners.running(None, "dask", None, cluster.scheduler_address, gpus=1),
    ):
        pass


@dask
def test_workers_have_a_gpu_each_and_no_more_than_there_are(monkeypatch):
    built = []
    monkeypatch.setattr("distributed.SpecCluster", lambda **given: built.append(given))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,7")
    runners.cluster(3, gpus=1)
    options = [one["options"] for one in built[0]["workers"].values()]
    assert [one["env"]["CUDA_VISIBLE_DEVICES"] for one in options] == ["4", "5", "7"]
    assert [one["resources"] for one in options] == [{"GPU": 1}] * 3
    assert {one["nthreads"] for one in options} == {1}, "one model per worker"
    with pytest.raises(runners.NoRunner, match="4 workers with 1 GPU each, but 3 GPUs here"):
        runners.cluster(4, gpus=1)


@dask
def test_work_that_kills_its_workers_is_named(monkeypatch):
    from distributed import KilledWorker

    class Future:
        def __init__(self, *call):
            pass

        def result(self):
            raise KilledWorker("key", "worker", 3)

    monkeypatch.setattr(runners, "_width", lambda: 1)
    monkeypatch.setattr("prefect.futures.as_completed", lambda futures: futures)
    task = SimpleNamespace(submit=Future, name="shard")
    with pytest.raises(runners.WorkersDied, match=r"shard \('out', 7\) ended every worker that tried it"):
        list(runners.spread(task, [("out", 7)]))


@dask
def test_shards_are_handed_out_a_few_at_a_time(monkeypatch):
    """A million images are thousands of shards; Prefect and the scheduler see a few of them."""
    pending: set[int] = set()
    most = []

    class Future:
        def __init__(self, number):
            self.number = number
            pending.add(number)
            most.append(len(pending))

        def result(self):
            pending.discard(self.number)
            return self.number * 10

    monkeypatch.setattr(runners, "_width", lambda: 2)
    monkeypatch.setattr("prefect.futures.as_completed", lambda futures: reversed(futures))
    task = SimpleNamespace(submit=Future)
    done = list(runners.spread(task, [(number,) for number in range(50)]))
    assert sorted(done) == [(number, number * 10) for number in range(50)]
    assert max(most) == 2 * runners.AHEAD


# -- accelerate ----------------------------------------------------------------------------------------------------
def test_two_processes_of_accelerate_write_what_one_process_writes(images, plain, tmp_path):
    out, log = tmp_path / "out", tmp_path / "log"
    code = "import sys\nfrom veridical.cli.main import app\napp(sys.argv[1:])"
    (tmp_path / "program.py").write_text(code, encoding="utf-8")
    words = ["caption", images, "--out", out, "--shard-size", 3, "--batch-size", 2, "--max-new-tokens", 4]
    launch = ["-m", "accelerate.commands.launch", "--num_processes", 2, "--num_machines", 1, "--multi_gpu"]
    with log.open("wb") as file:
        done = subprocess.run(
            [*map(str, (sys.executable, *launch, tmp_path / "program.py", *words, "--runner", "accelerate"))],
            stdout=file, stderr=subprocess.STDOUT, check=False, timeout=300, cwd=tmp_path,
        )  # fmt: skip
    records = log.read_text("utf-8")
    assert contents(out) == plain, records
    assert done.returncode == 1, "one image is none"
    assert records.count("1 of 24 images have no caption") == 1, records
    assert sorted(shards(out)) == list(range(8))


def test_accelerate_on_the_cpu_is_one_process_and_does_the_whole_job(images, plain, tmp_path, monkeypatch):
    """`accelerate launch --cpu` starts the program with this variable and without a rank."""
    from accelerate import PartialState

    for name in accelerate.RANKS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    try:
        path = accelerate.caption(Captioning([str(images)], **QUESTIONS), str(tmp_path / "out"))
    finally:
        PartialState._reset_state()
    assert path == str(tmp_path / "out" / "summary.json")
    assert contents(tmp_path / "out") == plain
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "", "nobody computes on a GPU"


# -- what cannot run -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--runner", "slurm"], "no runner 'slurm'. Known: local, dask, ray, accelerate"),
        (["--runner", "local", "--workers", "2"], "--runner local takes no --workers"),
        (["--runner", "dask", "--no-prefect"], "not with --no-prefect"),
        (["--runner", "accelerate"], "accelerate launch --multi_gpu --num_processes 8"),
        (["--runner", "dask", "--workers", "2", "--cluster", "x:1"], "choose one of the two"),
    ],
)
def test_what_cannot_run_is_said_before_anything_is_loaded(veridical, images, tmp_path, monkeypatch, words, message):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    real = importlib.util.find_spec
    there = lambda name, *more: name if name in runners._EXTRA.values() else real(name, *more)
    monkeypatch.setattr(runners.importlib.util, "find_spec", there)
    done = veridical("caption", images, "--out", tmp_path / "out", *words)
    assert done.exit_code == 2
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("version", "records"), [("2.51.9", "needs ray 2.52 or newer"), ("2.52.0", ""), ("3.0", "")])
def test_a_ray_that_asks_for_no_token_is_refused(monkeypatch, version, records):
    monkeypatch.setattr(runners.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(runners.importlib.metadata, "version", lambda name: version)
    if not records:
        runners.check("ray", None, None)
        return
    with pytest.raises(runners.NoRunner, match=records + r", which asks for a token .*; found 2\.51\.9: pip install"):
        runners.check("ray", None, None)


def test_a_local_ray_has_a_secret_that_goes_with_it_and_what_is_set_stays(monkeypatch):
    names = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", runners.RAY_CLUSTERS)
    for name in names:
        monkeypatch.delenv(name, raising=False)
    secrets = set()
    for _ in range(2):
        with runners._closed():
            assert (os.environ["RAY_AUTH_MODE"], os.environ[runners.RAY_CLUSTERS]) == ("token", "0")
            secrets.add(os.environ["RAY_AUTH_TOKEN"])
    assert len(secrets) == 2
    assert min(map(len, secrets)) == 64
    assert not set(names) & set(os.environ)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv(runners.RAY_CLUSTERS, "1")
    with runners._closed():
        assert "RAY_AUTH_TOKEN" not in os.environ
        assert os.environ[runners.RAY_CLUSTERS] == "1"


def test_a_missing_extra_says_what_to_install(veridical, images, tmp_path, monkeypatch):
    monkeypatch.setattr(runners.importlib.util, "find_spec", lambda name: None)
    for kind in ("ray", "dask"):
        done = veridical("caption", images, "--out", tmp_path / "out", "--runner", kind)
        assert done.exit_code == 2
        assert f"--runner {kind} needs the package prefect-{kind}: pip install 'veridical[{kind}]'" in done.stderr


def test_workers_are_for_many_images(veridical, images):
    done = veridical("caption", images / "00.png", "--runner", "dask")
    assert done.exit_code == 2
    assert "add --out FOLDER" in done.stderr
