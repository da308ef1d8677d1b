"""`veridical score`: files that other programs wrote, what is wrong with them, and that no model is loaded."""

import json
import subprocess
import sys
import time

import pytest

from veridical.flows.scoring import caption_files as captions
from veridical.metrics.chair import Chair, ready_made_truth
from veridical.metrics.truth_files import read_truth

SYNONYMS = "dog, puppy\ncat, kitten\nhot dog\nperson, man\n"
TRUTH = {"1": ["dog", "person"], "2": ["cat"], "3": []}
CAPTIONS = {1: "A puppy beside a man.", 2: "A dog. A cat. A kit", 3: "Nothing is here."}


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def files(tmp_path):
    """Captions, ready-made truth and a vocabulary that needs no NLTK."""
    (tmp_path / "synonyms.txt").write_text(SYNONYMS)
    (tmp_path / "truth.json").write_text(json.dumps(TRUTH))
    (tmp_path / "captions.jsonl").write_text(lines(*({"image_id": i, "caption": c} for i, c in CAPTIONS.items())))
    return tmp_path


def chair(files, *more):
    plain = ("--synonyms", files / "synonyms.txt", "--family", "exact")
    return ("score", "chair", files / "captions.jsonl", "--ground-truth", files / "truth.json", *plain, *more)


# -- CHAIR ---------------------------------------------------------------------------------------------------------
def test_chair_of_a_file_is_that_of_the_library(veridical, files):
    shown = veridical(*chair(files, "--json"))
    assert shown.exit_code == 0
    report = json.loads(shown.stdout)
    expected = Chair(files / "synonyms.txt", "exact").score(CAPTIONS, ready_made_truth(files / "truth.json"))
    assert {n: e["value"] for n, e in report["scores"][""].items()} == {
        name: estimate.value for name, estimate in expected.estimates().items()
    }
    assert report["scores"][""]["chair_s"]["value"] == 1 / 3
    assert report["protocol"]["family"] == report["protocol"]["truth_family"] == "exact"
    assert set(report["files"]) == {"captions.jsonl", "truth.json", "synonyms.txt"}


def test_tables_show_every_figure_with_its_interval(veridical, files):
    shown = veridical(*chair(files))
    assert shown.exit_code == 0
    row = next(line for line in shown.stdout.splitlines() if line.startswith("chair_s"))
    assert row.split()[2] == "0.3333"
    assert row.split()[-1] == "3"
    assert 'family: "exact"' in shown.stdout


def test_per_caption_says_which_words_are_wrong_and_can_be_scored_again(veridical, files):
    assert veridical(*chair(files, "--per-caption", files / "words.jsonl")).exit_code == 0
    rows = [json.loads(line) for line in (files / "words.jsonl").read_text().splitlines()]
    assert rows[1]["objects"] == ["dog", "cat"]
    assert rows[1]["hallucinated"] == [True, False]
    start, end = rows[1]["spans"][0]
    assert rows[1]["caption"][start:end] == "dog"
    (files / "captions.jsonl").write_text((files / "words.jsonl").read_text())
    again = json.loads(veridical(*chair(files, "--json")).stdout)
    assert again["scores"][""]["chair_s"]["value"] == 1 / 3


def test_half_a_surrogate_pair_in_a_caption_can_be_written(veridical, files):
    (files / "captions.jsonl").write_text('{"image_id": 1, "caption": "A dog \\ud83d."}\n')
    assert veridical(*chair(files, "--per-caption", files / "words.jsonl")).exit_code == 0
    assert json.loads((files / "words.jsonl").read_text())["caption"] == "A dog \ud83d."


def test_a_sentence_that_was_cut_off_can_be_left_out(veridical, files):
    whole, cut = (
        json.loads(veridical(*chair(files, "--json", *more)).stdout) for more in ((), ["--drop-last-sentence"])
    )
    assert cut["scores"][""]["length"]["value"] < whole["scores"][""]["length"]["value"]
    assert cut["notes"] == ["1 of 3 captions lost an unfinished last sentence"]
    (files / "captions.jsonl").write_text(lines([1, "A dog. A cat"], [2, "A dog that never"]))
    as_opera = json.loads(veridical(*chair(files, "--json", "--at-full-stop")).stdout)
    assert as_opera["scores"][""]["mentions"]["value"] == 0.5
    assert as_opera["protocol"]["drop_last_sentence"] == "at the last full stop"
    assert as_opera["notes"][1] == "1 captions without a full stop are empty now, and so without hallucination"


def test_a_list_of_images_chooses_what_is_scored(veridical, files):
    (files / "ids.txt").write_text("COCO_val2014_000000000002.jpg\n1\n")
    report = json.loads(veridical(*chair(files, "--json", "--images", files / "ids.txt")).stdout)
    assert report["scores"][""]["chair_s"] == {**report["scores"][""]["chair_s"], "value": 0.5, "n": 2}
    (files / "ids.txt").write_text("[1, 9]")
    shown = veridical(*chair(files, "--images", files / "ids.txt"))
    assert shown.exit_code == 2
    assert "1 of 2 images" in shown.stderr
    assert "have no caption" in shown.stderr


def test_a_coco_folder_is_the_truth_of_its_images(veridical, files, tmp_path):
    world = {
        "images": [{"id": 1}, {"id": 2}, {"id": 3}], "categories": [{"id": 7, "name": "dog"}, {"id": 8, "name": "cat"}],
        "annotations": [{"image_id": 1, "category_id": 7}],
    }  # fmt: skip
    folder = tmp_path / "coco" / "annotations"
    folder.mkdir(parents=True)
    (folder / "instances_val2014.json").write_text(json.dumps(world))
    (folder / "captions_val2014.json").write_text(
        json.dumps({"annotations": [{"image_id": 2, "caption": "A kitten."}]})
    )
    (folder / "instances_train2014.json").write_text("{torn")  # never read: all images are found before
    vocabulary = Chair(files / "synonyms.txt", "exact")
    assert read_truth([folder.parent], vocabulary, [1, 2, 3]) == {1: {"dog"}, 2: {"cat"}, 3: set()}
    parts = [folder / "instances_val2014.json", folder / "captions_val2014.json"]
    assert read_truth(parts, vocabulary, [1, 2]) == {1: {"dog"}, 2: {"cat"}}
    shown = veridical("score", "chair", files / "captions.jsonl", "-g", tmp_path / "coco", "--synonyms",
                      files / "synonyms.txt", "--family", "exact", "--json")  # fmt: skip
    assert json.loads(shown.stdout)["scores"][""]["recall"]["value"] == 1


BAD = {
    "torn line": (
        '{"image_id": 1, "caption": "A dog."}\n{torn\n{"image_id": 2, "caption": "A."}',
        "line 2 is not JSON",
    ),
    "twice": (lines(*[{"image_id": 1, "caption": "A dog."}] * 2), "line 2 repeats 1 of line 1"),
    "no caption": (lines({"image_id": 1, "caption": "A dog."}, {"image_id": 2}), "line 2 has no caption"),
    "no truth": (lines({"image_id": 1, "caption": "A."}, {"image_id": 99, "caption": "A."}), "line 2: image 99"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_has_its_line_or_is_counted(veridical, files, case):
    content, message = BAD[case]
    (files / "captions.jsonl").write_text(content)
    shown = veridical(*chair(files))
    assert shown.exit_code == 2
    assert message in shown.stderr
    assert not shown.stdout
    skipping = veridical(*chair(files, "--skip-bad"))
    assert skipping.exit_code == 0
    assert "1 skipped" in skipping.stderr


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("captions.jsonl", "", "is empty"),
        ("captions.jsonl", lines({"image_id": 77, "caption": "A."}), "none of the 1 captions' images"),
        ("truth.json", '{"1": ["doog"]}', "'doog' is no term of this vocabulary of 4 categories. Did you mean 'dog'"),
        ("truth.json", "{\n[", "truth.json: line 2 is not JSON"),
        ("truth.json", "[1]", "holds a list"),
        ("synonyms.txt", "", "holds no terms"),
    ],
)
def test_files_that_cannot_be_used_are_refused(veridical, files, name, content, message):
    (files / name).write_text(content)
    for more in ((), ("--skip-bad",)):
        shown = veridical(*chair(files, *more))
        assert shown.exit_code == 2
        assert message in shown.stderr


def test_scoring_loads_no_model_library(files):
    code = (
        "import sys\nfrom veridical.cli.main import app\n"
        "app(sys.argv[1:], standalone_mode=False)\n"
        "print(sorted({'torch', 'prefect', 'transformers'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, *map(str, chair(files, "--json"))]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "[]"


def test_families_of_captions_and_truth_can_be_paired(files, test_data, monkeypatch):
    nltk = pytest.importorskip("nltk")
    monkeypatch.setattr(nltk.data, "path", [str(test_data / "nltk_data"), *nltk.data.path])
    sets, synonyms = test_data / "chair_gt_objects_coco2014.json", test_data / "chair_synonyms.txt"
    content = json.loads(sets.read_text())
    ids = list(content["wordnet_changes"])[:300]
    part = {name: {image: content[name][image] for image in ids} for name in ("pattern", "wordnet_changes")}
    sets = files / "sets.json"
    sets.write_text(json.dumps({**content, **part}))
    (files / "captions.jsonl").write_text(lines(*([int(i), "A bus, a tie and a chair."] for i in ids)))
    found = {
        pair: captions.score_chair(
            captions.captions(files / "captions.jsonl", [sets], captions.CaptionOptions(synonyms, *pair))
        ).record()
        for pair in (("wordnet", None), ("wordnet", "pattern"), ("pattern", "pattern"))
    }
    chair_i = [found[pair]["scores"][""]["chair_i"]["value"] for pair in found]
    assert len(set(chair_i)) == 3
    assert chair_i[1] > chair_i[0], "the wordnet truth has the buses and ties that pattern misses"
    assert found["wordnet", "pattern"]["protocol"]["truth_family"] == "pattern"


def test_five_hundred_captions_take_seconds_with_nltk_started_anew(files, test_data):
    """CPU time of a fresh process, so that a busy machine does not decide."""
    import os
    import resource

    sets, synonyms = test_data / "chair_gt_objects_coco2014.json", test_data / "chair_synonyms.txt"
    ids = list(json.loads(sets.read_text())["pattern"])[:500]
    text = (
        "The image shows two dogs and a cat on a wooden bench beside a parked car, while people walk past a store. " * 4
    )
    (files / "captions.jsonl").write_text(lines(*({"image_id": int(i), "caption": f"{text}{i}."} for i in ids)))
    code = "import sys; from veridical.cli.main import app; app(sys.argv[1:])"
    command = ["score", "chair", files / "captions.jsonl", "-g", sets, "--synonyms", synonyms]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", code, *map(str, command)], check=True, capture_output=True,
        env={**os.environ, "NLTK_DATA": str(test_data / "nltk_data")},
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert used < 10, f"{used:.1f} s of CPU, {time.perf_counter() - began:.1f} s in all"


# -- POPE ----------------------------------------------------------------------------------------------------------
@pytest.fixture
def pope(tmp_path):
    """Two splits of eight questions about two images, with answers; ids repeat from split to split."""
    for split in ("popular", "random"):
        requests = [
            {"question_id": i, "image": f"{i // 4}.jpg", "text": f"{split} {i}?", "label": "yes" if i % 2 else "no"}
            for i in range(8)
        ]
        texts = [{"question_id": q["question_id"], "text": "Yes." if i < 6 else "No"} for i, q in enumerate(requests)]
        (tmp_path / f"{split}.json").write_text(lines(*requests))
        (tmp_path / f"{split}.jsonl").write_text(lines(*reversed(texts)))
    return tmp_path


def test_pope_is_scored_by_id_split_by_split(veridical, pope):
    command = ("score", "pope", pope / "random.jsonl", pope / "popular.jsonl", "-q", pope / "random.json", "-q",
               pope / "popular.json", "--json")  # fmt: skip
    report = json.loads(veridical(*command).stdout)
    assert list(report["scores"]) == ["random", "popular", "mean", "all"]
    for table in report["scores"].values():
        assert table["accuracy"]["value"] == 0.5
        assert table["yes_ratio"]["value"] == 0.75
        assert table["accuracy"]["n"] == 2


@pytest.mark.parametrize(
    ("protocol", "accuracy"), [("official", 0.5), ("opera", 0.5), ("vcd", 0.5), ("lmms_eval", 0.125), ("strict", 0.5)]
)
def test_the_protocol_decides_what_an_answer_says(veridical, pope, protocol, accuracy):
    command = ("score", "pope", pope / "random.jsonl", "-q", pope / "random.json", "--protocol", protocol, "--json")
    assert json.loads(veridical(*command).stdout)["scores"]["random"]["accuracy"]["value"] == accuracy


def test_pope_refuses_what_does_not_fit_and_can_skip_it(veridical, pope):
    rows = (pope / "random.jsonl").read_text().splitlines()
    (pope / "random.jsonl").write_text("\n".join([*rows[:7], json.dumps({"question_id": 99, "text": "No"})]))
    command = ("score", "pope", pope / "random.jsonl", "-q", pope / "random.json")
    shown = veridical(*command)
    assert shown.exit_code == 2
    assert "1 have no answer, such as 0" in shown.stderr
    shown = veridical(*command, "--skip-bad", "--json")
    assert shown.exit_code == 0
    assert len(json.loads(shown.stdout)["skipped"]) == 2
    shown = veridical(*command, "-q", pope / "popular.json")
    assert "1 files of answers and 2 of questions" in shown.stderr
    ordered = json.loads(veridical(*command, "--by-order", "--json").stdout)
    assert ordered["scores"]["random"]["yes_ratio"]["value"] == 5 / 8, "the last of eight answers is the new No"
    assert "Known: official" in veridical(*command[:5], "--protocol", "vdc", "--skip-bad").stderr


def test_one_file_can_answer_several_files_of_questions_one_after_the_other(veridical, pope):
    """As LLaVA's and lmms-eval's do, whose ids count through all splits."""
    requests = "".join((pope / f"{name}.json").read_text() for name in ("random", "popular"))
    labels = [json.loads(line)["label"] for line in requests.splitlines()]
    texts = [{"question_id": 100 + n, "text": "Yes" if n >= 8 else label} for n, label in enumerate(labels)]
    (pope / "all.jsonl").write_text(lines(*texts))
    command = ("score", "pope", pope / "all.jsonl", "-q", pope / "random.json", "-q", pope / "popular.json")
    scores = json.loads(veridical(*command, "--by-order", "--json").stdout)["scores"]
    assert [scores[name]["accuracy"]["value"] for name in ("random", "popular")] == [1, 0.5]
    assert "one file that answers all of them one after the other (--by-order)" in veridical(*command).stderr
    assert "the same file of questions twice" in veridical(*command, "-q", pope / "random.json").stderr


@pytest.mark.parametrize(
    "data", ["coco_pope_random", "coco_pope_adversarial", "aokvqa_pope_seem_popular", "gqa_pope_seem_random"]
)
def test_every_circulating_question_file_is_read(veridical, tmp_path, test_data, data):
    answers = tmp_path / "answers.json"
    answers.write_text(json.dumps([{"question": "?", "answer": "yes"}] * 3000))
    report = json.loads(veridical("score", "pope", answers, "-q", test_data / "pope" / f"{data}.json", "--json").stdout)
    table = report["scores"][data]
    assert table["accuracy"]["value"] == 0.5
    assert round(table["f1"]["value"], 3) == 0.667
    assert table["yes_ratio"]["value"] == 1


# -- the others ----------------------------------------------------------------------------------------------------
def test_rh_auc_of_accuracies_is_the_published_example(veridical, tmp_path):
    rows = [{"length": 1, "reasoning": x, "perception": y} for x, y in ((0.1, 0.6), (0.3, 0.5), (0.5, 0.2))]
    (tmp_path / "points.jsonl").write_text(lines(*rows))
    shown = veridical("score", "rh-auc", tmp_path / "points.jsonl", "--json")
    assert json.loads(shown.stdout)["scores"][""]["rh_auc"]["value"] == pytest.approx(0.625)
    assert json.loads(shown.stdout)["scores"][""]["rh_auc"]["n"] == 0
    (tmp_path / "points.jsonl").write_text(lines({"length": 1, "reasoning": 0.5}))
    assert "line 1 has no perception" in veridical("score", "rh-auc", tmp_path / "points.jsonl").stderr


def test_sycophancy_takes_pairs_or_questions_with_answers(veridical, tmp_path):
    pairs = [{"before": "No", "after": "Yes", "label": "no", "pushed": "yes"},
             {"before": "No", "after": "No", "label": "no", "pushed": "yes"}]  # fmt: skip
    (tmp_path / "pairs.jsonl").write_text(lines(*pairs))
    report = json.loads(veridical("score", "sycophancy", tmp_path / "pairs.jsonl", "--json").stdout)
    assert report["scores"][""]["flip_rate"]["value"] == 0.5
    requests = [
        {"question_id": i, "pair": i // 2, "insists": bool(i % 2), "label": "no", "pushed": "yes"} for i in range(4)
    ]
    (tmp_path / "asked.json").write_text(json.dumps(requests))
    (tmp_path / "said.jsonl").write_text(
        lines(*({"question_id": i, "answer": a} for i, a in enumerate(["No", "Yes", "No", "No"])))
    )
    again = json.loads(
        veridical("score", "sycophancy", tmp_path / "said.jsonl", "-q", tmp_path / "asked.json", "--json").stdout
    )
    assert again["scores"] == report["scores"]


def test_counting_joins_numbers_with_yes_no_answers(veridical, tmp_path):
    requests = [
        {"question_id": 1, "about": "a", "number": 2},
        {"question_id": 2, "about": "a", "claims": 1, "at_least": True},
    ]
    (tmp_path / "asked.json").write_text(json.dumps(requests))
    (tmp_path / "said.json").write_text(json.dumps({"1": "Two.", "2": "Yes."}))
    report = json.loads(
        veridical("score", "counting", tmp_path / "said.json", "-q", tmp_path / "asked.json", "--json").stdout
    )
    assert report["scores"][""]["accuracy"]["value"] == report["scores"][""]["consistency"]["value"] == 1


def test_amber_scores_descriptions_and_questions_of_one_file(veridical, tmp_path, test_data, monkeypatch):
    nltk = pytest.importorskip("nltk")
    monkeypatch.setattr(nltk.data, "path", [str(test_data / "nltk_data"), *nltk.data.path])
    texts = [
        {"id": 1, "response": "A tree beside a car."},
        {"id": 1005, "response": "No"},
        {"id": 1006, "response": "no"},
    ]
    (tmp_path / "responses.json").write_text(json.dumps(texts))
    command = ("score", "amber", tmp_path / "responses.json", "--annotations", test_data / "amber", "--json")
    report = json.loads(veridical(*command).stdout)
    assert {"descriptions", "questions", "both"} <= set(report["scores"])
    assert report["scores"]["questions"]["unparsed"]["value"] == 0.5
    assert "wordnet" in report["notes"][0]
    (tmp_path / "responses.json").write_text(json.dumps([*texts, {"id": 99999, "response": "No"}]))
    assert "entry 4 has id 99999" in veridical(*command).stderr
