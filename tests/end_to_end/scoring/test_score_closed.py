"""`veridical score` for RePOPE, MME, MMVP, HallusionBench and DASH-B, and `veridical data repope` from a mirror."""

import csv
import hashlib
import json
import lzma
import shutil

import pytest

from veridical.flows.files.published_data import REPOPE
from veridical.metrics import pope

SPLITS = ("random", "popular", "adversarial")


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def value(shown, table, figure):
    assert shown.exit_code == 0, shown.output
    return json.loads(shown.stdout)["scores"][table][figure]["value"]


def shown_text(shown):
    """What a command that failed printed, on one line."""
    assert shown.exit_code != 0
    return " ".join(shown.output.split())


# -- RePOPE --------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def mirror(test_data, tmp_path_factory):
    """The repositories' files below one folder, RePOPE's made from its changes."""
    root = tmp_path_factory.mktemp("mirror")
    changes = json.loads((test_data / "repope_changes.json").read_text())["splits"]
    for path in REPOPE:
        split = path.rsplit("_", 1)[-1].removesuffix(".json")
        source = test_data / "pope" / f"coco_pope_{split}.json"
        content = source.read_bytes()
        if "RePOPE" in path:
            change = changes[split]
            flipped = {**dict.fromkeys(change["yes_to_no"], "no"), **dict.fromkeys(change["no_to_yes"], "yes")}
            rows = [json.loads(line) for line in content.decode().splitlines()]
            content = lines(
                {**q, "label": flipped.get(q["question_id"], q["label"])}
                for q in rows if q["question_id"] not in change["removed"]
            ).encode()  # fmt: skip
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return root


@pytest.fixture
def repope(mirror, tmp_path):
    """The folder that `data repope` writes."""
    (tmp_path / "repope").mkdir()
    for path in REPOPE:
        shutil.copy(mirror / path, tmp_path / "repope")
    return tmp_path / "repope"


def answers_to(folder, split, text=lambda q: q["label"], **more):
    rows = pope.read_questions(folder / f"coco_pope_{split}.json")
    return [{"question_id": q["question_id"], "answer": text(q), **{k: of(q) for k, of in more.items()}} for q in rows]


def test_repopes_files_are_fetched_under_their_digests(veridical, mirror, serve, repope, tmp_path):
    shown = veridical("data", "repope", "--out", tmp_path / "fetched", "--from", serve(mirror))
    assert shown.exit_code == 0, shown.output
    fetched = {path.name: path.read_bytes() for path in (tmp_path / "fetched").iterdir()}
    assert fetched == {path.name: path.read_bytes() for path in repope.iterdir()}


def test_a_mirror_with_another_file_is_refused(veridical, mirror, serve, tmp_path):
    shutil.copytree(mirror, tmp_path / "m")
    first = tmp_path / "m" / next(iter(REPOPE))
    first.write_text(first.read_text().replace("snowboard", "surfboard", 1))
    shown = veridical("data", "repope", "--out", tmp_path / "out", "--from", serve(tmp_path / "m"))
    assert "is not the published file" in shown_text(shown)
    assert not list((tmp_path / "out").iterdir())


def test_popes_answers_are_scored_under_both_labels(veridical, repope, tmp_path):
    (tmp_path / "a.jsonl").write_text(lines(answers_to(repope, "random")))
    shown = veridical("score", "repope", tmp_path / "a.jsonl", "--split", "random", "--data", repope, "--json")
    assert value(shown, "random", "accuracy") == pytest.approx(0.948089, abs=5e-7)
    assert value(shown, "random", "balanced_accuracy") == pytest.approx(0.954809, abs=5e-7)
    assert value(shown, "random, POPE's labels", "accuracy") == 1
    about = json.loads(shown.stdout)["protocol"]
    assert (about["questions"], about["removed questions"], about["labels changed"]) == (2774, 226, 144)
    assert about["constant answers"]["always yes, random"]["accuracy"] == 0.417808


def test_the_split_is_found_by_the_questions_that_the_rows_hold(veridical, repope, tmp_path):
    prompt = lambda q: q["text"] + "\nAnswer the question using a single word or phrase."
    rows = answers_to(repope, "adversarial", prompt=prompt, image=lambda q: q["image"])
    (tmp_path / "a.jsonl").write_text(lines(rows))
    shown = veridical("score", "repope", tmp_path / "a.jsonl", "--data", repope, "--json")
    assert list(json.loads(shown.stdout)["scores"]) == ["adversarial", "adversarial, POPE's labels"]
    assert value(shown, "adversarial", "f1") == pytest.approx(0.930645, abs=5e-7)


def test_one_file_answers_three_splits_by_order(veridical, repope, tmp_path):
    texts = [{"answer": row["answer"]} for split in SPLITS for row in answers_to(repope, split)]
    (tmp_path / "a.jsonl").write_text(lines(texts))
    shown = veridical("score", "repope", tmp_path / "a.jsonl", "--by-order", "--data", repope, "--json")
    assert value(shown, "popular", "accuracy") == pytest.approx(0.934727, abs=5e-7)
    assert value(shown, "mean", "f1") == pytest.approx((0.941272 + 0.928399 + 0.930645) / 3, abs=5e-7)


def test_ids_without_questions_need_their_split(veridical, repope, tmp_path):
    (tmp_path / "a.jsonl").write_text(lines(answers_to(repope, "random")))
    shown = veridical("score", "repope", tmp_path / "a.jsonl", "--data", repope)
    assert "--split" in shown_text(shown)


def test_an_answer_about_another_image_is_refused(veridical, repope, tmp_path):
    rows = answers_to(repope, "random", image=lambda q: q["image"])
    rows[7]["image"] = "COCO_val2014_000000000042.jpg"
    (tmp_path / "a.jsonl").write_text(lines(rows))
    shown = veridical("score", "repope", tmp_path / "a.jsonl", "--split", "random", "--data", repope)
    assert "line 8 is about" in shown_text(shown)


def test_answers_in_another_order_are_refused_by_their_own_prompts(veridical, repope, tmp_path):
    rows = answers_to(repope, "random", prompt=lambda q: q["text"])
    (tmp_path / "a.jsonl").write_text(lines(rows[::-1]))
    shown = veridical("score", "repope", tmp_path / "a.jsonl", "--split", "random", "--by-order", "--data", repope)
    assert "another order" in shown_text(shown)


def test_a_removed_question_needs_no_answer_and_another_does(veridical, repope, tmp_path):
    rows = answers_to(repope, "random")
    (tmp_path / "a.jsonl").write_text(lines(row for row in rows if row["question_id"] != 23))
    score = ("score", "repope", tmp_path / "a.jsonl", "--split", "random", "--data", repope)
    assert veridical(*score).exit_code == 0
    (tmp_path / "a.jsonl").write_text(lines(row for row in rows if row["question_id"] != 1))
    shown = veridical(*score)
    assert "1 of RePOPE's 2774 questions have no answer" in shown_text(shown)
    assert veridical(*score, "--skip-bad").exit_code == 0


# -- MME -----------------------------------------------------------------------------------------------------------
def mme_file(images, wrong=()):
    rows = []
    for number in range(images):
        for label in ("Yes", "No"):
            text = label if (number, label) not in wrong else "Perhaps"
            question = f"Is there  a {label} dog in image {number}? Please answer yes or no."
            rows.append(f"{number:012}.jpg\t{question}\t{label}\t{text}")
    return "\n".join(rows) + "\n"


@pytest.fixture
def mme_results(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    for task in ("existence", "count", "position", "color"):
        (folder / f"{task}.txt").write_text(mme_file(30, {(0, "No"), (1, "Yes"), (2, "Yes")}))
    return folder


def test_mme_is_scored_from_the_official_programs_own_folder(veridical, mme_results):
    shown = veridical("score", "mme", mme_results, "--json")
    assert value(shown, "count", "score") == pytest.approx(100 * 57 / 60 + 100 * 27 / 30)
    assert value(shown, "total", "score") == pytest.approx(740)
    assert value(shown, "total", "unparsed") == pytest.approx(3 / 60)


def test_rows_are_matched_with_mmes_questions_by_image_and_text_in_any_order(veridical, mme_results, tmp_path):
    rows = []
    for task in ("existence", "count", "position", "color"):
        for line in (mme_results / f"{task}.txt").read_text().splitlines():
            image, question, _, answer = line.split("\t")
            short = "\nAnswer the question using a single word or phrase."
            prompt = question.replace(" Please answer yes or no.", short)
            rows.append({"question_id": f"{task}/{image}", "prompt": prompt, "text": answer})
    rows.append({"question_id": "code_reasoning/0020.png", "prompt": "Is it python?", "text": "Yes"})
    (tmp_path / "a.jsonl").write_text(lines(rows[::-1]))
    shown = veridical("score", "mme", tmp_path / "a.jsonl", "--data", mme_results, "--json")
    assert value(shown, "total", "score") == pytest.approx(740)
    assert any("other tasks" in note for note in json.loads(shown.stdout)["notes"])


def test_a_shuffled_official_file_is_refused(veridical, mme_results):
    rows = (mme_results / "count.txt").read_text().splitlines()
    (mme_results / "count.txt").write_text("\n".join([rows[1], rows[0], *rows[2:]]))
    shown = veridical("score", "mme", mme_results)
    assert "first Yes, then No" in shown_text(shown)


def test_a_tab_in_an_answer_is_named_with_its_line(veridical, mme_results):
    text = (mme_results / "count.txt").read_text()
    (mme_results / "count.txt").write_text(text.replace("Perhaps", "Per\thaps", 1))
    shown = veridical("score", "mme", mme_results)
    assert "line 2 has 5 columns" in shown_text(shown)


@pytest.fixture(scope="module")
def released(test_data):
    folder = test_data / "released"
    if not folder.is_dir():
        pytest.skip(f"no released files at {folder}; set VERIDICAL_TEST_DATA")
    return folder


def test_mmes_own_sample_scores_as_its_program_prints(veridical, released):
    shown = veridical("score", "mme", released / "mme__lavin.answers.json", "--json")
    found = [value(shown, task, "score") for task in ("existence", "count", "position", "color", "total")]
    assert found == pytest.approx([185, 88.3333, 63.3333, 75, 411.6667], abs=5e-5)


def test_llavas_released_answers_to_mme_score_as_published(veridical, released, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lzma.decompress((released / "llava_mme__llava-v1.5-13b.jsonl.xz").read_bytes()))
    shown = veridical("score", "mme", tmp_path / "a.jsonl", "--json")
    found = [value(shown, task, "score") for task in ("existence", "count", "position", "color", "total")]
    assert found == pytest.approx([185, 155, 133.3333, 170, 643.3333], abs=5e-5)


# -- MMVP ----------------------------------------------------------------------------------------------------------
def test_corrected_keys_change_two_pairs(veridical, test_data, tmp_path):
    questions = test_data / "mmvp" / "Questions.csv"
    assert hashlib.sha256(questions.read_bytes()).hexdigest().startswith("19c1ab2a")
    with questions.open(newline="", encoding="utf-8") as file:
        keys = [row["Correct Answer"] for row in csv.DictReader(file)]
    for number in (99, 100, 279, 280):
        keys[number - 1] = {"(a)": "(b)", "(b)": "(a)"}[keys[number - 1]]
    (tmp_path / "a.jsonl").write_text(lines({"question_id": n, "response": k} for n, k in enumerate(keys, start=1)))
    shown = veridical("score", "mmvp", tmp_path / "a.jsonl", "-q", questions, "--json")
    assert (value(shown, "", "accuracy"), value(shown, "", "pair_accuracy")) == (296 / 300, 148 / 150)
    shown = veridical("score", "mmvp", tmp_path / "a.jsonl", "-q", questions, "--corrected", "--json")
    assert (value(shown, "", "accuracy"), value(shown, "", "pair_accuracy")) == (1, 1)
    assert "swapped" in json.loads(shown.stdout)["protocol"]["keys"]


def test_a_shuffled_question_file_is_refused(veridical, test_data, tmp_path):
    rows = (test_data / "mmvp" / "Questions.csv").read_text().splitlines()
    (tmp_path / "q.csv").write_text("\n".join([rows[0], rows[2], rows[1], *rows[3:]]))
    (tmp_path / "a.jsonl").write_text(lines([{"question_id": 1, "response": "(a)"}]))
    shown = veridical("score", "mmvp", tmp_path / "a.jsonl", "-q", tmp_path / "q.csv")
    assert "the order must stay" in shown_text(shown)


# -- HallusionBench ------------------------------------------------------------------------------------------------
def test_hallusionbench_scores_rows_that_hold_their_questions(veridical, test_data, tmp_path):
    rows = json.loads((test_data / "hallusionbench" / "HallusionBench.json").read_text())
    (tmp_path / "a.json").write_text(json.dumps([{**row, "model_prediction": "No."} for row in rows]))
    shown = veridical("score", "hallusionbench", tmp_path / "a.json", "--json")
    assert value(shown, "", "aAcc") == pytest.approx(645 / 1129)
    assert value(shown, "", "qAcc") == pytest.approx(88 / 455)
    shown = veridical("score", "hallusionbench", tmp_path / "a.json", "--images-only", "--json")
    assert value(shown, "", "aAcc") == pytest.approx(550 / 951)
    assert json.loads(shown.stdout)["protocol"]["constant answers"]["always no"]["qAcc"] == 0.2


def test_hallusionbench_answers_by_order_must_be_as_many(veridical, test_data, tmp_path):
    questions = test_data / "hallusionbench" / "HallusionBench.json"
    (tmp_path / "a.jsonl").write_text(lines({"answer": "yes"} for _ in range(1129)))
    shown = veridical("score", "hallusionbench", tmp_path / "a.jsonl", "-q", questions, "--by-order", "--json")
    assert value(shown, "", "fAcc") == pytest.approx(25 / 346)
    (tmp_path / "a.jsonl").write_text(lines({"answer": "yes"} for _ in range(1128)))
    shown = veridical("score", "hallusionbench", tmp_path / "a.jsonl", "-q", questions, "--by-order")
    assert "1128 answers to 1129 questions" in shown_text(shown)


# -- DASH-B --------------------------------------------------------------------------------------------------------
def test_dash_bs_released_answers_score_as_its_results_file(veridical, released, tmp_path):
    (tmp_path / "a.json").write_bytes(lzma.decompress((released / "dash-b__paligemma-3b.json.xz").read_bytes()))
    shown = veridical("score", "dash-b", tmp_path / "a.json", "--json")
    found = [value(shown, "", name) for name in ("accuracy", "tnr", "tpr", "harmonic_mean")]
    assert found == pytest.approx([0.563758, 0.263982, 0.863535, 0.404354], abs=5e-7)


def test_dash_b_rows_are_matched_with_its_lists(veridical, tmp_path):
    lists = tmp_path / "lists" / "images"
    lists.mkdir(parents=True)
    (lists / "dash_benchmark_neg.json").write_text(json.dumps({"coco": {"orange": ["1.png", "2.png"]}}))
    (lists / "dash_benchmark_pos.json").write_text(json.dumps({"coco": {"orange": ["1.jpg", "2.jpg"]}}))
    rows = [
        {"img_id": f"{n}.{suffix}", "object_name": "orange", "gt": gt, "response": "Yes"}
        for gt, suffix in (("yes", "jpg"), ("no", "png")) for n in (1, 2)
    ]  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(rows))
    shown = veridical("score", "dash-b", tmp_path / "a.json", "--data", tmp_path / "lists", "--json")
    assert (value(shown, "", "tnr"), value(shown, "", "tpr"), value(shown, "", "accuracy")) == (0, 1, 0.5)
    (tmp_path / "a.json").write_text(json.dumps(rows[1:]))
    shown = veridical("score", "dash-b", tmp_path / "a.json", "--data", tmp_path / "lists")
    assert "lacks answers to 1 of 4" in shown_text(shown)
