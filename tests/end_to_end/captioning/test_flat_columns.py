"""Risk and what methods did as plain columns: in the CSV file of a job, and from Parquet by the lines of the docs."""

import csv
import json
import re
from pathlib import Path

import pytest
from PIL import Image

import veridical
from veridical.flows.captioning import exports, run, shard_format
from veridical.flows.captioning.request import Captioning
from veridical.metrics.captions_file import decoders_in, read_captions

SHORT = {"max_new_tokens": 4}
FIELDS = {"decoders": ["greedy", "vcd:alpha=0.5"], "detectors": ["entropy", "margin"], "generation": SHORT}
ACTED = [f"acted.vcd.{count}" for count in ("steps", "acted", "flipped", "kl")]
HEADER = ["id", "path", "sha256", "decoder", "caption", "error", "tokens", "risk.entropy", "risk.margin", *ACTED]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two images, and one that is none."""
    folder = tmp_path_factory.mktemp("images")
    for name in ("a.png", "c.png"):
        Image.effect_noise((20, 24), 80).save(folder / name)
    (folder / "b.png").write_bytes(b"no image")
    return folder


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_csv_file_has_a_column_for_each_risk_and_count_and_is_read_again(images, tmp_path):
    for form in ("csv", "jsonl"):
        run.captioning(Captioning([str(images)], form=form, shard_size=2, **FIELDS), str(tmp_path / form))
    path = tmp_path / "csv" / "captions.csv"
    with path.open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    assert [*found[0]] == HEADER
    for row, same in zip(found, shard_format.read(tmp_path / "jsonl" / "captions.jsonl"), strict=True):
        assert json.loads(row["tokens"]) == same["tokens"]
        for name in ("entropy", "margin"):
            cell = row[f"risk.{name}"]
            assert (json.loads(cell) if cell else None) == same["risk"].get(name)
        for count in ("steps", "acted", "flipped", "kl"):
            cell = row[f"acted.vcd.{count}"]
            assert (float(cell) if cell else None) == same["acted"].get("vcd", {}).get(count)
    assert [row["acted.vcd.steps"] != "" for row in found] == [False, True, False, False, False, True]
    assert decoders_in(path) == FIELDS["decoders"]
    assert read_captions(path, strict=False, decoder="greedy").by_id == {
        row["id"]: row["caption"] for row in found if row["decoder"] == "greedy" and not row["error"]
    }


def test_columns_are_there_without_a_caption_and_more_counts_come_behind_them():
    request = Captioning(["a"], **FIELDS)
    assert exports.flat_columns(request, []) == HEADER[7:]
    row = {"risk": {"mine": [0.5]}, "acted": {"vcd#1": {"steps": 1.0}, "vcd": {"steps": 1.0, "sharpness": 2.0}}}
    more = exports.flat_columns(request, [row])
    assert more == [*HEADER[7:9], "risk.mine", *ACTED, "acted.vcd#1.steps", "acted.vcd.sharpness"]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_lines_of_the_docs_make_rows_with_a_name_for_each_risk_and_count(images, tmp_path, monkeypatch):
    run.captioning(Captioning([str(images)], **FIELDS), str(tmp_path / "runs" / "photos"))
    text = (Path(veridical.__file__).parent / "docs" / "overnight.md").read_text(encoding="utf-8")
    lines = re.search(r"```python\n(rows = .*)\n(frame = pandas.*)\n```", text)
    monkeypatch.chdir(tmp_path)
    names = {"Path": Path, "shard_format": shard_format}
    exec(lines[1], names)
    rows = names["rows"]
    assert [(row["id"], row["decoder"]) for row in rows][1] == ("a.png", FIELDS["decoders"][1])
    assert [*rows[1]["risk"]] == ["entropy", "margin"]
    assert all(isinstance(risk, float) for risk in rows[1]["risk"]["entropy"])
    assert sorted(rows[1]["acted"]["vcd"]) == ["acted", "flipped", "kl", "steps"]
    normalized = []
    exec(lines[2], {"rows": rows, "pandas": type("Pandas", (), {"json_normalize": normalized.append})})
    assert normalized == [rows]
