"""`veridical compare`: what is ranked, what is not, and what is warned about."""

import json
import shutil

import pytest

from veridical.flows.evaluation import steps
from veridical.flows.scoring import compare, runs
from veridical.metrics.compare import Runs


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def captions(path, count, wrong):
    """Captions of images with a dog each, the first `wrong` of them naming a cat besides."""
    texts = ["A dog and a cat." if i < wrong else "A dog on the grass." for i in range(count)]
    path.write_text(lines(*({"image_id": i, "caption": text} for i, text in enumerate(texts))))
    return path


@pytest.fixture
def files(tmp_path):
    (tmp_path / "synonyms.txt").write_text("dog\ncat\n")
    (tmp_path / "truth.json").write_text(json.dumps({i: ["dog"] for i in range(40)}))
    return tmp_path


def chair(files, *systems):
    return ("compare", *systems, "-g", files / "truth.json", "--synonyms", files / "synonyms.txt", "--family", "exact")


def table(shown, title=""):
    return json.loads(shown.stdout)["comparisons"][0]["tables"][title]


def test_fewer_hallucinations_are_better_than_the_baseline(veridical, files):
    worse, better = captions(files / "worse.jsonl", 40, 30), captions(files / "better.jsonl", 40, 5)
    shown = veridical(*chair(files, worse, better), "--json")
    assert shown.exit_code == 0
    found = table(shown)["chair_s"]
    assert (found["system"], found["baseline"]) == (5 / 40, 30 / 40)
    assert found["difference"]["value"] == -25 / 40
    assert found["difference"]["high"] < 0
    assert found["p"] == pytest.approx(2 / 2**25)
    assert found["verdict"] == "better"
    assert table(veridical(*chair(files, better, worse), "--json"))["chair_s"]["verdict"] == "worse"


def test_noise_is_not_ranked_and_the_output_says_so(veridical, files):
    one, two = captions(files / "one.jsonl", 40, 10), captions(files / "two.jsonl", 40, 12)
    shown = veridical(*chair(files, one, two))
    assert shown.exit_code == 0
    assert "not ranked: at n=40 every difference may be chance" in shown.stdout
    assert "better" not in shown.stdout
    assert "worse" not in shown.stdout


def test_at_equal_length_what_was_cut_off_no_longer_counts(veridical, files):
    (files / "long.jsonl").write_text(lines(*([i, "A dog on the grass, and then a cat."] for i in range(40))))
    (files / "short.jsonl").write_text(lines(*([i, "A dog on the grass."] for i in range(40))))
    shown = veridical(*chair(files, files / "long.jsonl", files / "short.jsonl"), "--json")
    assert table(shown)["chair_s"]["verdict"] == "better"
    assert table(shown, "at equal length")["chair_s"]["difference"]["value"] == 0
    assert table(shown, "at equal length")["length"]["system"] == 6


def test_other_images_are_warned_about_and_compared_where_they_overlap(veridical, files):
    one, two = captions(files / "one.jsonl", 40, 10), captions(files / "two.jsonl", 30, 10)
    shown = veridical(*chair(files, one, two), "--json")
    assert shown.exit_code == 1
    assert "image sets differ (image_ids): 40 and 30 with 30 in common" in shown.stderr
    assert table(shown)["chair_s"]["difference"]["n"] == 30


def test_answers_are_compared_with_mcnemar(veridical, tmp_path):
    requests = [{"question_id": i, "image": f"{i}.jpg", "text": "?", "label": "yes"} for i in range(20)]
    (tmp_path / "asked.json").write_text(lines(*requests))
    for name, wrong in (("base", 9), ("mine", 0)):
        texts = ({"question_id": i, "answer": "No" if i < wrong else "Yes"} for i in range(20))
        (tmp_path / f"{name}.jsonl").write_text(lines(*texts))
    shown = veridical(
        "compare", tmp_path / "base.jsonl", tmp_path / "mine.jsonl", "-q", tmp_path / "asked.json", "--json"
    )
    found = table(shown, "asked")["accuracy"]
    assert found["difference"]["value"] == pytest.approx(9 / 20)
    assert (found["p"], found["verdict"]) == (2 / 2**9, "better")


def test_a_question_that_a_file_asks_twice_counts_twice(veridical, tmp_path):
    """A-OKVQA's and GQA's adversarial files each have one."""
    requests = [{"question_id": i, "image": f"{i % 9}.jpg", "text": "?", "label": "yes"} for i in range(10)]
    (tmp_path / "asked.json").write_text(lines(*requests))
    for name, wrong in (("base", 10), ("mine", 1)):
        texts = ({"question_id": i, "answer": "No" if i < wrong else "Yes"} for i in range(10))
        (tmp_path / f"{name}.jsonl").write_text(lines(*texts))
    found = table(veridical("compare", tmp_path / "base.jsonl", tmp_path / "mine.jsonl", "-q", tmp_path / "asked.json",
                            "--json"), "asked")["accuracy"]  # fmt: skip
    assert (found["system"], found["baseline"]) == (0.9, 0)


# -- folders -------------------------------------------------------------------------------------------------------
def test_every_decoder_of_a_folder_meets_the_first(veridical, small_run):
    shown = veridical("compare", small_run, "--json")
    assert shown.exit_code == 0
    found = json.loads(shown.stdout)["comparisons"]
    assert [(one["benchmark"], one["system"]) for one in found] == [
        ("pope", f"{small_run}:vcd"), ("chair", f"{small_run}:vcd")
    ]  # fmt: skip
    results = {
        (r["benchmark"], r["decoder"]): r["metrics"] for r in json.loads((small_run / "results.json").read_text())
    }
    for one in found:
        for title, figures in one["tables"].items():
            prefix = f"{title}_" if one["benchmark"] == "pope" else ""
            for name, cell in figures.items() if title != "at equal length" else ():
                base, own = (results[one["benchmark"], decoder].get(prefix + name) for decoder in ("greedy", "vcd"))
                if own is not None:
                    assert (cell["baseline"], cell["system"]) == pytest.approx((base["value"], own["value"]))


def test_a_file_of_answers_in_a_folder_knows_its_truth(veridical, small_run):
    one, two = small_run / "chair" / "vcd.jsonl", small_run / "chair" / "greedy.jsonl"
    found = json.loads(veridical("compare", one, two, "--json").stdout)["comparisons"]
    assert [(one["baseline"], one["system"]) for one in found] == [(f"{small_run}:vcd", f"{small_run}:greedy")]


@pytest.mark.parametrize(
    ("where", "value", "warning"),
    [
        (("prompt",), "USER: other", "prompts differ (chair.prompt)"),
        (("protocol", "family"), "wordnet", "word families differ (chair.protocol.family)"),
        (
            ("generation", "max_new_tokens"),
            512,
            "token budgets differ (chair.generation.max_new_tokens): 24 against 512",
        ),
        (("version",), "0", "protocols differ (chair.version)"),
    ],
)
def test_what_makes_runs_incomparable_is_warned_about(veridical, small_run, tmp_path, where, value, warning):
    other = shutil.copytree(small_run, tmp_path / "other")
    manifest = json.loads((other / "manifest.json").read_text())
    part = manifest["benchmarks"]["chair"]
    for name in where[:-1]:
        part = part[name]
    part[where[-1]] = value
    (other / "manifest.json").write_text(json.dumps(manifest))
    shown = veridical("compare", small_run, other, "-d", "greedy")
    assert shown.exit_code == 1
    assert warning in shown.stderr
    assert veridical("compare", small_run, small_run, "-d", "greedy").exit_code == 0


def test_bad_input_is_one_message(veridical, small_run, tmp_path, files):
    one = captions(files / "one.jsonl", 10, 1)
    for command, message in (
        (("compare", one, one), "say what is true with --ground-truth (captions) or --questions (answers)"),
        (("compare", tmp_path / "none", one), "none does not exist"),
        (("compare", small_run, "-d", "pai"), "has no decoder 'pai'; it has greedy, vcd"),
        (("compare", small_run, "-d", "vcd"), "a comparison needs two on the same benchmark"),
        (("compare", tmp_path), "the folder of an evaluation"),
        (("compare", small_run, "--runs"), "needed: at least two of each"),
    ):
        shown = veridical(*command)
        assert shown.exit_code == 2, command
        assert message in shown.stderr
        assert not shown.stdout


# -- several runs --------------------------------------------------------------------------------------------------
def run(method, *values):
    return [compare.System("", "chair", method, {}, {}, {"chair_s": value}) for value in values]


def test_runs_have_mean_and_sd_and_a_student_interval_run_by_run():
    [found] = runs.over_runs([*run("greedy", 0.50, 0.54, 0.52), *run("vcd", 0.40, 0.42, 0.41)])
    assert found.figures["greedy"]["chair_s"] == Runs(pytest.approx(0.52), pytest.approx(0.02), 3)
    gap = found.differences["vcd"]["chair_s"]
    assert gap.difference.value == pytest.approx(-0.11)  # -0.10, -0.12, -0.11: sd 0.01, t = 4.3027
    assert gap.difference.high == pytest.approx(-0.11 + 4.3027 * 0.01 / 3**0.5, abs=1e-5)
    assert gap.verdict == "better"


def test_two_runs_or_equal_runs_rank_nothing():
    [two] = runs.over_runs([*run("greedy", 0.50, 0.51), *run("vcd", 0.10, 0.11001)])
    [same] = runs.over_runs([*run("greedy", 0.5, 0.5, 0.5), *run("vcd", 0.25, 0.25, 0.25)])
    assert {one.differences["vcd"]["chair_s"].verdict for one in (two, same)} == {"inside the noise"}
    assert (two.repeated, same.repeated) == ([], ["greedy", "vcd"])


def test_runs_with_other_images_are_repetitions_but_other_prompts_are_warned_about():
    def requests(prompt, images):
        return {"chair": {"prompt": prompt, "image_ids": images, "generation": {"max_new_tokens": 64}}}

    def of(*abouts):
        return [compare.System(f"run {n}", "chair", "greedy", {}, about, {"chair_s": n / 10})
                for n, about in enumerate(abouts)]  # fmt: skip

    [alike] = runs.over_runs(of(requests("Describe.", [1, 2]), requests("Describe.", [3, 4])))
    assert alike.warnings == []
    [unlike] = runs.over_runs(of(requests("Describe.", [1, 2]), requests("What is it?", [1, 2])))
    assert unlike.warnings == ["run 0 and run 1: prompts differ (chair.prompt): 'Describe.' against 'What is it?'."]


def test_a_benchmark_without_pairs_is_noted_and_no_reason_to_fail():
    one, two = (compare.System(name, "counting", "greedy", {}, {}, {"accuracy": 0.5}) for name in "ab")
    found = compare.pair(one, two)
    assert (found.tables, found.warnings) == ({}, [])
    assert found.notes == ["counting has no paired comparison; its figures stand in results.json"]


def test_runs_of_folders_are_printed_and_equal_ones_are_noted(veridical, small_run):
    shown = veridical("compare", small_run, small_run, "--runs")
    assert shown.exit_code == 0
    value = compare.of_folder(small_run)[2].figures["chair_s"]
    assert f"{value:.3f} ± 0.000 (2 runs)" in shown.stdout
    assert "chair, greedy: all runs are alike" in shown.stderr
    assert steps.RESULTS == "results.json"
