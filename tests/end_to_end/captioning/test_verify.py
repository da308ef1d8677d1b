"""`veridical verify`, and a job whose files lost or changed bits: nothing stops with a trace, nothing wrong passes."""

import json
import random
import shutil
from pathlib import Path

import pytest
from PIL import Image

from veridical.flows.captioning import run
from veridical.flows.captioning.job import Damaged, Job
from veridical.flows.captioning.request import EMBEDDED, Captioning
from veridical.flows.captioning.verify import verify
from veridical.pipelines.model.spec import load
from veridical.pipelines.results import Answer


@pytest.fixture
def canned(monkeypatch):
    """Answers without a model: the colour of a corner."""

    def answer(self, images, *arguments, **options):
        return [Answer(str(image.getpixel((0, 0)))) for image in images]

    monkeypatch.setattr(type(load(EMBEDDED)), "answer", answer)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number in range(6):
        Image.new("RGB", (20, 20), (number, 0, 0)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def job(images, tmp_path, canned) -> Path:
    """A finished job of three shards."""
    again(images, tmp_path / "job")
    return tmp_path / "job"


def again(images: Path, out: Path) -> None:
    run.captioning(Captioning([str(images)], shard_size=2, form="jsonl"), str(out))


def contents(out: Path) -> dict[str, bytes]:
    kept = ("captions.jsonl", "summary.json", "job.json", "plan.parquet", "shards/000001.jsonl")
    return {name: (out / name).read_bytes() for name in kept}


def test_a_whole_job_has_no_fault(job, veridical):
    shown = veridical("verify", job)
    assert (shown.exit_code, shown.stdout) == (0, f"{job}: 0 faults; finished\n")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ledger.jsonl", "ledger.jsonl: line 1 is damaged"),
        ("shards/000001.jsonl", "shards: shard 1 is not as the ledger says"),
        ("captions.jsonl", "summary.json: it says that the job is finished"),
        ("shards/000009.jsonl", "shards: 1 files belong to no shard, such as 000009.jsonl"),
    ],
)
def test_damage_is_named_and_repaired_and_the_same_command_ends_in_the_same_bytes(
    images, job, veridical, name, message
):
    before = contents(job)
    path = job / name
    path.write_bytes(b"?" + (path.read_bytes()[1:] if path.exists() else b""))
    shown = veridical("verify", job)
    assert shown.exit_code == 1
    assert f"damaged: {message}" in shown.stdout
    assert path.read_bytes().startswith(b"?"), "looking changes nothing"
    assert veridical("verify", job, "--repair").exit_code == 0
    again(images, job)
    assert contents(job) == before
    assert verify(str(job)).faults == []


def test_a_lost_or_damaged_job_json_is_written_again_by_the_same_command(images, job, veridical):
    before = contents(job)
    for damaged in ('{"version": 2}', "", '["no job"]', before["job.json"].decode().replace('"seed": 0', '"seed": 1')):
        (job / "job.json").write_text(damaged)
        with pytest.raises(Damaged, match=r"job\.json is damaged \(.*\): start the command that began this job"):
            Job.read(job)
        shown = veridical("verify", job)
        assert shown.exit_code == 1
        assert "job.json is damaged" in shown.stdout
        again(images, job)
        assert contents(job) == before
    (job / "job.json").unlink()
    again(images, job)
    assert contents(job) == before


def test_a_damaged_job_json_is_not_written_again_by_another_command(images, job):
    (job / "job.json").write_text("")
    with pytest.raises(Damaged, match="this command on this machine did not make the shards"):
        run.captioning(Captioning([str(images)], shard_size=2, form="jsonl", seed=1), str(job))
    assert (job / "job.json").read_text() == ""


def test_no_flipped_bit_of_ledger_or_job_ends_otherwise_than_whole_or_in_a_sentence(images, job, tmp_path):
    before, dice = contents(job), random.Random(0)
    for number in range(60):
        out = Path(shutil.copytree(job, tmp_path / str(number)))
        path = out / ("ledger.jsonl" if number % 2 else "job.json")
        flipped = bytearray(path.read_bytes())
        flipped[dice.randrange(len(flipped))] ^= 1 << dice.randrange(8)
        path.write_bytes(flipped)
        again(images, out)
        assert contents(out) == before, number


def test_a_folder_without_a_job_is_named(tmp_path, veridical):
    shown = veridical("verify", tmp_path)
    assert shown.exit_code == 2
    assert "is " + str(tmp_path) + " the folder of `veridical caption" in shown.stderr


@pytest.mark.parametrize("damage", ["gone", "other"])
@pytest.mark.parametrize("kept", ["shards", "images"])
def test_a_plan_is_made_again_from_the_shards_or_from_the_images(images, job, veridical, tmp_path, damage, kept):
    before = contents(job)
    (job / "plan.parquet").unlink()
    if damage == "other":
        (job / "plan.parquet").write_bytes(b"x")
    shown = veridical("verify", job)
    assert shown.exit_code == 1
    assert "; --repair makes it again from the shards or the images, if it can" in shown.stdout
    if kept == "images":
        next((job / "shards").iterdir()).unlink()
    hidden = images.rename(tmp_path / "hidden") if kept == "shards" else None
    shown = veridical("verify", job, "--repair")
    if hidden:
        hidden.rename(images)
    assert "repaired: plan.parquet was made again" in shown.stdout
    again(images, job)
    assert contents(job) == before
    assert verify(str(job)).faults == []


def test_a_plan_that_nothing_makes_again_is_a_fault_that_stays(images, job, veridical):
    (job / "plan.parquet").write_bytes(b"x")
    next((job / "shards").iterdir()).unlink()
    next(images.iterdir()).rename(images / "another name.png")
    shown = veridical("verify", job, "--repair")
    assert shown.exit_code == 1
    assert "plan.parquet is not the one that the job was begun with; neither the shards nor the images" in shown.stdout
    assert (job / "plan.parquet").read_bytes() == b"x"
    assert sorted(path.name for path in job.glob(".*")) == []


def test_a_line_of_an_earlier_version_has_no_checksum_and_counts(images, job):
    lines = [json.loads(line) for line in (job / "ledger.jsonl").read_text().splitlines()]
    plain = [{name: value for name, value in line.items() if name != "check"} for line in lines]
    (job / "ledger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in plain))
    assert verify(str(job)).finished
