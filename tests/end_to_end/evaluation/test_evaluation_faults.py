"""What is wrong with an evaluation's folder, history or questions is found before anything is answered."""

import json

import pytest

from veridical.flows.benchmarks.base import Source
from veridical.flows.benchmarks.closed_answers import question_rows_of
from veridical.flows.evaluation import history, regression, steps
from veridical.flows.files import atomic
from veridical.flows.files.lock import InUse, locked
from veridical.pipelines.lvlm import LVLM
from veridical.pipelines.results import Answer

from ..evaluations import evaluate, request

SMALL = {"decoders": ["greedy"], "benchmarks": ["chair"], "limit": 2}


@pytest.fixture
def canned(monkeypatch):
    monkeypatch.setattr(LVLM, "answer", lambda self, images, *a, **k: [Answer("yes") for _ in images])


def test_a_folder_in_which_another_evaluation_works_is_refused_and_left_as_it_is(tmp_path, canned, veridical):
    with locked(tmp_path / "out"):
        with pytest.raises(InUse, match=r"out is in use by process \d+ on "):
            evaluate(tmp_path / "out", **SMALL)
        shown = veridical("evaluate", "--benchmark", "chair", "--limit", 2, "--no-prefect", "--out", tmp_path / "out")
        assert shown.exit_code == 2
        assert "is in use by process" in shown.stderr
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["lock", "lock.json"]
    evaluate(tmp_path / "out", **SMALL)
    evaluate(tmp_path / "out", **SMALL)


def test_a_refused_request_leaves_no_folder(tmp_path):
    with pytest.raises(LookupError, match="no decoder"):
        evaluate(tmp_path / "out", **{**SMALL, "decoders": ["vdc"]})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["line", "results", "manifest"])
def test_a_history_that_cannot_be_read_is_found_before_anything_is_answered(tmp_path, canned, monkeypatch, damage):
    history.run(str(tmp_path), "first", request(**SMALL))
    path = {"line": tmp_path / "history.jsonl", "results": tmp_path / "first" / "results.json",
            "manifest": tmp_path / "first" / "manifest.json"}[damage]  # fmt: skip
    path.write_bytes(path.read_bytes()[:-20] + (b"x\n" if damage == "line" else b""))
    monkeypatch.setattr(steps, "evaluation", lambda *given: pytest.fail("something was answered"))
    with pytest.raises(ValueError, match="is damaged or was changed by hand" if damage == "line" else "is not JSON"):
        history.run(str(tmp_path), "second", request(**SMALL))


def test_html_in_a_name_is_shown_and_not_run_in_the_page_of_a_run(tmp_path, canned):
    checked = regression.Checked(notes=["<script>alert(1)</script> & <img src=x onerror=alert(2)>"])
    page = regression.markdown(evaluate(tmp_path / "run", **SMALL), checked)
    assert "<" not in page
    assert "&lt;script>alert(1)&lt;/script> &amp; &lt;img" in page


@pytest.mark.parametrize("array", [True, False])
def test_questions_that_are_too_long_or_too_deep_are_refused_with_their_place(tmp_path, array):
    path = tmp_path / "questions.json"
    good = {"image": "a.png", "text": "How many?"}

    def written(*rows: str) -> Source:
        path.write_text("[" + ",".join(rows) + "]" if array else "\n".join(rows))
        return Source(data=str(path))

    long = json.dumps({**good, "text": "x" * 100_000})
    assert len(question_rows_of(written(json.dumps(good), long), ("image", "text"))[0]) == 2
    place = "entry 2" if array else "line 2"
    with pytest.raises(ValueError, match=rf"{place} has a text of 20,000,000 characters; possible: up to 100,000"):
        question_rows_of(written(json.dumps(good), json.dumps({**good, "text": "x" * 20_000_000})), ("image", "text"))
    with pytest.raises(ValueError, match="nested too deeply"):
        question_rows_of(written(json.dumps(good), "[" * 100_000), ("image", "text"))


def test_deep_json_ends_in_a_sentence_wherever_it_is(tmp_path, veridical):
    deep = tmp_path / "deep.json"
    deep.write_text('{"a":' * 100_000)
    with pytest.raises(ValueError, match=r"deep\.json is nested too deeply"):
        atomic.read_json(deep)
    (tmp_path / "coco" / "val").mkdir(parents=True)
    (tmp_path / "coco" / "instances_val.json").write_text("[" * 100_000)
    for words in (
        ["evaluate", "--coco", tmp_path / "coco", "--limit", 1, "--out", tmp_path / "out", "--no-prefect"],
        ["score", "pope", deep, "--questions", deep],
    ):
        shown = veridical(*words)
        assert shown.exit_code == 2, (words, shown.stderr)
        assert "nested too deeply" in shown.stderr, (words, shown.stderr)
        assert "please report" not in shown.stderr
