"""A job that an earlier version began goes on, with its rows and under its settings.

The folder beside this file was written by the version before job.json had one (`veridical caption` on six scenes in
shards of two); what that version does not say of another machine is put in: where the images are, and its libraries.
"""

import json
import os
import shutil
from pathlib import Path

import pytest

from veridical.datasets.coco import write_coco
from veridical.flows.captioning import run, settings, shard_format
from veridical.flows.captioning.images import find
from veridical.flows.captioning.job import Job, write_plan
from veridical.flows.captioning.request import Captioning
from veridical.flows.evaluation import answer_file, provenance

OLD = Path(__file__).with_name("job_of_version_1")
FIELDS = {"detectors": ["entropy"], "batch_size": 2, "shard_size": 2, "generation": {"max_new_tokens": 12}}


@pytest.fixture
def begun(tmp_path, monkeypatch) -> Path:
    """The old job with its first shard finished, on images of the same names and content."""
    monkeypatch.chdir(tmp_path)
    write_coco("test", 6, tmp_path / "w6")
    out = Path(shutil.copytree(OLD, tmp_path / "job"))
    (out / "captions.parquet").unlink()
    record = json.loads((out / "job.json").read_text("utf-8"))
    record["settings"]["plan_sha256"] = write_plan(out / "plan.parquet", find(["w6/test"]).items)
    versions = provenance.versions()
    for name in ("veridical", "torch", "transformers", "pillow"):
        record["settings"][f"version of {name}"] = versions[name]
    (out / "job.json").write_text(json.dumps(record), encoding="utf-8")
    return out


def test_a_job_of_an_earlier_version_goes_on_and_ends_in_the_rows_that_it_would_have_had(begun):
    before = {name: (begun / name).read_bytes() for name in ("job.json", "shards/000000.parquet")}
    assert Job.read(begun).version == 1
    run.captioning(Captioning(["w6/test"], **FIELDS), str(begun))
    assert {name: (begun / name).read_bytes() for name in before} == before
    rows, old = (shard_format.read(folder / "captions.parquet") for folder in (begun, OLD))
    for row, same in zip(rows, old, strict=True):
        known = ("id", "decoder", "caption", "tokens", "error", "settings")
        assert [row[name] for name in known] == [same[name] for name in known]
        assert row["risk"]["entropy"] == pytest.approx(same["risk"]["entropy"], abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"), [({"seed": 3}, "seed was 0, now 3"), ({"detectors": []}, "detectors was")]
)
def test_a_job_of_an_earlier_version_is_refused_under_other_settings(begun, changes, message):
    with pytest.raises(answer_file.OtherSettings, match=message):
        run.captioning(Captioning(["w6/test"], **{**FIELDS, **changes}), str(begun))


def test_what_an_earlier_version_recorded_is_still_compared(begun):
    job = Job.read(begun)
    now = {**job.settings, "sources": [os.path.realpath("w6/test")]}
    assert settings.difference(job, {**now, "weights": "other"}).startswith('weights was "')
    assert settings.difference(job, {**now, "file tokenizer.json": "new"}) == ""


def test_a_job_of_a_later_version_says_what_to_do(begun):
    (begun / "job.json").write_text('{"version": 99}')
    with pytest.raises(answer_file.OtherSettings, match="has version 99; this veridical reads up to 2: update it"):
        run.captioning(Captioning(["w6/test"], **FIELDS), str(begun))
