"""RePOPE, MME, MMVP, HallusionBench and DASH-B through `evaluate`, on folders as users have them, with drawn images."""

import json
from dataclasses import replace

import pytest

from veridical.datasets.world import scene
from veridical.flows.benchmarks.base import Source
from veridical.flows.benchmarks.registry import BENCHMARKS
from veridical.flows.scoring import compare as comparing

NAMES = ("repope", "mme", "mmvp", "hallusionbench", "dash_b")


def draw(path, index):
    path.parent.mkdir(parents=True, exist_ok=True)
    scene("test", index).image.save(path)


def repope_folder(folder):
    for split in ("random", "popular", "adversarial"):
        rows = [
            {
                "question_id": 2 * n + k + 1, "image": f"COCO_val2014_{n:012}.jpg",
                "text": f"Is there a {thing} in the image?", "label": label,
            }
            for n in range(2) for k, (thing, label) in enumerate((("dog", "yes"), (f"{split} thing", "no")))
        ]  # fmt: skip
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"coco_pope_{split}.json").write_text(text)
        left = [{**row, "label": "no"} if row["question_id"] == 1 else row for row in rows if row["question_id"] != 4]
        (folder / f"coco_repope_{split}.json").write_text("".join(json.dumps(row) + "\n" for row in left))
    for n in range(2):
        draw(folder / "val2014" / f"COCO_val2014_{n:012}.jpg", n)


def mme_folder(folder):
    for task in ("existence", "count", "position", "color"):
        for n in range(2):
            draw(folder / task / f"{n:012}.jpg", n)
            requests = ((f"Is there a dog in image {n}?", "Yes"), ("Is there a cat?", "No"))
            lines = [f"{text} Please answer yes or no.\t{label}\n" for text, label in requests]
            (folder / task / f"{n:012}.txt").write_text("".join(lines))


def mmvp_folder(folder):
    rows = ["lndex,Question,Options,Correct Answer"]
    rows += [f"{n},Is a dog there?,(a) Yes (b) No,({'ab'[(n - 1) % 2]})" for n in range(1, 5)]
    (folder / "Questions.csv").write_text("\n".join(rows))
    for n in range(1, 5):
        draw(folder / "MMVP Images" / f"{n}.jpg", n)


def hallusionbench_folder(folder):
    base = {"category": "VD", "subcategory": "ocr", "set_id": "0", "gt_answer_details": "", "sample_note": ""}
    rows = [
        {
            **base, "visual_input": str(figure + 1), "figure_id": str(figure), "question_id": str(question),
            "question": f"Is it {question}?", "gt_answer": str((figure + question) % 2),
            "filename": f"./VD/ocr/0_{figure}.png",
        }
        for figure in range(2) for question in range(2)
    ]  # fmt: skip
    rows.append({
        **base, "category": "VS", "visual_input": "0", "figure_id": "0", "question_id": "0", "question": "Why?",
        "gt_answer": "1", "filename": None,
    })  # fmt: skip
    (folder / "HallusionBench.json").write_text(json.dumps(rows))
    for figure in range(2):
        draw(folder / "VD" / "ocr" / f"0_{figure}.png", figure)


def dash_b_folder(folder):
    for short, suffix in (("neg", "png"), ("pos", "jpg")):
        names = [f"{n}.{suffix}" for n in range(2)]
        path = folder / "images" / f"dash_benchmark_{short}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"coco": {"orange": names}}))
        for n, name in enumerate(names):
            draw(folder / "images" / short / "coco" / "orange" / name, n)


MAKERS = {
    "repope": repope_folder, "mme": mme_folder, "mmvp": mmvp_folder, "hallusionbench": hallusionbench_folder,
    "dash_b": dash_b_folder,
}  # fmt: skip


@pytest.fixture(params=NAMES)
def case(request, tmp_path):
    """A benchmark, and its source."""
    folder = tmp_path / "data"
    folder.mkdir()
    MAKERS[request.param](folder)
    return BENCHMARKS[request.param], Source(data=str(folder))


def test_every_question_finds_its_image(case):
    benchmark, source = case
    examples = benchmark.examples(source)
    assert len({e.id for e in examples}) == len(examples)
    assert all(e.open().size == (192, 192) for e in examples)


def test_a_limit_counts_images(case):
    benchmark, source = case
    found = benchmark.examples(Source(data=source.data, limit=2))
    assert len({e.image_id for e in found}) == 2


def test_right_answers_are_right_throughout_and_marked_so(case):
    benchmark, source = case
    examples = benchmark.examples(source)
    label = lambda e: e.facts.get("corrected", e.label) if e.facts.get("corrected") != "removed" else e.label
    texts = [{"a": "(a)", "b": "(b)"}.get(label(e), label(e)) for e in examples]
    found = benchmark.estimates(source, examples, texts)
    best = {
        "repope": ("random_accuracy", 1), "mme": ("total_score", 800), "mmvp": ("pair_accuracy", 1),
        "hallusionbench": ("qAcc", 1), "dash_b": ("harmonic_mean", 1),
    }  # fmt: skip
    name, value = best[benchmark.name]
    assert found[name].value == value
    marks = [benchmark.marks(source, e, text) for e, text in zip(examples, texts, strict=True)]
    assert all(mark.right for part in marks for mark in part)
    assert set(benchmark.headline) <= found.keys()


def test_a_constant_answer_has_no_group_right_and_stands_in_the_manifest(case):
    benchmark, source = case
    constants = json.loads(json.dumps(benchmark.protocol(source)["constant answers"]))
    groups = {"mmvp": "pair_accuracy", "hallusionbench": "qAcc", "dash_b": "harmonic_mean"}
    if benchmark.name in groups:
        assert next(iter(constants.values()))[groups[benchmark.name]] == 0
    elif benchmark.name == "mme":
        assert constants["always yes"]["total_score"] == 200
    else:
        assert constants["always yes"]["pope_mean_accuracy"] == 0.5


def test_a_missing_image_says_where_it_was_looked_for(case):
    benchmark, source = case
    path = benchmark.examples(source)[0].path
    path.rename(path.with_suffix(".gone"))
    with pytest.raises(FileNotFoundError, match=f"{benchmark.name} has no image .*{path.name} in "):
        benchmark.examples(Source(data=source.data, seed=1))


def test_without_files_of_its_own_it_says_what_is_needed(case):
    with pytest.raises(ValueError, match="give their folder"):
        case[0].examples(Source())


def test_removed_questions_are_asked_and_counted_under_popes_labels_alone(tmp_path):
    repope_folder(tmp_path)
    benchmark, source = BENCHMARKS["repope"], Source(data=str(tmp_path))
    examples = benchmark.examples(source)
    assert len(examples) == 8  # two positives once, two negatives in each split
    found = benchmark.estimates(source, examples, [e.label for e in examples])
    assert found["pope_random_accuracy"].value == 1
    assert found["random_accuracy"].value == pytest.approx(2 / 3)  # one of three labels was corrected


def test_hallusionbench_asks_only_what_has_an_image(tmp_path):
    hallusionbench_folder(tmp_path)
    assert len(BENCHMARKS["hallusionbench"].examples(Source(data=str(tmp_path)))) == 4


def test_evaluate_asks_scores_and_reports_them(veridical, tmp_path):
    dash_b_folder(tmp_path)
    shown = veridical(
        "evaluate", "--benchmark", "dash_b", "--data", tmp_path, "--no-prefect", "--out", tmp_path / "run"
    )
    assert shown.exit_code == 0, shown.output
    (record,) = json.loads((tmp_path / "run" / "results.json").read_text())
    assert record["answers"] == 4
    assert 0 <= record["metrics"]["accuracy"]["value"] <= 1
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert "always yes" in manifest["benchmarks"]["dash_b"]["protocol"]["constant answers"]
    assert {"dash_benchmark_neg.json", "dash_benchmark_pos.json"} <= manifest["files"].keys()


def system(benchmark, source, name, answer):
    examples = benchmark.examples(source)
    texts = {e.id: answer(e) for e in examples}
    part = comparing.Answers(benchmark, source, {e.id: e for e in examples}, texts)
    return comparing.System(name, benchmark.name, name, {"": part}, {})


def test_two_systems_are_compared_in_the_units_of_the_benchmark_and_their_figures_are_those_of_results(case):
    benchmark, source = case
    words = ("(a)", "(b)") if benchmark.name == "mmvp" else ("yes", "no")
    constant = system(benchmark, source, "constant", lambda e: words[0])
    varied = system(benchmark, source, "varied", lambda e: words[len(e.id) % 2])
    (found,) = comparing.against_first([constant, varied])
    part = varied.parts[""]
    there = benchmark.estimates(source, list(part.examples.values()), list(part.answers.values()))
    compared = {
        comparing.figure_name(title, name): one for title, table in found.tables.items() for name, one in table.items()
    }
    assert set(benchmark.headline) <= compared.keys()
    for name, one in compared.items():
        assert one.first == pytest.approx(there[name].value)
        assert one.higher_is_better is benchmark.higher_is_better.get(name)
        assert one.verdict == "inside the noise"  # two images show nothing
    assert not found.notes


def test_systems_are_compared_on_the_questions_that_both_answered(case):
    benchmark, source = case
    one, other = (system(benchmark, source, name, lambda e: "yes") for name in "ab")
    left_out = next(iter(other.parts[""].answers))
    del other.parts[""].answers[left_out]
    (found,) = comparing.against_first([one, other])
    count = len(one.parts[""].answers)
    assert f"compared on the {count - 1} questions that both have, of {count - 1} and {count}." in found.warnings


def test_other_labels_under_the_same_question_are_refused(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        dash_b_folder(tmp_path / name)
    benchmark = BENCHMARKS["dash_b"]
    one, other = (system(benchmark, Source(data=str(tmp_path / name)), name, lambda e: "yes") for name in "ab")
    first = next(iter(other.parts[""].examples))
    other.parts[""].examples[first] = replace(other.parts[""].examples[first], label="maybe")
    with pytest.raises(ValueError, match="have other questions or labels for 1 examples"):
        comparing.against_first([one, other])
