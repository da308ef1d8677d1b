"""The attention in the report of a captioning job: whose it is, that it comes last, and that it costs no caption."""

import json
import re

import pytest

from veridical.datasets.world import scene
from veridical.flows.captioning import report, run
from veridical.flows.captioning.job import Job
from veridical.flows.captioning.request import Captioning
from veridical.flows.report import maps
from veridical.flows.report.attended import NoAttention
from veridical.pipelines.attention_maps import attention_maps
from veridical.pipelines.model.spec import load

DECODERS = ("greedy", "vcd")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    for number in range(4):
        scene("test", number).image.save(folder / f"{number}.png")
    (folder / "1.png").write_bytes(b"no image")
    return folder


def request(images, **changes):
    return Captioning(
        (str(images),), decoders=DECODERS, batch_size=3, shard_size=2, generation={"max_new_tokens": 6}, **changes
    )


@pytest.fixture(scope="module")
def job(images, tmp_path_factory):
    out = tmp_path_factory.mktemp("job")
    run.captioning(request(images), str(out))
    return out


def shown(out):
    """The data of the browser in a report."""
    text = (out / "report.html").read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])


def test_every_caption_that_is_shown_has_the_attention_of_its_words(job):
    rows = report.read_attention(job / report.ATTENTION)
    assert [(row["id"], row["decoder"]) for row in rows] == [
        (f"{number}.png", name) for number in (0, 2, 3) for name in DECODERS
    ]
    data = shown(job)
    assert data["attention"] == 3
    for one in data["examples"]:
        for answer in one["answers"]:
            assert (answer["error"] is None) == ("maps" in answer)
            assert "maps" not in answer or (len(answer["maps"]) == len(answer["words"]) and all(answer["maps"]))


def test_it_is_that_of_the_model_alone_reading_the_caption(job, images):
    (row,) = [row for row in report.read_attention(job / report.ATTENTION) if row["id"] == "2.png"][:1]
    there = Job.read(job)
    alone = attention_maps(load(there.request.model), str(images / "2.png"), row["text"], there.request.question)
    # as one byte of the largest: half a step of rounding, and what a batch changes in the last bits
    for packed, token in zip(row["maps"], range(len(alone.tokens)), strict=True):
        found, expected = maps.unpacked(packed, *row["grid"]), alone.overlay(token)
        assert abs(found / 255 - (expected / expected.max()).numpy()).max() < 0.004


def test_a_number_bounds_it_whatever_the_size_of_the_job(images, tmp_path):
    run.captioning(request(images, attention_maps=1), str(tmp_path / "one"))
    rows = report.read_attention(tmp_path / "one" / report.ATTENTION)
    assert [(row["id"], row["decoder"]) for row in rows] == [("0.png", name) for name in DECODERS]
    run.captioning(request(images, attention_maps=0), str(tmp_path / "none"))
    assert not (tmp_path / "none" / report.ATTENTION).exists()
    assert shown(tmp_path / "none")["attention"] == 0
    assert "Attention over the images was not read" in (tmp_path / "none" / "report.html").read_text()


def test_the_images_are_those_that_the_report_shows_first(job, monkeypatch):
    monkeypatch.setattr(report, "MOST", 2)
    assert [(place, row["id"]) for place, row in report._first(Job.read(job))] == [
        (place, f"{place}.png") for place in (0, 2) for _ in DECODERS
    ]


def test_a_job_without_it_goes_on_and_ends_in_the_bytes_of_one_in_a_single_run(job, images, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(run.Steps, "attend", lambda *arguments: pytest.fail("killed here"))
        with pytest.raises(pytest.fail.Exception):
            run.captioning(request(images), str(tmp_path), steps=run.Steps(attend=run.Steps.attend))
    run.captioning(request(images), str(tmp_path))
    for name in (report.ATTENTION, "report.html", "captions.parquet", "errors.jsonl"):
        assert (tmp_path / name).read_bytes() == (job / name).read_bytes(), name


def test_what_fits_is_kept_and_other_captions_are_read_anew(job, monkeypatch):
    calls = []
    monkeypatch.setattr(report, "attended", lambda *arguments: calls.append(arguments))
    before = (job / report.ATTENTION).read_bytes()
    report.attend(str(job))
    assert (calls, (job / report.ATTENTION).read_bytes()) == ([], before)
    (job / report.ATTENTION).write_bytes(before.partition(b"\n")[2])
    report.attend(str(job))
    assert len(calls) == 1
    assert not (job / report.ATTENTION).exists()
    monkeypatch.undo()
    report.attend(str(job))
    assert (job / report.ATTENTION).read_bytes() == before


def test_a_model_that_fails_at_it_costs_the_overlays_and_not_the_job(images, tmp_path, monkeypatch):
    def broken(*arguments):
        raise RuntimeError("out of memory\nmore")

    monkeypatch.setattr(report, "attended", broken)
    with pytest.warns(NoAttention, match="no attention over images: RuntimeError: out of memory$"):
        run.captioning(request(images), str(tmp_path))
    assert (tmp_path / "summary.json").exists()
    assert shown(tmp_path)["attention"] == 0
