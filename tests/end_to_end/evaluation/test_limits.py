"""Perceptual limits through `evaluate`, its report and `compare`, on the embedded model."""

import json

import pytest

from veridical.flows.benchmarks.base import Source
from veridical.flows.benchmarks.registry import BENCHMARKS
from veridical.flows.scoring import compare as comparing

from ..evaluations import evaluate

LIMITS = BENCHMARKS["limits"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return evaluate(tmp_path_factory.mktemp("limits") / "run", benchmarks=["limits"], limit=1, batch_size=37)


def texts(examples, right):
    """Answers that are right, or that see nothing and expect everything."""
    found = []
    for e in examples:
        if e.facts["kind"] == "caption":
            found.append(f"The image shows a {e.facts['object']}." if right else "The image shows an elephant.")
        else:
            found.append(e.label if right else {"yes": "no", "no": "yes"}.get(e.label, "nine"))
    return found


def test_results_hold_every_level_with_its_change(run):
    (record,) = json.loads((run / "results.json").read_text())
    assert record["answers"] == 74
    assert record["metrics"].keys() == LIMITS.higher_is_better.keys()
    assert set(LIMITS.headline) <= record["metrics"].keys()
    at = {name: cell["value"] for name, cell in record["metrics"].items()}
    assert at["size_accuracy_change_12"] == pytest.approx(at["size_accuracy_12"] - at["size_accuracy_48"])


def test_the_report_has_a_table_of_every_factor(run):
    shown = (run / "report.html").read_text()
    assert all(f"<h3>{factor}_accuracy</h3>" in shown for factor in ("size", "occlusion", "number", "background"))
    assert "size_12" not in shown  # a column's head is its level alone


def test_right_and_wrong_answers_give_the_ends_of_every_figure():
    source = Source(limit=2)
    examples = LIMITS.examples(source)
    right, wrong = (LIMITS.estimates(source, examples, texts(examples, one)) for one in (True, False))
    for name, better in LIMITS.higher_is_better.items():
        if "change" not in name:
            assert right[name].value == float(better), name
            assert wrong[name].value == float(not better), name
    marks = [LIMITS.marks(source, e, t) for e, t in zip(examples, texts(examples, False), strict=True)]
    assert all(len(part) == 1 and not part[0].right for part in marks)


def test_two_systems_are_compared_by_scene_at_every_level():
    source = Source(limit=8)
    examples = LIMITS.examples(source)
    systems = [
        comparing.System(name, "limits", name, {"": comparing.Answers(
            LIMITS, source, {e.id: e for e in examples},
            dict(zip([e.id for e in examples], texts(examples, right), strict=True)),
        )}, {})
        for name, right in (("bad", False), ("good", True))
    ]  # fmt: skip
    found = comparing.pair(*systems)
    assert found.tables["size"]["accuracy_12"].verdict == "better"
    assert found.tables["size"]["accuracy_12"].difference.n == 8
    assert found.tables[""]["chair_i"].verdict == "better"
    assert set(found.tables) == {"", "size", "place", "occlusion", "number", "distractors", "background"}


def test_a_coco_folder_is_refused():
    with pytest.raises(ValueError, match="limits draws its own scenes"):
        LIMITS.examples(Source(coco="folder"))
