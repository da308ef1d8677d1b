"""A run against the last good one, and when answers of an earlier run may stand for those that are asked for."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from veridical.flows.evaluation import answer_file, history, regression, report, steps
from veridical.flows.evaluation.request import REPORT, Evaluation
from veridical.flows.files import atomic
from veridical.flows.prefect import cache_key
from veridical.flows.scoring import compare
from veridical.pipelines.model.spec import ModelSpec, load
from veridical.pipelines.results import Answer

from ..evaluations import evaluate


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    """A run whose every answer is right; to be looked at, not changed."""
    run = tmp_path_factory.mktemp("good") / "run"
    answering(run, right)
    return run


def right(row: dict[str, Any]) -> str:
    return row["label"] or "Nothing."


def wrong(row: dict[str, Any]) -> str:
    return {"yes": "no", "no": "yes"}.get(row["label"], "A dog, a cat, a boat and a car.")


def answering(run: Path, text: Any, limit: int = 8, **others: Any) -> Path:
    """An evaluation with texts of our own: prepared and scored as any other. others: decoder -> its texts."""
    options = {"decoders": ["greedy", *others], "limit": limit, "benchmarks": ["pope", "chair"]}

    def answer(out: str, benchmark: str, decoder: str) -> str:
        examples = steps.BENCHMARKS[benchmark].examples(Evaluation.read(out).source)
        rows = [
            {"id": e.id, "image": e.image, "label": e.label, "error": None, "seconds": 0.1, "acted": {}, "tokens": [],
             "risk": {}} for e in examples
        ]  # fmt: skip
        path = answer_file.answers_path(out, benchmark, decoder)
        path.parent.mkdir(parents=True, exist_ok=True)
        texts = others.get(decoder, text)
        path.write_text("".join(json.dumps({**row, "text": texts(row)}) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return evaluate(run, steps.Steps(answer=answer), **options)


def changed(run: Path, to: Path, change: Any) -> Path:
    """A copy of a run with some rows of POPE changed, scored anew."""
    shutil.copytree(run, to)
    path = answer_file.answers_path(to, "pope", "greedy")
    rows = [change(number, row) for number, row in enumerate(answer_file.read_rows(path))]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    steps.score(str(to))
    return to


def test_wrong_answers_are_a_regression_with_paired_intervals(good, tmp_path):
    checked = regression.check(answering(tmp_path / "bad", wrong), good)
    assert not checked.good
    worse = {(one.benchmark, one.figure): one for one in checked.worse}
    accuracy = worse["pope", "popular_accuracy"]
    assert (accuracy.before, accuracy.now, accuracy.difference, accuracy.high) == (1.0, 0.0, -1.0, -1.0)
    assert ("chair", "chair_s") in worse
    assert accuracy.n == 8
    assert "pope greedy popular_accuracy: 1.000 → 0.000, -1.000 [-1.000, -1.000] (n=8)" in checked.reasons
    with pytest.raises(regression.Regression, match=r"worse than run, the last good run: .*popular_accuracy"):
        history.refuse(checked)


def test_the_report_compare_and_the_nightly_run_give_one_verdict(good, tmp_path, veridical):
    """All from the paired test by image: 16 images that all differ are significant beside many other figures too."""
    both = answering(tmp_path / "both", wrong, 16, vcd=right)
    shown = json.loads(veridical("compare", both, "--json").stdout)["comparisons"]
    ranked = {(one["benchmark"], compare.figure_name(title, name)): cell["verdict"] for one in shown
              for title, table in one["tables"].items() for name, cell in table.items()}  # fmt: skip
    assert ranked["pope", "accuracy"] == ranked["pope", "popular_accuracy"] == "better"
    for benchmark, (marked, _) in report.marks(both).items():
        better = {figure for (name, figure), verdict in ranked.items() if (name, verdict) == (benchmark, "better")}
        assert {figure for (_, figure), mark in marked.items() if mark == "best"} == better
    assert 'class="best"' in (both / REPORT).read_text(encoding="utf-8")
    checked = regression.check(answering(tmp_path / "bad", wrong), good)
    assert {one.figure for one in checked.worse} >= {"popular_accuracy", "chair_s"}


def test_better_answers_are_no_regression(good, tmp_path):
    checked = regression.check(good, answering(tmp_path / "bad", wrong))
    assert checked.good
    assert "popular_accuracy" in {one.figure for one in checked.better}
    history.refuse(checked)


def test_a_change_inside_the_noise_is_no_regression(good, tmp_path):
    one_wrong = changed(good, tmp_path / "run", lambda n, row: {**row, "text": wrong(row)} if n == 0 else row)
    checked = regression.check(one_wrong, good)
    assert (checked.good, checked.worse) == (True, [])
    assert checked.compared == 6


def test_the_same_texts_are_no_regression_and_no_figure_is_better(good, tmp_path):
    checked = regression.check(changed(good, tmp_path / "run", lambda n, row: row), good)
    assert (checked.worse, checked.better, checked.others, checked.notes) == ([], [], [], [])


def test_more_images_without_an_answer_are_a_regression(good, tmp_path):
    broken = changed(good, tmp_path / "run", lambda n, row: {**row, "error": "no file"} if n < 2 else row)
    checked = regression.check(broken, good)
    assert checked.more_errors == {"pope greedy": 2}
    with pytest.raises(regression.Regression, match="pope greedy: 2 more without an answer"):
        history.refuse(checked)


def test_what_was_asked_in_another_way_is_not_compared(good, tmp_path):
    other = answering(tmp_path / "run", wrong)
    manifest = atomic.read_json(other / "manifest.json")
    manifest["benchmarks"]["pope"]["generation"]["max_new_tokens"] = 3
    atomic.write_json(other / "manifest.json", manifest)
    checked = regression.check(other, good)
    assert {one.benchmark for one in checked.worse} == {"chair"}
    assert any("pope greedy has another protocol: token budgets differ" in note for note in checked.notes)


def test_a_worse_run_is_no_baseline_until_it_is_accepted(good, tmp_path):
    base = tmp_path / "runs"
    shutil.copytree(good, base / "1")
    bad = answering(base / "2", wrong)
    log = base / history.HISTORY
    log.write_text('{"run": "1", "good": true}\n{"run": "2", "good": false}\n', encoding="utf-8")
    assert history.last_good(base) == base / "1"
    assert history.accept(base) == bad
    assert history.last_good(base) == bad
    with pytest.raises(ValueError, match="2, is good already"):
        history.accept(base)
    shutil.rmtree(bad)
    assert history.last_good(base) == base / "1", "a folder that was deleted is no baseline"
    with log.open("a", encoding="utf-8") as file:
        file.write('{"run": "3", "go\n')
    with pytest.raises(ValueError, match=r"history\.jsonl: line 4 is damaged or was changed by hand; delete it"):
        history.last_good(base)


def test_the_page_and_the_table_say_what_happened(good, tmp_path):
    bad = answering(tmp_path / "bad", wrong)
    page = regression.markdown(bad, regression.check(bad, good))
    assert "worse than the last good run" in page
    assert "| greedy | 0.000 [0.000" in page
    table = regression.table(bad)
    assert [(row["method"], row["benchmark"]) for row in table] == [("greedy", "pope"), ("greedy", "chair")]
    assert (table[0]["popular_accuracy"], table[0]["chair_i"]) == (0.0, "")


# -- what may stand for what ---------------------------------------------------------------------------------------
def test_the_key_changes_with_all_that_answers_depend_on_and_with_nothing_else(good, tmp_path, monkeypatch):
    key = lambda run=good, decoder="greedy": cache_key.answers_key(str(run), "pope", decoder)
    assert key(changed(good, tmp_path / "other folder", lambda n, row: row)) == key()
    seen = {key()}
    for name, value in (("revision", "abc"), ("weights", "0"), ("decoder", "VCD()"), ("data_sha256", "0"), ("seed", 1)):
        run = changed(good, tmp_path / name, lambda n, row: row)
        manifest = atomic.read_json(run / "manifest.json")
        manifest["settings"]["pope"]["greedy"][name] = value
        atomic.write_json(run / "manifest.json", manifest)
        seen.add(key(run))
    assert len(seen) == 6
    monkeypatch.setattr(cache_key, "code_version", lambda: "another")
    assert key() not in seen


def test_the_code_version_is_of_what_answers_are_made_by(tmp_path, monkeypatch):
    places = (
        "pipelines/a.py", "decoders/deep/b.py", "flows/evaluation/steps.py", "flows/evaluation/report.py",
        "metrics/c.py",
    )  # fmt: skip
    for place in places:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(place)
    monkeypatch.setattr(cache_key, "ROOT", tmp_path)
    version = lambda: (cache_key.code_version.cache_clear(), cache_key.code_version())[1]
    first = version()
    for place, same in (("flows/evaluation/report.py", True), ("metrics/c.py", True), ("decoders/deep/b.py", False)):
        (tmp_path / place).write_text("changed")
        assert (version() == first) is same, place
    cache_key.code_version.cache_clear()


def test_an_image_whose_content_changes_changes_the_key(tmp_path, monkeypatch):
    from veridical.datasets.examples import Example

    path = tmp_path / "a.jpg"
    path.write_bytes(b"one")
    example = Example("1", str(path), "1", None, None, frozenset())
    monkeypatch.setattr(type(steps.BENCHMARKS["chair"]), "examples", lambda self, source: [example])
    monkeypatch.setattr(Evaluation, "read", classmethod(lambda cls, out: type("R", (), {"source": None})))
    before = cache_key.images_digest("", "chair")
    path.write_bytes(b"two")
    assert cache_key.images_digest("", "chair") != before


# -- the command ---------------------------------------------------------------------------------------------------
def test_once_without_prefect_is_the_same_run_and_exits_with_1_when_worse(veridical, tmp_path, good):
    words = ["schedule", "evaluate", "--once", "--no-prefect", "--limit", 8, "--benchmark", "pope", "--out", tmp_path]
    done = veridical(*words)
    assert done.exit_code == 0, done.stderr
    shutil.copytree(good, tmp_path / "0")
    (tmp_path / history.HISTORY).write_text('{"run": "0", "good": true}\n', encoding="utf-8")
    for path in tmp_path.glob("2*"):
        shutil.rmtree(path)
    monkey = type(load(ModelSpec("embedded")))
    before = monkey.answer
    monkey.answer = lambda self, images, *a, **k: [Answer("yes") for _ in images]
    try:
        done = veridical(*words)
    finally:
        monkey.answer = before
    assert done.exit_code == 1
    assert "Error: worse than 0, the last good run: pope greedy" in done.stderr
    done = veridical("schedule", "accept", tmp_path)
    assert done.exit_code == 0
    assert history.last_good(tmp_path) != tmp_path / "0"
