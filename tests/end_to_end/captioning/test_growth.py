"""Images that come into a job's folder or list after its plan: a note, and `--add`."""

from pathlib import Path

import pytest
from PIL import Image

from veridical.flows.captioning import run, shard_format
from veridical.flows.captioning.growth import Grown
from veridical.flows.captioning.request import EMBEDDED, Captioning
from veridical.flows.captioning.verify import verify
from veridical.flows.evaluation.answer_file import OtherSettings
from veridical.pipelines.model.spec import load
from veridical.pipelines.results import Answer


@pytest.fixture(autouse=True)
def canned(monkeypatch):
    """Answers without a model: the colour of a corner and the seed."""

    def answer(self, images, *arguments, seed, **options):
        return [Answer(f"{image.getpixel((0, 0))[0]} {one}") for image, one in zip(images, seed, strict=True)]

    monkeypatch.setattr(type(load(EMBEDDED)), "answer", answer)


@pytest.fixture
def images(tmp_path) -> Path:
    (tmp_path / "images").mkdir()
    for number in (10, 20, 30, 40, 50):
        put(tmp_path / "images", number)
    return tmp_path / "images"


def put(folder: Path, number: int) -> None:
    Image.new("RGB", (20, 20), (number, 0, 0)).save(folder / f"{number}.png")


def job(images: Path, out: Path, **more: object) -> list[dict]:
    run.captioning(Captioning([str(images)], shard_size=2, form="jsonl"), str(out), **more)
    return shard_format.read(out / "captions.jsonl")


def test_a_folder_that_has_grown_is_noted_and_the_plan_stays(images, tmp_path):
    before = job(images, tmp_path / "out")
    put(images, 15)
    with pytest.warns(Grown, match=r"1 images have come into .*images since the job was planned; --add captions them"):
        assert job(images, tmp_path / "out") == before


def test_added_images_stand_behind_the_others_which_keep_their_rows(images, tmp_path):
    out = tmp_path / "out"
    before = job(images, out)
    first = {path.name: path.stat().st_mtime_ns for path in (out / "shards").iterdir()}
    put(images, 15)
    put(images, 60)
    after = job(images, out, add=True)
    assert after[:5] == before
    assert [(row["id"], row["caption"]) for row in after[5:]] == [("15.png", "15 5"), ("60.png", "60 6")]
    kept = {path.name: path.stat().st_mtime_ns for path in (out / "shards").iterdir()}
    assert [name for name in first if kept[name] == first[name]] == sorted(first)[:2], "the last was not full"
    assert verify(str(out)).faults == []
    assert job(images, out) == after, "without --add they stay"
    put(images, 70)
    assert [row["caption"] for row in job(images, out, add=True)][7:] == ["70 7"]


def test_the_command_notes_growth_of_a_finished_job_and_adds(veridical, images, tmp_path):
    words = ["caption", images, "--out", tmp_path / "out", "--no-prefect", "--format", "jsonl"]
    assert veridical(*words).exit_code == 0
    put(images, 15)
    shown = veridical(*words)
    assert shown.exit_code == 0
    assert "note: 1 images have come into" in shown.stderr
    assert veridical(*words, "--add").exit_code == 0
    assert len(shard_format.read(tmp_path / "out" / "captions.jsonl")) == 6
    assert "note" not in veridical(*words).stderr


def test_add_is_for_many_images(veridical, images):
    shown = veridical("caption", images / "10.png", "--add")
    assert shown.exit_code == 2
    assert "--add is for many images: add --out FOLDER" in shown.stderr


def listed(path: Path, *numbers: int) -> Path:
    path.write_text("".join(f"images/{number}.png\n" for number in numbers), encoding="utf-8")
    return path


def test_new_lines_of_a_list_are_added_behind_the_others(images, tmp_path):
    chosen, out = listed(tmp_path / "some.txt", 30, 10, 50), tmp_path / "out"
    before = job(chosen, out)
    assert [row["id"] for row in before] == ["images/10.png", "images/30.png", "images/50.png"]
    listed(chosen, 20, 30, 10, 50, 40)
    with pytest.raises(OtherSettings, match=r"some\.txt has changed since .* was planned: --add takes in"):
        job(chosen, out)
    after = job(chosen, out, add=True)
    assert after[:3] == before
    assert [(row["id"], row["caption"]) for row in after[3:]] == [("images/20.png", "20 3"), ("images/40.png", "40 4")]
    assert verify(str(out)).faults == []
    assert job(chosen, out) == after, "the list is known as it is now"
    assert {row["settings"] for row in after} == {before[0]["settings"]}


def test_a_list_that_has_lost_planned_lines_is_refused(images, tmp_path):
    chosen, out = listed(tmp_path / "some.txt", 10, 30), tmp_path / "out"
    job(chosen, out)
    listed(chosen, 20, 30)
    with pytest.raises(OtherSettings, match=r"1 of 2 planned images are not in .*some\.txt any more, such as "):
        job(chosen, out, add=True)


def test_the_command_notes_that_the_list_of_a_finished_job_has_grown_and_adds(veridical, images, tmp_path):
    chosen = listed(tmp_path / "some.txt", 10, 30)
    words = ["caption", chosen, "--out", tmp_path / "out", "--no-prefect", "--format", "jsonl"]
    assert veridical(*words).exit_code == 0
    listed(chosen, 10, 20, 30)
    shown = veridical(*words)
    assert shown.exit_code == 0
    assert "note: 1 images have come into" in shown.stderr
    assert veridical(*words, "--add").exit_code == 0
    assert len(shard_format.read(tmp_path / "out" / "captions.jsonl")) == 3
    assert "note" not in veridical(*words).stderr
