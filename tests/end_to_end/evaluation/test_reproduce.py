"""`veridical reproduce`: a run from its manifest, and a paper's figures beside ours."""

import json
import re
import shutil

import pytest

from veridical.flows.evaluation import published as published_runs
from veridical.flows.evaluation import reproduce
from veridical.metrics.published import published

from ..evaluations import evaluate


@pytest.fixture(scope="module")
def again(small_run, tmp_path_factory):
    """The small run, repeated from its manifest."""
    return reproduce.reproduce(small_run, tmp_path_factory.mktemp("again") / "run")


@pytest.fixture
def copy(small_run, tmp_path):
    return shutil.copytree(small_run, tmp_path / "copy")


def rewrite(path, change):
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


# -- the manifest --------------------------------------------------------------------------------------------------
def test_the_manifest_has_everything_that_decides_a_number(small_run):
    manifest = json.loads((small_run / "manifest.json").read_text())
    model = manifest["model"]
    assert {"model", "revision", "weights", "template", "dtype", "attention", "device"} <= set(model)
    assert "USER: " in model["template"]
    assert manifest["decoders"]["vcd"] == "VCD(alpha=1.0, beta=0.1, noise_step=500, seed=0)"
    assert manifest["seed"] == 0
    for name, protocol in (("chair", "chair"), ("pope", "official")):
        part = manifest["benchmarks"][name]
        assert part["protocol"]["name"] == protocol
        assert part["version"]
        assert part["question"] in part["prompt"]
        assert part["generation"] == {"do_sample": False, "max_new_tokens": 24}
        assert len(part["image_ids"]) == 6
        assert re.fullmatch("[0-9a-f]{64}", part["data_sha256"])
    assert manifest["benchmarks"]["chair"]["protocol"]["family"] == "exact"
    assert {"python", "veridical", "torch", "transformers", "nltk"} <= set(manifest["versions"])
    assert {"cpu", "cores", "threads", "gpus"} <= set(manifest["hardware"])
    assert re.fullmatch("[0-9a-f]{64}", manifest["files"]["world_synonyms.txt"])


def test_another_protocol_asks_and_reads_otherwise(small_run, tmp_path):
    options = {"decoders": ["greedy"], "benchmarks": ["pope"], "limit": 1}
    out = tmp_path / "vcd"
    evaluate(out, **options, pope="vcd")
    manifest = json.loads((out / "manifest.json").read_text())["benchmarks"]["pope"]
    assert manifest["protocol"] == {"name": "vcd", "suffix": " Please answer this question with one word."}
    assert "? Please answer this question with one word." in manifest["prompt"]
    rows = [json.loads(line) for line in (out / "pope" / "greedy.jsonl").read_text().splitlines()]
    assert all(row["question"].endswith("one word.") for row in rows)
    with pytest.raises(ValueError, match=r"no POPE protocol 'vdc'\. Known: official"):
        evaluate(out, **options, pope="vdc")


# -- a run ---------------------------------------------------------------------------------------------------------
def test_a_repeated_run_is_equal(again, small_run):
    assert again.equal
    assert again.compared == sum(len(path.read_text().splitlines()) for path in small_run.glob("*/*.jsonl"))
    assert not again.machine
    assert not reproduce.stale(small_run)


def test_a_changed_answer_is_found_with_both_texts(again, copy):
    path = copy / "chair" / "vcd.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[3]["text"] = "A zebra."
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = reproduce.compared(copy, again.after)
    assert not found.equal
    [one] = found.answers
    assert (one.benchmark, one.decoder, one.example, one.before, one.number) == (
        "chair",
        "vcd",
        rows[3]["id"],
        "A zebra.",
        1,
    )
    assert one.after == json.loads((again.after / "chair" / "vcd.jsonl").read_text().splitlines()[3])["text"]
    assert reproduce.stale(copy), "its figures are still those of the true answers"


def test_a_changed_figure_is_found(again, copy):
    def better(records):
        records[0]["metrics"]["accuracy"]["value"] += 0.001

    rewrite(copy / "results.json", better)
    found = reproduce.compared(copy, again.after)
    assert [one[:3] for one in found.figures] == [("pope", "greedy", "accuracy")]
    assert not found.answers
    assert not found.equal
    assert reproduce.stale(copy)


def test_another_library_or_machine_is_noted_and_no_difference(again, copy):
    def elsewhere(manifest):
        manifest["versions"]["transformers"] = "5.0.0"
        manifest["hardware"]["cpu"] = "another"

    rewrite(copy / "manifest.json", elsewhere)
    found = reproduce.compared(copy, again.after)
    assert [(what, before) for what, before, _ in found.machine] == [
        ("versions.transformers", "5.0.0"), ("hardware.cpu", "another")
    ]  # fmt: skip
    assert found.equal


def test_other_weights_are_a_difference(again, copy):
    rewrite(copy / "manifest.json", lambda manifest: manifest["model"].update(weights="0" * 64))
    found = reproduce.compared(copy, again.after)
    assert [what for what, _, _ in found.manifest] == ["model.weights"]
    assert not found.equal


def test_the_command_says_equal_or_where_it_differs(veridical, copy, tmp_path):
    rewrite(copy / "manifest.json", lambda m: m["request"].update(decoders=["greedy"], benchmarks=["chair"]))
    rewrite(copy / "results.json", lambda records: records.__setitem__(slice(None), [
        record for record in records if (record["decoder"], record["benchmark"]) == ("greedy", "chair")
    ]))  # fmt: skip

    def small(manifest):
        for part in ("decoders", "settings", "benchmarks"):
            manifest[part] = {k: v for k, v in manifest[part].items() if k in ("greedy", "chair")}

    rewrite(copy / "manifest.json", small)
    shown = veridical("reproduce", copy)
    assert (shown.exit_code, shown.stdout.splitlines()[-1]) == (0, f"equal: 6 answers, {copy} and {copy}-again"), (
        shown.output
    )
    assert "holds something already" in veridical("reproduce", copy).stderr
    path = copy / "chair" / "greedy.jsonl"
    path.write_text(path.read_text().replace("The image", "An image", 1))
    shown = veridical("reproduce", copy, "--out", tmp_path / "other")
    assert shown.exit_code == 1
    assert "answers: chair, greedy: 1 of 6 differ, first " in shown.stdout
    assert "  then: An image" in shown.stdout
    assert "  now:  The image" in shown.stdout
    assert shown.stdout.splitlines()[-1].startswith("different: 6 answers")


def test_a_model_is_loaded_at_the_revision_that_answered(copy, tmp_path, monkeypatch):
    rewrite(copy / "manifest.json", lambda manifest: manifest["model"].update(revision="0123abc"))
    requests = []
    monkeypatch.setattr(reproduce.steps, "evaluation", lambda request, out: requests.append(request))
    monkeypatch.setattr(reproduce, "compared", lambda before, after: None)
    reproduce.reproduce(copy, tmp_path / "other", coco="elsewhere")
    [request] = requests
    assert (request.model.revision, request.source.coco, request.source.limit) == ("0123abc", "elsewhere", 6)


def test_what_cannot_be_repeated_is_refused(veridical, copy, tmp_path):
    rewrite(copy / "manifest.json", lambda manifest: manifest.update(finished=None))
    assert "holds no finished run" in veridical("reproduce", copy).stderr
    shown = veridical("reproduce", tmp_path / "none")
    assert shown.exit_code == 2
    assert "is it the folder of an evaluation" in shown.stderr or "no file" in shown.stderr
    for command in (("reproduce",), ("reproduce", copy, "--paper", "vista")):
        assert "either a folder of RESULTS, or --paper" in veridical(*command).stderr


# -- a paper -------------------------------------------------------------------------------------------------------
@pytest.fixture
def figures(tmp_path):
    """Made-up figures of the embedded model: one that ours must meet, one that it cannot."""
    setting = {
        "dataset": "world",
        "images": 4,
        "max_new_tokens": 12,
        "decoding": "beam 2",
        "prompt": "Describe the image.",
    }
    chair = {
        "paper": "0000.00001", "own": ["plain", "sla", "unheard"], "source": "made up", "benchmark": "chair",
        "setting": setting, "figures": ["chair_s", "length"],
        "rows": [
            ["plain", "embedded", [50.0, 500.0]], ["sla", "embedded", [50.0, None]],
            ["unheard", "embedded", [1.0, 2.0]],
        ],
    }  # fmt: skip
    other = {**chair, "paper": None, "own": [], "source": "somebody", "rows": [["plain", "embedded", [40.0, 9.0]]]}
    pope = {
        "paper": "0000.00001", "own": ["plain"], "source": "made up", "benchmark": "pope", "figures": ["accuracy"],
        "setting": {"dataset": "world", "split": "random", "images": 2}, "rows": [["plain", "embedded", [75.0]]],
    }  # fmt: skip
    far = {**pope, "setting": {"dataset": "aokvqa", "split": "random"}}
    papers = {"0000.00001": {"name": "made-up", "title": "Made up"}}
    path = tmp_path / "figures.json"
    path.write_text(
        json.dumps({"papers": papers, "models": {"embedded": ["embedded"]}, "tables": [chair, other, pope, far]})
    )
    return path


def test_a_papers_protocol_is_run_and_set_beside_its_figures(veridical, figures, tmp_path):
    command = (
        "reproduce",
        "--paper",
        "made-up",
        "--model",
        "embedded",
        "--figures",
        figures,
        "--out",
        tmp_path / "out",
    )
    shown = veridical(*command, "--json")
    assert shown.exit_code == 1, "a mean length of 500 tokens is in no interval of ours"
    report = {(line["method"], line["figure"]): line for line in json.loads(shown.stdout)["lines"]}
    assert set(report) == {("plain", "chair_s"), ("plain", "length"), ("sla", "chair_s"), ("plain", "random_accuracy")}
    assert report["plain", "chair_s"]["paper"] == 0.5
    assert report["plain", "chair_s"]["independent"] == [0.4, 0.4]
    assert report["plain", "chair_s"]["ours"]["n"] == 4
    assert report["plain", "length"]["inside"] is False
    for line in report.values():
        assert line["inside"] == (line["ours"]["low"] <= line["paper"] <= line["ours"]["high"])
    manifest = json.loads((tmp_path / "out" / "chair-world-beam-2-12" / "manifest.json").read_text())
    chair = manifest["benchmarks"]["chair"]
    assert chair["question"] == "Describe the image."
    assert chair["generation"] == {"do_sample": False, "max_new_tokens": 12, "num_beams": 2}
    shown = veridical(*command, "--benchmark", "chair")
    assert "not in this project: unheard" in shown.stderr
    row = next(line.split() for line in shown.stdout.splitlines() if line.startswith("plain") and "length" in line)
    assert row[-3:] == ["500.0", "9.000", "no"]


def test_runs_that_cannot_be_made_say_why(veridical, figures, tmp_path):
    runs = published_runs.plan("made-up", "embedded", path=figures)
    assert [one.obstacle for one in runs if one.obstacle] == ["questions of aokvqa need images and files of their own"]
    shown = veridical("reproduce", "--list", "--figures", figures)
    assert [line.split()[-1] for line in shown.stdout.splitlines() if line.startswith("made-up")][:2] == ["yes", "yes"]
    shown = veridical("reproduce", "--paper", "vista", "--model", "llava-hf/llava-1.5-7b-hf", "--out", tmp_path / "out")
    assert shown.exit_code == 2
    assert "on COCO val2014: give --coco FOLDER" in shown.stderr
    assert not (tmp_path / "out").exists()
    shown = veridical("reproduce", "--paper", "vista", "--model", "minigpt-4", "--out", tmp_path / "out")
    assert "no Hub id of minigpt-4 is known" in shown.stderr
    shown = veridical("reproduce", "--paper", "vistas", "--model", "llava-1.5-7b", "--out", tmp_path / "out")
    assert "Did you mean vista" in shown.stderr


def test_every_published_decoding_is_understood_or_said_not_to_be():
    seen = {
        (one.setting.get("decoding"), json.dumps(one.generation))
        for paper in {row.paper for row in published(kind="paper") if row.paper}
        for model in {row.model for row in published(paper=paper, kind="paper") if row.benchmark in ("chair", "pope")}
        for one in published_runs.plan(paper, model)
    }
    by_word = {word: {text for known, text in seen if known == word} for word, _ in seen}
    assert all('"num_beams": 5' in text for text in by_word["beam 5"])
    assert all('"top_p": 0.9' in text for text in by_word["nucleus 0.9"])
    assert all('"do_sample": true' in text and '"top_p": 1.0' in text for text in by_word["sampling"])
    assert all("do_sample" not in text and "num_beams" not in text for text in by_word["greedy"])
