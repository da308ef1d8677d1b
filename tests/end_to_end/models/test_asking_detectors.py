"""Detectors that ask again, and one that knows before, through the flow that evaluates detectors and from the shell."""

import json
import math
from pathlib import Path

import pytest

from veridical.flows.detection import steps, table
from veridical.flows.detection.request import Detection
from veridical.flows.files import atomic
from veridical.pipelines.risk.calibration import read

ASKING = ["object_agreement:samples=1", "p_true:form=object"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An evaluation of captions of four images, twice: alone and with a detector that reads along."""
    out = tmp_path_factory.mktemp("asking") / "run"
    request = Detection("captions", ["entropy", *ASKING], test_images=4, max_new_tokens=24, batch_size=3)
    steps.detection(request, str(out))
    return out


def test_risks_of_those_that_ask_stand_beside_the_others_in_one_order(run):
    found = atomic.read_json(run / "risks.json")
    assert set(found["risks"]) == {"position", "entropy", *ASKING}
    assert {len(risks) for risks in found["risks"].values()} == {len(found["labels"])}
    assert {len(risks) for risks in found["sentences"]["risks"].values()} == {len(found["sentences"]["labels"])}
    assert set(found["risks"]["object_agreement:samples=1"]) <= {0.0, 1.0}
    assert all(0 < risk < 1 for risk in found["risks"]["p_true:form=object"])


def test_the_batch_does_not_matter(run, tmp_path):
    request = Detection("captions", ASKING, test_images=4, max_new_tokens=24, batch_size=8)
    steps.detection(request, str(tmp_path))
    one, other = (atomic.read_json(folder / "risks.json")["risks"] for folder in (run, tmp_path))
    for name in ASKING:
        assert sorted(one[name]) == pytest.approx(sorted(other[name]), abs=1e-5)


def test_the_card_says_what_each_costs(run):
    text = table.markdown(atomic.read_json(run / "results.json"))
    assert "| `object_agreement:samples=1` |" in text
    assert "| further captions, 5 by default |" in text
    assert text.splitlines()[2].endswith("| cost |")


def test_halp_learns_from_whole_captions(tmp_path):
    request = Detection("captions", trained="halp", images=24, test_images=3, max_new_tokens=24)
    steps.detection(request, str(tmp_path))
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["data"]["unit"] == "captions"
    assert (config["items"], config["probe"], config["features"]) == (24, "deep", 192)
    assert (tmp_path / "detector.safetensors").stat().st_size < 1.1 * 2 * 262_144 + 10_000, "matrices in two bytes"


def test_dhcp_is_as_wide_as_the_request_has_it(tmp_path):
    """--hidden of the command line ends in the shape of the weights; without it they are the paper's 128."""
    from safetensors.torch import load_file
    from typer.testing import CliRunner

    from veridical.cli.main import app

    words = ["train-detector", "-t", "dhcp", "--task", "pope", "--images", "8", "--test-images", "1", "--hidden", "3"]
    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path), "--no-prefect"])
    assert done.exit_code == 0, done.output
    assert load_file(tmp_path / "detector.safetensors")["weight_1"].shape[0] == 3
    assert Detection.read(tmp_path).hidden == 3
    assert Detection("pope", trained="dhcp", images=8).record().get("hidden") is None


def test_a_table_of_answers_has_the_question_alone_as_a_control(tmp_path):
    request = Detection("pope", ["margin"], test_images=3)
    steps.detection(request, str(tmp_path))
    rows = {row["detector"]: row for row in atomic.read_json(tmp_path / "results.json")["rows"]}
    assert set(rows) == {"position", "margin", "random", "question"}
    assert rows["question"]["metrics"]["ece"]["n"] == 3


def test_calibrations_are_made_from_the_shell(run, veridical, tmp_path):
    shown = veridical("calibrate-detectors", run, "--kind", "platt", "--out", tmp_path)
    assert shown.exit_code == 0, shown.stderr
    assert "entropy" in shown.stdout
    found = read(tmp_path / "entropy.json")
    assert {unit: curve.kind for unit, curve in found.curves.items()} == {"words": "platt", "sentences": "platt"}
    assert found.data["sources"] == ["world:test"]


def test_an_answer_has_the_probabilities_of_the_calibrations_that_are_named(run, veridical, tmp_path, image_files):
    folder = tmp_path / "mine"
    assert veridical("calibrate-detectors", run, "--kind", "platt", "--out", folder).exit_code == 0
    mine = json.loads(Path(folder, "entropy.json").read_text())
    mine["curves"] = {unit: {"kind": "platt", "knots": [[0.0, -1.0]]} for unit in ("words", "sentences", "answers")}
    (folder / "entropy.json").write_text(json.dumps(mine))
    words = (image_files.a, "-t", "entropy", "--max-new-tokens", 4, "--json")
    for command in (("caption",), ("answer", "-q", "Describe.")):
        shown = veridical(command[0], *words, *command[1:], "--calibrations", folder)
        probability = json.loads(shown.stdout)["probability"]["entropy"]
        assert probability == pytest.approx([1 / (1 + math.e)] * len(probability), abs=1e-6)
    none = veridical("caption", *words, "--calibrations", tmp_path)
    assert (none.exit_code, "no calibrations in" in none.stderr, "found mine" in none.stderr) == (2, True, True)
    job = veridical("caption", image_files.a, "--out", tmp_path / "job", "--calibrations", folder)
    assert (job.exit_code, "leave out --calibrations" in job.stderr) == (2, True)


def test_detect_takes_those_that_ask_also_for_a_text_from_elsewhere(veridical, image_files):
    text = ["--text", "A dog and a giraffe.", "-t", "p_true:form=object", "--json"]
    record = json.loads(veridical("detect", image_files.a, *text).stdout)
    risks = {word["text"].strip("."): word["risk"] for word in record["words"]["p_true:form=object"]}
    assert risks["and"] == 0.0
    assert min(risks["dog"], risks["giraffe"]) > 0
