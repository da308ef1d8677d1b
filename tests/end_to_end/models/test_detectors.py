"""Detectors from the command line: words with their risk out of the box, training, judging, and what is shipped."""

import json
import re
from pathlib import Path
from shutil import copytree

import pytest

import veridical as package
from veridical.datasets.captions import DETAIL_PROMPT
from veridical.datasets.world import scene
from veridical.flows.detection import steps, table
from veridical.flows.detection.request import Detection
from veridical.flows.detection.word_risk import rate
from veridical.models import DETECTORS, EMBEDDED
from veridical.pipelines.model.identity import fingerprint, shipped

TRAINED, TESTED = 24, 10


@pytest.fixture(scope="module")
def lvlm():
    return package.load("embedded", device="cpu")


# ---------------------------------------------------------------------- veridical detect


def test_every_word_is_shown_with_its_risk_and_risky_ones_are_marked(veridical, image_files):
    plain = veridical("caption", image_files.a).stdout.split()
    shown = veridical("detect", image_files.a, "--threshold", "0.05")
    assert shown.exit_code == 0, shown.stderr
    line, report = shown.stdout.splitlines()
    name, *words = line.split()
    assert name == "lookback_lens:"
    found = [re.fullmatch(r"(\[?)(.+)·(\d\.\d\d)(\]?)", word) for word in words]
    assert [one[2] for one in found] == plain
    assert all((one[1] == "[") == (one[4] == "]") == (float(one[3]) >= 0.05) for one in found if one[3] != "0.05")
    assert any(one[1] for one in found)
    listed = ", ".join(f"{one[2].strip('.,')} ({one[3]})" for one in found if one[1])
    assert report == f"  risk of 0.05 or more: {listed}"


def test_json_has_every_word_its_place_risk_and_mark(veridical, image_files):
    shown = veridical("detect", image_files.a, image_files.b, "-t", "lookback_lens", "-t", "entropy", "--json")
    records = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [record["image"] for record in records] == [str(image_files.a), str(image_files.b)]
    for record in records:
        assert set(record["words"]) == {"lookback_lens", "entropy"}
        assert record["thresholds"]["lookback_lens"] == 0.5
        for name, words in record["words"].items():
            assert [record["text"][word["start"] : word["end"]] for word in words] == record["text"].split()
            high = record["thresholds"][name]
            assert all(word["marked"] == (word["risk"] >= high) for word in words if word["risk"] is not None)
        assert any(word["marked"] for word in record["words"]["entropy"]), "of an untrained detector the riskiest fifth"


def test_a_given_text_is_rated_as_the_model_reads_it(veridical, image_files):
    own = veridical("caption", image_files.a).stdout.strip()
    name = "token_probability"
    (free, given), other = (
        [json.loads(veridical("detect", image_files.a, "--json", *more).stdout)["words"][name] for more in each]
        for each in ([("-t", name), ("--text", own)], [("--text", "There is a zebra.")])
    )
    assert [word["text"] for word in given] == own.split()
    assert [word["risk"] for word in given] == pytest.approx([word["risk"] for word in free], abs=1e-4)
    assert [word["text"] for word in other[0]] == ["There", "is", "a", "zebra."]


@pytest.mark.parametrize("detector", ["token_probability", "logit_lens"])
def test_in_a_text_from_elsewhere_a_wrong_object_has_a_higher_risk_than_a_true_one(lvlm, detector):
    for index, true in ((1, "book"), (2, "cup"), (3, "boat")):
        one, risks, marked = scene("test", index), {}, {}
        for word in (true, "giraffe"):
            found = rate(lvlm, one.image, DETAIL_PROMPT, [detector], f"A {word} in a room.")
            risks[word] = found.words[detector][1].risk
            marked[word] = word in [each.text for each in found.marked(detector)]
        assert risks["giraffe"] > risks[true], (index, risks)
        if detector == "token_probability":
            assert marked == {true: False, "giraffe": True}, (index, risks)


BEFORE_THE_WORD = ["lookback_lens", "entropy", "margin", "image_attention", "vhd", "position", "dhcp"]


@pytest.mark.parametrize("detector", BEFORE_THE_WORD)
def test_a_detector_of_the_step_before_a_word_is_refused_for_texts_from_elsewhere(veridical, image_files, detector):
    shown = veridical("detect", image_files.a, "-t", detector, "--text", "There is a giraffe.")
    assert shown.exit_code == 2, shown.output
    assert f"--text with {detector}: the risk is read at the step before" in shown.stderr
    assert "-t token_probability or -t logit_lens" in shown.stderr


def test_without_a_detector_a_text_is_judged_by_one_that_reads_its_words(veridical, image_files):
    record = json.loads(veridical("detect", image_files.a, "--text", "There is a giraffe.", "--json").stdout)
    assert list(record["words"]) == ["token_probability"]


def test_an_answer_has_one_risk(veridical, image_files):
    shown = veridical("detect", image_files.a, "-q", "Is there a dog in the image?", "--json")
    record = json.loads(shown.stdout)
    assert list(record["answer"]) == ["dhcp"]
    assert 0 <= record["answer"]["dhcp"] <= 1
    assert {word["risk"] for word in record["words"]["dhcp"]} == {record["answer"]["dhcp"]}, "its end counts as well"
    printed = veridical("detect", image_files.a, "-q", "Is there a dog in the image?").stdout
    assert f"risk of the answer: {record['answer']['dhcp']:.2f}" in printed


def test_a_bad_image_among_several_is_one_error(veridical, image_files):
    shown = veridical("detect", image_files.a, image_files.cut, "--json", "--text", "A dog.")
    first, second = map(json.loads, shown.stdout.splitlines())
    assert shown.exit_code == 1
    assert first["text"] == "A dog."
    assert "truncated" in second["error"]


# ---------------------------------------------------------------------- what is shipped


def test_the_shipped_detectors_belong_to_the_shipped_model(lvlm):
    names = sorted(path.parent.name for path in DETECTORS.glob("*/config.json"))
    assert {"lookback_lens", "dhcp"} <= set(names)
    for name in names:
        report = json.loads((shipped(name) / "config.json").read_text(encoding="utf-8"))
        assert report["detector"] == name
        assert report["model"]["weights"] == fingerprint(lvlm.model), "train the detectors again: the model has changed"
        assert {"auroc", "auprc", "ece"} <= set(report["metrics"])
        assert len(report["data"]["texts_sha256"]) == 64
    assert sum(path.stat().st_size for path in DETECTORS.rglob("*") if path.is_file()) < 2e6


def test_out_of_the_box_they_are_in_use_and_no_folder_has_to_be_named(lvlm):
    inputs = lvlm.prepare([scene("test", 0).image], [DETAIL_PROMPT])
    ids = package.generate(lvlm, inputs, max_new_tokens=12, do_sample=False).ids
    for name in ("lookback_lens", "dhcp"):
        found, bare = (
            package.score(lvlm, inputs, ids, [f"{name}{more}"])[name] for more in ("", f":weights={shipped(name)}")
        )
        assert found.equal(bare)
        assert bool(((found >= 0) & (found <= 1)).all())


def test_function_words_are_not_marked(lvlm):
    """A probe that knew mentions alone would mark four in ten of them."""
    found = [rate(lvlm, scene("validation", index).image, DETAIL_PROMPT, ["lookback_lens"]) for index in range(6)]
    plain = {"The", "image", "shows", "It", "also", "in", "on", "and"}
    risks = [word.risk for one in found for word in one.words["lookback_lens"] if word.text in plain]
    assert len(risks) > 30
    assert sum(risk >= 0.5 for risk in risks) <= 0.02 * len(risks)


def card_figures():
    """(task, detector's cell) -> the AUROC of the card's tables, value and interval."""
    text = (DETECTORS / "README.md").read_text(encoding="utf-8")
    found, task = {}, ""
    for line in text.splitlines():
        if line.startswith("### "):
            task = line[4:].split(":")[0]
        elif line.startswith("| `"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            found[task, cells[0]] = tuple(map(float, re.findall(r"-?\d\.\d+", cells[1])))
    return found


def test_the_card_has_the_control_and_chance_beside_every_detector():
    from veridical.detectors import NAMES

    found = card_figures()
    elsewhere = {"captions": {"halp", "answer_agreement"}, "pope": {"object_agreement"}}  # judge the other task alone
    for task in ("captions", "pope"):
        names = {re.match(r"`([a-z_]+)", cell)[1] for of, cell in found if of.split(",")[0] == task}
        assert {*NAMES, "random"} - elsewhere[task] <= names
        value, low, high = found[task, "`random`"]
        assert low <= 0.5 <= high
        assert abs(value - 0.5) < 0.06


def test_the_card_says_what_the_detectors_own_files_say():
    found = card_figures()
    for name, cell, task in (
        ("lookback_lens", "`lookback_lens`, trained on words", "captions"),
        ("dhcp", "`dhcp`, trained on answers", "pope"),
    ):
        own = json.loads((shipped(name) / "config.json").read_text(encoding="utf-8"))["metrics"]["auroc"]
        value, low, high = found[task, cell]
        assert max(low, own["low"]) <= min(high, own["high"]), "intervals of the same detector on test images overlap"
        assert value == pytest.approx(own["value"], abs=0.03)


# ---------------------------------------------------------------------- training and judging


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a Lookback Lens trained on a few captions, judged beside two others."""
    out = tmp_path_factory.mktemp("detectors") / "lens"
    request = {
        "task": "captions", "trained": "lookback_lens:weights=none", "detectors": ["entropy"], "images": TRAINED,
        "test_images": TESTED, "max_new_tokens": 40,
    }  # fmt: skip
    return steps.detection(Detection(**request), str(out)), request


def read(folder, name):
    return json.loads((Path(folder) / name).read_text(encoding="utf-8"))


def test_training_leaves_a_detector_and_a_table_with_its_controls(trained, lvlm):
    folder, _ = trained
    config, results = read(folder, "config.json"), read(folder, "results.json")
    assert config["data"]["unit"] == "words"
    assert config["data"]["source"] == "world:train"
    assert config["model"]["weights"] == fingerprint(lvlm.model)
    rows = {row["detector"].partition(":")[0]: row for row in results["rows"]}
    assert list(rows) == ["position", "entropy", "lookback_lens", "random"]
    assert rows["lookback_lens"]["trained"] == "words"
    assert rows["position"]["metrics"]["auroc_at_equal_position"]["value"] == 0.5
    for row in rows.values():
        for figure in row["metrics"].values():
            assert figure["low"] <= figure["value"] <= figure["high"] or figure["n"] == 0
    assert config["metrics"]["auroc"] == rows["lookback_lens"]["metrics"]["auroc"]


def test_no_image_is_in_both_parts(trained):
    request = Detection.read(trained[0])
    parts = [{example.image for example in request.examples(part)} for part in ("train", "test")]
    assert list(map(len, parts)) == [TRAINED, TESTED]
    assert parts[0].isdisjoint(parts[1])


def test_one_split_for_both_parts_is_cut_by_image(trained):
    request = Detection(task="pope", images=6, test_images=4, split="validation", test_split="validation")
    parts = [{example.image_id for example in request.examples(part)} for part in ("train", "test")]
    assert list(map(len, parts)) == [6, 4]
    assert parts[0].isdisjoint(parts[1])


def test_a_run_that_was_stopped_goes_on_and_ends_the_same(trained, tmp_path, monkeypatch):
    """Stopped before the fit: the texts are not written again, the detector is the same to the last bit."""
    folder, request = trained
    copytree(Path(folder) / "texts", tmp_path / "again" / "texts")
    monkeypatch.setattr("veridical.pipelines.generate.generate", None)  # nothing may be generated
    steps.detection(Detection(**request), str(tmp_path / "again"))
    assert (tmp_path / "again" / "detector.safetensors").read_bytes() == (
        Path(folder) / "detector.safetensors"
    ).read_bytes()
    with pytest.raises(ValueError, match="seed was 0, now 1"):
        steps.detection(Detection(**request, seed=1), str(tmp_path / "again"))


def test_what_was_trained_is_used_by_its_folder_and_saved_alone(veridical, trained, image_files, tmp_path):
    alone = steps.save(trained[0], str(tmp_path / "alone"))
    assert sorted(path.name for path in (tmp_path / "alone").iterdir()) == ["config.json", "detector.safetensors"]
    shown = [
        veridical("detect", image_files.a, "-t", f"lookback_lens:weights={folder}", "--json")
        for folder in (trained[0], alone)
    ]
    first, second = (next(iter(json.loads(one.stdout)["words"].values())) for one in shown)
    assert first == second


def test_the_table_names_a_probe_by_what_it_was_trained_on_and_not_by_its_folder(trained):
    report = table.markdown(read(trained[0], "results.json"))
    assert "| `lookback_lens`, trained on words |" in report
    assert str(trained[0]) not in report


BAD = {
    "nothing to train": (["train-detector", "-t", "entropy"], ["entropy has nothing to train", "lookback_lens"]),
    "whole answers": (["train-detector", "-t", "dhcp"], ["judges whole answers", "dhcp:rows=own"]),
    "unit": (["train-detector", "-t", "lookback_lens", "--unit", "letters"], ["unit='letters' is none of words"]),
    "three classes": (["train-detector", "-t", "dhcp", "--task", "pope", "--classes", "3"], ["2 (right, wrong)"]),
    "another network": (["train-detector", "-t", "halp", "--hidden", "9"], ["--hidden is of dhcp's network, and halp"]),
    "task": (["evaluate-detectors", "--task", "poem"], ['no task "poem". Known: captions, pope']),
    "name": (["evaluate-detectors", "-t", "entropi"], ['Did you mean "entropy"?']),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_trained_or_judged_is_one_message(veridical, tmp_path, case):
    arguments, expected = BAD[case]
    shown = veridical(*arguments, "--no-prefect", "--out", tmp_path / "out")
    assert shown.exit_code == 2, shown.output
    assert all(part in shown.stderr for part in expected), shown.stderr
    assert not (tmp_path / "out").exists()


def test_another_model_is_refused_with_the_reason(veridical, image_files, tmp_path):
    """The embedded model with one weight tensor changed, under another name."""
    from safetensors.torch import load_file, save_file

    copytree(EMBEDDED, tmp_path / "other")
    path = tmp_path / "other" / "model.safetensors"
    weights = load_file(path)
    name = next(name for name in weights if name.endswith("q_proj.weight"))
    save_file({**weights, name: weights[name] * 1.5}, path, metadata={"format": "pt"})
    for detector in ("dhcp", f"lookback_lens:weights={shipped('lookback_lens')}"):
        shown = veridical("detect", image_files.a, "-m", tmp_path / "other", "-t", detector)
        assert shown.exit_code == 2, shown.output
        assert ("none is shipped" if detector == "dhcp" else "has other weights") in shown.stderr
