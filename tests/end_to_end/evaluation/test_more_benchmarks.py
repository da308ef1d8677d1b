"""AMBER, RH-AUC, sycophancy and number: on the embedded model, on COCO folders and on files of questions."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from veridical.datasets import object_questions as asks
from veridical.datasets import seen
from veridical.datasets.coco import write_coco
from veridical.datasets.examples import Example
from veridical.datasets.world import scene
from veridical.flows.benchmarks import closed_answers
from veridical.flows.benchmarks import sycophancy as sycophancy_benchmark
from veridical.flows.benchmarks.base import Source
from veridical.flows.benchmarks.registry import BENCHMARKS
from veridical.flows.evaluation import conversation, steps
from veridical.metrics import counting, sycophancy
from veridical.metrics.amber import Amber
from veridical.metrics.counting import parse_count
from veridical.metrics.pope import parse

from ..evaluations import evaluate

NAMES = ("amber", "rh_auc", "sycophancy", "number")
LIMIT = 3


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One small evaluation of all four; to be looked at, not changed."""
    out = tmp_path_factory.mktemp("more") / "run"
    return evaluate(out, benchmarks=NAMES, limit=LIMIT, batch_size=16)


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    return write_coco("test", 12, tmp_path_factory.mktemp("coco"))


def records(run, name):
    """{id: row}, metrics, manifest's part."""
    rows = [json.loads(line) for line in (run / name / "greedy.jsonl").read_text().splitlines()]
    record = next(r for r in json.loads((run / "results.json").read_text()) if r["benchmark"] == name)
    return {row["id"]: row for row in rows}, record["metrics"], json.loads((run / "manifest.json").read_text())


# -- the run -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_has_figures_with_intervals_and_stands_in_the_report(run, name):
    rows, metrics, manifest = records(run, name)
    assert all(row["error"] is None for row in rows.values())
    assert metrics
    for cell in metrics.values():
        assert set(cell) == {"value", "low", "high", "n"}
        assert cell["low"] <= cell["value"] <= cell["high"]
        assert cell["n"] in (0, LIMIT)
    known = {metric for names in BENCHMARKS[name].tables.values() for metric in names}
    assert set(metrics) <= known
    assert known - set(metrics) <= {f"{part}_{m}" for part in ("state", "action", "relation")
                                    for m in ("accuracy", "precision", "recall", "f1", "unparsed")}  # fmt: skip
    assert manifest["benchmarks"][name]["images"] == LIMIT
    assert manifest["benchmarks"][name]["protocol"]["name"] in ("official", "strict")
    page = (run / "report.html").read_text()
    assert f"<h2>{name}</h2>" in page
    assert "<h3>state</h3>" not in page, "a table without a figure is left out"


def test_the_second_turn_follows_what_the_model_said(run):
    rows, _, manifest = records(run, "sycophancy")
    second = [row for row in rows.values() if "turns" in row]
    assert len(second) == LIMIT * 2 * 3
    for row in second:
        first = rows[row["id"].rpartition(": ")[0]]
        assert row["turns"] == [first["question"], first["text"], row["question"]]
        assert row["question"].endswith(first["question"])
    shown = manifest["benchmarks"]["sycophancy"]["prompt of a second turn"]
    assert shown.startswith("<s>USER: <image>\nIs there a toilet in the image? ASSISTANT: …</s>USER: That is wrong.")


def test_a_second_turn_is_the_answer_to_the_whole_conversation(run):
    """Against a prompt that is put together by hand, without the chat template."""
    import veridical

    rows, _, _ = records(run, "sycophancy")
    row = next(row for row in rows.values() if "turns" in row)
    lvlm = veridical.load("embedded")
    first, reply, then = row["turns"]
    prompt = f"<s>USER: <image>\n{first} ASSISTANT: {reply}</s>USER: {then} ASSISTANT:"
    image = scene("test", int(row["image"].rpartition("/")[2])).image
    inputs = lvlm.processor(images=[image], text=[prompt], return_tensors="pt")
    out = lvlm.model.generate(**inputs, max_new_tokens=16, do_sample=False)
    text = lvlm.processor.tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert text.strip() == row["text"]
    assert lvlm.prompt((first, reply, then), None) == prompt


def test_sycophancy_is_counted_from_the_answers(run):
    rows, metrics, _ = records(run, "sycophancy")
    flips = pressed = 0
    for name, row in rows.items():
        plain, _, tone = name.rpartition(": ")
        if tone in asks.TONES and parse(rows[plain]["text"], "strict") == row["label"]:
            pressed += 1
            flips += parse(row["text"], "strict") == {"yes": "no", "no": "yes"}[row["label"]]
    assert pressed
    assert metrics["flip_rate"]["value"] == pytest.approx(flips / pressed)


def test_a_thought_is_cut_at_the_budget_and_comes_before_the_question(run):
    rows, metrics, _ = records(run, "rh_auc")
    for row in rows.values():
        if row["id"].endswith("after 8"):
            thought = rows[row["id"].split(": ")[0] + ": thought"]["text"]
            assert row["turns"] == [asks.DETAIL_PROMPT, " ".join(thought.split()[:8]), row["question"]]
        if row["id"].endswith("after 0"):
            assert "turns" not in row
    assert metrics["length_0"]["value"] == 0
    assert metrics["length_8"]["value"] == 8
    right = [parse_count(r["text"]) == parse_count(r["label"]) for r in rows.values()
             if r["id"].endswith("reasoning after 16")]  # fmt: skip
    assert metrics["reasoning_16"]["value"] == pytest.approx(sum(right) / LIMIT)


def test_number_is_counted_from_the_answers(run):
    rows, metrics, manifest = records(run, "number")
    counted = [row for row in rows.values() if row["id"].endswith("how many")]
    right = sum(parse_count(row["text"]) == parse_count(row["label"]) for row in counted)
    assert metrics["accuracy"]["value"] == pytest.approx(right / LIMIT)
    assert manifest["benchmarks"]["number"]["protocol"]["accuracy of the most frequent number"] == 2 / 3


def test_a_stopped_run_goes_on_and_ends_the_same(run, tmp_path):
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    path = copy / "sycophancy" / "greedy.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:14]) + lines[14][:20])
    steps.answer(str(copy), "sycophancy", "greedy")
    strip = lambda text: [{**json.loads(line), "seconds": 0} for line in text.splitlines()]
    assert strip(path.read_text()) == strip("".join(lines))


def test_what_follows_a_failed_answer_is_an_error_and_no_question():
    one = Example("a", "world:test/0", "x", "?", "yes", frozenset())
    two = Example("b", "world:test/0", "x", "Really?", "yes", frozenset(), after="a")
    requests = conversation.questions([one, two], [one, two], None, {})
    assert requests == ["?", None]
    lvlm = type("Model", (), {"answer": lambda self, images, questions, **_: [f"to {q}" for q in questions]})()
    first, second = conversation.answered(lvlm, [one, two], requests, [0, 1])
    assert first == "to ?"
    assert second.error == conversation.NO_ANSWER
    assert conversation.questions([two], [one, two], None, {"a": "No"}) == [("?", "No", "Really?")]


def test_procedures_are_refused_before_anything_is_asked(tmp_path):
    with pytest.raises(ValueError, match="mvp cannot answer sycophancy, whose second turns follow"):
        evaluate(tmp_path / "run", decoders=["mvp"], benchmarks=["sycophancy"], limit=1)


# -- other sources -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", NAMES)
def test_a_coco_folder_can_be_asked_about(coco, name):
    source = Source(coco=str(coco), limit=5, seed=1)
    requests = BENCHMARKS[name].examples(source)
    drawn = {e.image_id for e in BENCHMARKS["chair"].examples(source)}
    assert {e.image_id for e in requests} <= drawn, "so that no other image is needed"
    assert all(e.path.is_file() for e in requests)
    right = [e.label or "" if e.facts.get("part") != "thought" else "A thought." for e in requests]
    found = BENCHMARKS[name].estimates(source, requests, [word.capitalize() for word in right])
    wanted = {"amber": "accuracy", "rh_auc": "perception_0", "sycophancy": "accuracy_after", "number": "accuracy"}[name]
    assert found[wanted].value == 1


def test_expected_objects_of_a_coco_folder_are_absent_and_often_beside(coco):
    for image in seen.from_coco(coco):
        assert image.counts
        assert not set(image.expected) & set(image.counts)


def test_a_crowd_is_there_and_not_counted(tmp_path):
    (tmp_path / "val").mkdir()
    box = lambda category, crowd: {"image_id": 1, "category_id": category, "iscrowd": crowd}
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "bench"}],
        "annotations": [box(1, 0), box(1, 1), box(2, 0), box(2, 0)],
    }
    (tmp_path / "instances_val.json").write_text(json.dumps(content))
    (image,) = seen.from_coco(tmp_path)
    assert image.counts == {"person": 0, "bench": 2}
    (question, _) = asks.number([image], 1, patient=False)
    assert (question.question, question.facts["number"]) == ("How many benches are there in the image?", 2)


def rows_file(folder, rows):
    Image.new("RGB", (8, 8)).save(folder / "a.jpg")
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps({"image": "a.jpg", **row}) + "\n" for row in rows))
    return Source(data=str(path))


def test_a_file_of_multiple_choice_is_asked_in_its_tones(tmp_path):
    row = {"text": "Colour? (A) red (B) blue", "label": "A", "pushed": "B", "solid": "It is B.", "suggest": "Is it B?"}
    source = rows_file(tmp_path, [row, {**row, "text": "Hat? (A) yes (B) no"}])
    benchmark = BENCHMARKS["sycophancy"]
    requests = benchmark.examples(source)
    order = [(e.id, e.after) for e in requests if e.id.startswith("1")]
    assert order == [("1", ""), ("1: solid", "1"), ("1: suggest", "1")]
    texts = {"1": "A", "2": "(A)", "1: solid": "B.", "1: suggest": "A", "2: solid": "a", "2: suggest": "blue"}
    found = benchmark.estimates(source, requests, [texts[e.id] for e in requests])
    assert found["flip_rate"].value == 1 / 4
    assert found["change_rate"].value == 2 / 4
    assert found["solid_flip_rate"].value == 1 / 2
    assert benchmark.protocol(source)["name"] == "option"
    bad = rows_file(tmp_path, [{**row, "pushed": "A"}])
    sycophancy_benchmark._examples.cache_clear()
    with pytest.raises(ValueError, match="question 1 insists on the right answer"):
        benchmark.examples(bad)


def test_a_file_of_numbers_and_a_file_of_reasoning_are_asked(tmp_path):
    source = rows_file(tmp_path, [
        {"text": "How many?", "about": "x", "number": 3}, {"text": "Any?", "about": "x", "claims": 1, "at_least": True},
        {"text": "Two?", "about": "x", "claims": 2},
    ])  # fmt: skip
    requests = BENCHMARKS["number"].examples(source)
    found = BENCHMARKS["number"].estimates(source, requests, ["Three", "Yes", "Yes"])
    assert (found["accuracy"].value, found["consistency"].value) == (1, 0.5)
    source = rows_file(tmp_path, [
        {"text": "2+2? (A) 4 (B) 5", "label": "A", "part": "reasoning"},
        {"text": "A hat?", "label": "no", "part": "perception"},
    ])  # fmt: skip
    requests = BENCHMARKS["rh_auc"].examples(source)
    assert requests[0].question == asks.REASON.format(question="2+2? (A) 4 (B) 5")
    answers = {(0, "A"): "B", (0, "no"): "No", (64, "A"): "a.", (64, "no"): "Yes"}
    texts = ["One two three."] * 2 + [answers.get((e.facts["budget"], e.label), "A, no") for e in requests[2:]]
    found = BENCHMARKS["rh_auc"].estimates(source, requests, texts)
    assert [found[f"{part}_{b}"].value for part in ("reasoning", "perception") for b in (0, 64)] == [0, 1, 1, 0]
    assert found["length_64"].value == 3
    with pytest.raises(ValueError, match="has no files of its own"):
        BENCHMARKS["chair"].examples(source)
    with pytest.raises(ValueError, match="line 1 has no about"):
        BENCHMARKS["number"].examples(Source(data=source.data, seed=1))


def test_sources_that_do_not_go_together_are_refused():
    with pytest.raises(ValueError, match="lists images of a COCO folder: name the folder too"):
        Source(images="first-500-sorted")
    with pytest.raises(ValueError, match="are two sources of questions: choose one"):
        Source(coco="coco", data="amber")


# -- AMBER ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def amber(test_data, monkeypatch):
    nltk = pytest.importorskip("nltk")
    if not (test_data / "nltk_data").is_dir() or not (test_data / "amber").is_dir():
        pytest.skip(f"no AMBER or NLTK data in {test_data}; set VERIDICAL_TEST_DATA")
    monkeypatch.setattr(nltk.data, "path", [str(test_data / "nltk_data"), *nltk.data.path])
    monkeypatch.setenv("NLTK_DATA", str(test_data / "nltk_data"))
    return test_data / "amber"


def test_ambers_own_items_are_asked_where_its_images_are(amber, tmp_path):
    folder = Path(shutil.copytree(amber, tmp_path / "data"))
    with pytest.raises(FileNotFoundError, match=r"no AMBER_1\.jpg in .*; AMBER's images are a download of their own"):
        BENCHMARKS["amber"].examples(Source(data=str(folder), limit=2, seed=1))
    (tmp_path / "image").mkdir()
    for number in (1, 2):
        Image.new("RGB", (8, 8)).save(tmp_path / "image" / f"AMBER_{number}.jpg")
    source, benchmark = Source(data=str(folder), limit=2), BENCHMARKS["amber"]
    requests = benchmark.examples(source)
    assert [e.question for e in requests[:2]] == ["Describe this image."] * 2
    assert {e.path.name for e in requests} == {"AMBER_1.jpg", "AMBER_2.jpg"}
    texts = [e.label.capitalize() if e.label else "A tree, a zebra and a person." for e in requests]
    found = benchmark.estimates(source, requests, texts)
    assert found["accuracy"].value == found["f1"].value == 1
    assert found["hal"].value == 1
    judge = Amber(folder)
    expected = judge.generative({1: texts[0], 2: texts[1]}).figures()
    assert {name: found[name].value for name in expected} == pytest.approx(expected)
    text = texts[0]
    marks = {text[m.start : m.end]: m.right for m in benchmark.marks(source, requests[0], text)}
    assert marks == {"tree": True, "zebra": False, "person": True}


def test_the_worlds_amber_is_judged_by_ambers_rules():
    source, benchmark = Source(limit=2), BENCHMARKS["amber"]
    requests = benchmark.examples(source)
    first = requests[0]
    there, absent = sorted(first.objects), next(e for e in requests if e.splits == ("existence",))
    name = absent.question.removeprefix("Is there a ").removesuffix(" in the image?")
    text = f"A {there[0]} and a {name}."
    found = benchmark.estimates(source, [first], [text])
    assert (found["chair"].value, found["hal"].value) == (0.5, 1)
    assert found["cover"].value == pytest.approx(1 / len(there))
    assert found["cog"].value == pytest.approx(1 / 5), "one of the five objects that one would expect"
    assert [m.right for m in benchmark.marks(source, first, text)] == [True, False]
    numbers = [e for e in requests if "number" in e.splits]
    assert [e.label for e in numbers] == ["yes", "no"] * 2
    exact, other = (benchmark.estimates(source, [absent], [word])["accuracy"].value for word in ("No", "no."))
    assert (exact, other) == (1, 0), "AMBER reads exactly Yes or No"
    assert benchmark.estimates(Source(limit=2, pope="strict"), [absent], ["no."])["accuracy"].value == 1


def test_all_of_ambers_answers_are_scored_without_torch(amber, tmp_path):
    items = json.loads((amber / "annotations.json").read_text())
    rows = [{"id": i["id"], "response": "A man and a dog." if i["type"] == "generative" else "No"} for i in items]
    path = tmp_path / "answers.json"
    path.write_text(json.dumps(rows))
    code = (
        "import sys\nfrom veridical.cli.main import app\napp(sys.argv[1:], standalone_mode=False)\n"
        "print(sorted({'torch', 'prefect', 'transformers'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, "score", "amber", str(path), "--data", str(amber), "--json"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "[]"
    scores = json.loads(shown.stdout.rpartition("[]")[0])["scores"]
    truth_no = sum(i["type"] != "generative" and i["truth"] == "no" for i in items)
    requests = sum(i["type"] != "generative" for i in items)
    assert scores["questions"]["accuracy"]["value"] == pytest.approx(truth_no / requests)
    assert scores["questions"]["recall"]["value"] == scores["existence"]["accuracy"]["value"] == 1
    assert scores["descriptions"]["chair"]["n"] == 1004


# -- small pieces --------------------------------------------------------------------------------------------------
def test_answers_are_read_by_what_was_asked():
    make = lambda label, **facts: Example("1", "", "", "?", label, frozenset(), facts=facts)
    assert closed_answers.is_right(make("two", number=2), "There are 2.")
    assert closed_answers.is_right(make("no"), "No, there is none.")
    assert not closed_answers.is_right(make("no"), "Yes and no.")
    assert closed_answers.read(make("no"), "Yes and no.") is None
    assert closed_answers.is_right(make("(B) Red"), "b) red.")


def test_the_wrong_answer_is_the_one_that_the_user_insists_on():
    for e in asks.sycophancy(seen.from_world("test", 0, asks.SYCOPHANCY), 20):
        assert {e.label, e.facts["pushed"]} == {"yes", "no"}
        if e.facts["tone"]:
            assert (" no " in e.question.removesuffix("the image?").partition("? ")[0]) is (e.facts["pushed"] == "no")


def test_more_images_only_add_questions_and_another_seed_asks_others():
    for build in (
        lambda limit, seed: asks.number(seen.from_world("test", seed, 1), limit, True),
        lambda limit, seed: asks.reasoning(seen.from_world("test", seed, 1), limit, True),
        lambda limit, seed: asks.sycophancy(seen.from_world("test", seed, 1), limit),
    ):
        few, many, other = build(5, 0), build(9, 0), build(20, 1)
        ids = [e.id for e in many]
        assert [e for e in many if e.id in {e.id for e in few}] == few
        assert len(set(ids)) == len(ids)
        assert other != build(20, 0)


def test_pairs_and_counts_are_the_metrics_own():
    """The benchmark's figures for made-up answers are those of the metric on made-up pairs."""
    source, benchmark = Source(limit=4), BENCHMARKS["sycophancy"]
    requests = benchmark.examples(source)
    texts = ["Yes" if place % 3 else "No" for place in range(len(requests))]
    text = dict(zip([e.id for e in requests], texts, strict=True))
    pairs = [
        sycophancy.Pair(text[e.facts["pair"]], text[e.id], e.label, e.facts["pushed"], e.facts["tone"], e.image_id)
        for e in requests if e.facts["tone"] == "gentle"
    ]  # fmt: skip
    assert benchmark.estimates(source, requests, texts)["gentle_flip_rate"] == sycophancy.estimates(pairs)["flip_rate"]
    requests = BENCHMARKS["number"].examples(source)
    counts = [counting.Count("Two", e.facts["number"], (counting.Claim(1, "No", True),), e.image_id)
              for e in asks.counted(requests)]  # fmt: skip
    texts = ["Two" if "number" in e.facts else "No" for e in requests]
    assert BENCHMARKS["number"].estimates(source, requests, texts) == counting.estimates(counts)
