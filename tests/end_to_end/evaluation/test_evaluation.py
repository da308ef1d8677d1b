"""The evaluation: with and without Prefect, stopped and continued, its files and its report."""

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import pytest

from veridical.cli.render.results import results
from veridical.flows.benchmarks.registry import BENCHMARKS
from veridical.flows.evaluation import answer_file, report, steps
from veridical.flows.evaluation.request import Evaluation
from veridical.flows.scoring import compare
from veridical.metrics.chair import Chair
from veridical.pipelines.model.spec import ModelSpec, load

from ..evaluations import evaluate, request

DECODERS = ("greedy", "vcd", "vista:strength=0.05")
FILES = ("greedy.jsonl", "vcd.jsonl", "vista-strength=0.05.jsonl")
LIMIT = 4
BY_DEFAULT = ("pope", "chair")  # benchmarks


def small(out: Path, **changes: Any) -> dict[str, Any]:
    """The arguments of a small evaluation."""
    return {"decoders": list(DECODERS), "limit": LIMIT, "batch_size": 3, "out": str(out), **changes}


def in_words(out: Path, **changes: Any) -> list[str]:
    """The same as a command."""
    options = small(out, **changes)
    decoders = [word for decoder in options["decoders"] for word in ("--decoder", decoder)]
    rest = ["--limit", str(options["limit"]), "--batch-size", str(options["batch_size"]), "--out", options["out"]]
    return ["evaluate", *decoders, *rest]


def numbers(out: Path) -> list[dict]:
    """results.json apart from how long things took."""
    records = json.loads((out / "results.json").read_text(encoding="utf-8"))
    return [{name: value for name, value in record.items() if name != "seconds_per_image"} for record in records]


def rows(path: Path) -> list[dict]:
    """The answers in a file, apart from how long they took."""
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in found]


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an evaluation that ran without Prefect; to be looked at, not changed."""
    return evaluate(**small(tmp_path_factory.mktemp("plain") / "run"))


@pytest.fixture
def copy(plain: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(plain, tmp_path / "run"))


@pytest.mark.parametrize(("tied", "found"), [((2, 0, None, 1), 2), ((0, 0, 0, 0), 0), ((None,) * 4, None)])
def test_answers_that_equal_logits_decided_are_counted_and_noted(copy, capsys, tied, found):
    """None: an answer of a version that did not count, or a sampled one."""
    path = copy / "chair" / "vcd.jsonl"
    changed = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row, steps_tied in zip(changed, tied, strict=True):
        row |= {"tied": steps_tied}
    path.write_text("".join(json.dumps(row) + "\n" for row in changed), encoding="utf-8")
    steps.score(str(copy))
    steps.report(str(copy))
    results(copy)
    assert {(r["decoder"], r["benchmark"]): r["tied"] for r in numbers(copy)}["vcd", "chair"] == found
    noted = f"in {found} of {LIMIT} images several tokens had the highest logit at some step"
    assert (f"note: vcd: {noted}" in capsys.readouterr().err) == bool(found)
    assert (noted in (copy / "report.html").read_text(encoding="utf-8")) == bool(found)


# -- with and without Prefect --------------------------------------------------------------------------------------
def test_prefect_gives_the_same_numbers(plain, tmp_path, prefect_server):
    from veridical.flows.evaluate import evaluate as flow

    options = small(tmp_path / "flow")
    out = Path(flow(out=options.pop("out"), request=request(**options)))
    assert numbers(out) == numbers(plain)
    for benchmark in BY_DEFAULT:
        for name in FILES:
            assert rows(out / benchmark / name) == rows(plain / benchmark / name)
    shown = httpx.post(f"{prefect_server}/flow_runs/filter", json={"sort": "START_TIME_DESC"}, timeout=30).json()
    parameters = [run["parameters"]["request"] for run in shown if run["parameters"].get("out") == str(out)]
    assert parameters == [json.loads(json.dumps(asdict(request(**options))))], "Prefect shows what is evaluated"


def test_the_undecorated_flow_gives_the_same_numbers(plain, tmp_path, prefect_server):
    from veridical.flows.evaluate import evaluate as flow

    options = small(tmp_path / "fn", benchmarks=["chair"])
    out = Path(flow.fn(out=options.pop("out"), request=request(**options)))
    assert numbers(out) == [record for record in numbers(plain) if record["benchmark"] == "chair"]


def test_bad_input_inside_the_flow_keeps_its_message(tmp_path, prefect_server):
    from veridical.flows.evaluate import evaluate as flow

    with pytest.raises(ValueError, match=r'no benchmark "pop"\. Did you mean "pope"\? Known: amber, chair'):
        flow(request(benchmarks=["pop"]), str(tmp_path))


def test_flow_and_function_take_the_same_arguments(prefect_server):
    from veridical.flows.evaluate import evaluate as flow

    taken, function = inspect.signature(flow.fn).parameters, inspect.signature(steps.evaluation).parameters
    assert [*taken] == [name for name in function if name != "steps"]
    assert taken["request"].default == Evaluation()


def test_the_command_starts_no_prefect_server_unless_it_is_asked_to(tmp_path, plain):
    """Prefect's home is empty and nothing is configured: without --prefect it is not even imported."""
    settings = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    code = (
        "import sys\nfrom veridical.cli.main import app\nout, *command = sys.argv[1:]\n"
        "for number, extra in enumerate([[], ['--prefect']]):\n"
        "    app([*command, '--out', out + str(number), *extra], standalone_mode=False)\n"
        "    print('prefect' in sys.modules)"
    )
    out = tmp_path / "run"
    command = [*in_words(out, decoders=["greedy"], limit=1)[:-2], "--benchmark", "chair"]
    shown = subprocess.run(
        [sys.executable, "-c", code, str(out), *command], capture_output=True, text=True, check=False,
        env={**settings, "PREFECT_HOME": str(tmp_path / "home")},
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    assert [line for line in shown.stdout.splitlines() if line in ("True", "False")] == ["False", "True"]
    assert "Traceback" not in shown.stderr
    for number in (0, 1):
        assert f"report: {out}{number}/report.html" in shown.stdout
        found = rows(Path(f"{out}{number}") / "chair" / "greedy.jsonl")
        assert found == rows(plain / "chair" / "greedy.jsonl")[:1]
    record = [json.loads(line) for line in Path(f"{out}0", "run.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(line["step"], line["of"], line["state"]) for line in record] == [
        ("prepare", [], "completed"), ("answer", ["chair", "greedy"], "completed"), ("score", [], "completed"),
        ("attend", [], "completed"), ("report", [], "completed"),
    ]  # fmt: skip
    assert not Path(f"{out}1", "run.jsonl").exists(), "Prefect has the record of its runs"


# -- stopped and continued -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("kept", [0, 5])
def test_a_killed_run_goes_on_and_ends_in_the_same_file(plain, copy, kept):
    path = copy / "pope" / "vcd.jsonl"
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole[:kept]) + whole[kept][:40])
    for name in ("results.json", "report.html", "chair/vista-strength=0.05.jsonl"):
        (copy / name).unlink()
    evaluate(**small(copy))
    assert path.read_bytes().splitlines(keepends=True)[:kept] == whole[:kept], "complete lines are kept as they are"
    assert rows(path) == rows(plain / "pope" / "vcd.jsonl")
    assert numbers(copy) == numbers(plain)


def test_a_finished_run_asks_nothing_again(copy, monkeypatch):
    before = {path: path.read_bytes() for path in copy.rglob("*.jsonl")}
    lvlm = load(ModelSpec("embedded"))
    monkeypatch.setattr(type(lvlm), "answer", lambda *arguments, **options: pytest.fail("asked again"))
    evaluate(**small(copy))
    assert {path: path.read_bytes() for path in copy.rglob("*.jsonl")} == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 7}, "seed was 0, now 7"),
        ({"limit": 2}, f"limit was {LIMIT}, now 2"),
        ({"generation": {"max_new_tokens": 9}}, '"max_new_tokens": 9'),
        ({"detectors": ["entropy"]}, 'detectors was [], now ["Entropy()"]'),
    ],
)
def test_other_settings_in_the_same_folder_are_refused(copy, changes, message):
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    with pytest.raises(answer_file.OtherSettings, match="made with other settings") as refused:
        evaluate(**small(copy, **changes))
    assert message in str(refused.value)
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


def test_the_command_refuses_other_settings_with_exit_code_2(copy, veridical):
    shown = veridical(*in_words(copy), "--no-prefect", "--seed", 7)
    assert shown.exit_code == 2
    assert "seed was 0, now 7. Choose another --out" in shown.stderr


def test_another_decoder_joins_a_finished_run(copy, plain):
    evaluate(**small(copy, decoders=["greedy", "sla"], benchmarks=["chair"]))
    greedy = [record for record in numbers(plain) if (record["decoder"], record["benchmark"]) == ("greedy", "chair")]
    assert numbers(copy)[:1] == greedy
    assert numbers(copy)[1]["decoder"] == "sla"


def test_a_broken_line_in_the_middle_is_named(copy):
    path = copy / "chair" / "vcd.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text(lines[0] + "{\n" + "".join(lines[1:]), encoding="utf-8")
    with pytest.raises(ValueError, match=r"vcd\.jsonl: line 2 is not JSON"):
        evaluate(**small(copy))


# -- the files -----------------------------------------------------------------------------------------------------
def test_results_have_a_record_per_decoder_and_benchmark(plain):
    records = json.loads((plain / "results.json").read_text(encoding="utf-8"))
    assert {(r["decoder"], r["benchmark"]) for r in records} == {(d, b) for d in DECODERS for b in BY_DEFAULT}
    assert len(records) == len(DECODERS) * len(BY_DEFAULT)
    for record in records:
        assert record["model"] == "embedded"
        assert record["errors"] == 0
        assert record["seconds_per_image"] > 0
        shown = [metric for metrics in BENCHMARKS[record["benchmark"]].tables.values() for metric in metrics]
        assert set(shown) <= set(record["metrics"])
        for cell in record["metrics"].values():
            assert set(cell) == {"value", "low", "high", "n"}
            assert cell["low"] <= cell["value"] <= cell["high"]
            assert cell["n"] in (0, LIMIT)
        assert record["tied"] == 0  # in float32
    acted = {r["decoder"]: r["acted"] for r in records if r["benchmark"] == "chair"}
    assert acted["greedy"] == {}
    assert acted["vcd"]["vcd"]["share"] == 1
    assert next(r["repr"] for r in records if r["decoder"] == "vcd").startswith("VCD(alpha=1.0")


def test_each_answer_is_one_line_with_what_was_asked(plain):
    for benchmark in BY_DEFAULT:
        for name in FILES:
            found = rows(plain / benchmark / name)
            assert len({row["id"] for row in found}) == len(found)
            assert len({row["image_id"] for row in found}) == LIMIT
            assert all(row["text"] and row["error"] is None for row in found)
    labels = [row["label"] for row in rows(plain / "pope" / "greedy.jsonl")]
    assert labels.count("yes") == 3 * LIMIT, "positives are the same in all three splits, and asked once"
    assert 3 * LIMIT <= labels.count("no") <= 9 * LIMIT


def test_pope_without_a_prefix_is_all_three_splits(plain):
    found = next(record["metrics"] for record in numbers(plain) if record["benchmark"] == "pope")
    mean = sum(found[f"{split}_accuracy"]["value"] for split in ("random", "popular", "adversarial")) / 3
    assert found["accuracy"]["value"] == pytest.approx(mean)


def test_the_manifest_says_how_to_repeat_it(plain):
    manifest = json.loads((plain / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["model"]["model"] == "embedded"
    assert re.fullmatch("[0-9a-f]{64}", manifest["model"]["weights"])
    assert manifest["decoders"]["vcd"] == "VCD(alpha=1.0, beta=0.1, noise_step=500, seed=0)"
    assert manifest["seed"] == 0
    assert manifest["dataset"] == "world:test"
    assert {"python", "veridical", "torch", "transformers"} <= set(manifest["versions"])
    assert manifest["hardware"]["cpu"]
    assert manifest["started"] <= manifest["finished"]
    chair = manifest["benchmarks"]["chair"]
    assert "<image>" in chair["prompt"]
    assert chair["question"] in chair["prompt"]
    assert chair["generation"] == {"do_sample": False, "max_new_tokens": 128}
    assert len(chair["image_ids"]) == chair["images"] == LIMIT
    assert re.fullmatch("[0-9a-f]{64}", chair["data_sha256"])


def test_scoring_and_reporting_need_no_model(copy):
    code = (
        "import sys\nfrom veridical.flows.evaluation import steps\nsteps.score(sys.argv[1])\n"
        "steps.report(sys.argv[1])\nprint('torch' in sys.modules)"
    )
    before = numbers(copy)
    (copy / "results.json").unlink()
    shown = subprocess.run([sys.executable, "-c", code, str(copy)], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["False"]
    assert numbers(copy) == before


def test_decoders_have_safe_and_different_file_names():
    decoders = ["vcd", "vista:strength=0.1", "sla:window=(-7,-2)", "sla:window=(-7, -2)", "vsv+vcd", "a/../b", "a-..-b"]
    names = [answer_file.file_name(decoder) for decoder in decoders]
    assert all(re.fullmatch(r"[A-Za-z0-9._=,+-]+", name) for name in names)
    assert len(set(names)) == len(names)


# -- bad images ----------------------------------------------------------------------------------------------------
@pytest.fixture
def coco(tmp_path: Path) -> Path:
    from veridical.datasets.coco import write_coco

    return write_coco("test", 12, tmp_path / "coco")


def test_a_bad_image_is_an_error_row_and_the_run_goes_on(coco, tmp_path, veridical):
    from veridical.datasets.coco import coco_examples

    lost, cut, *_ = [Path(example.image) for example in coco_examples(coco, 5)]
    whole = cut.read_bytes()
    cut.write_bytes(whole[:900])
    lost.rename(lost.with_suffix(".away"))
    out = tmp_path / "out"
    command = ["evaluate", "--benchmark", "chair", "--limit", 5, "--out", out, "--coco", coco, "--no-prefect"]
    shown = veridical(*command)
    assert shown.exit_code == 0
    assert "note: greedy: 2 of 5 images of chair have no answer" in shown.stderr
    errors = [row["error"] for row in rows(out / "chair" / "greedy.jsonl") if row["error"]]
    assert any("does not exist" in error for error in errors)
    assert any("truncated" in error for error in errors)
    assert [(r["errors"], r["answers"], r["metrics"]["recall"]["n"]) for r in numbers(out)] == [(2, 3, 3)]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "2 of 5" in page
    assert f"{lost.name} does not exist" in page

    lost.with_suffix(".away").rename(lost)  # both are found again
    cut.write_bytes(whole)
    assert veridical(*command).exit_code == 0
    assert [(r["errors"], r["answers"]) for r in numbers(out)] == [(0, 5)]
    order = [row["id"] for row in rows(out / "chair" / "greedy.jsonl")]
    assert order == [example.id for example in coco_examples(coco, 5)]


def test_no_good_image_at_all_is_an_error(coco, tmp_path, veridical):
    for image in (coco / "test").iterdir():
        image.write_bytes(b"")
    command = ["evaluate", "--benchmark", "chair", "--limit", 2, "--out", tmp_path / "out", "--coco", coco]
    shown = veridical(*command, "--no-prefect")
    assert shown.exit_code == 2
    assert "none of 2 images of chair could be used" in shown.stderr
    assert "Traceback" not in shown.output


def test_a_coco_folder_gives_the_numbers_of_the_world_it_was_written_from(coco, tmp_path):
    options = {"limit": 12, "decoders": ["greedy"], "benchmarks": ["chair"], "batch_size": 12}
    of_files = evaluate(tmp_path / "files", coco=str(coco), **options)
    of_world = evaluate(tmp_path / "world", **options)
    assert numbers(of_files)[0]["metrics"] == numbers(of_world)[0]["metrics"]


# -- the report ----------------------------------------------------------------------------------------------------
def test_the_report_marks_right_and_hallucinated_words(copy):
    path = copy / "chair" / "greedy.jsonl"
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    first = BENCHMARKS["chair"].examples(Evaluation.read(copy).source)[0]
    assert first.id == found[0]["id"]
    there = sorted(first.objects)[0]
    absent = next(name for name in ("zebra", "giraffe", "toilet") if name not in first.objects)
    found[0]["text"] = f"A {there} & a <b>{absent}</b>."
    path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    steps.score(str(copy))
    page = Path(steps.report(str(copy))).read_text(encoding="utf-8")
    (shown,) = [one for one in shown_in(page)["examples"] if (one["benchmark"], one["id"]) == ("chair", first.id)]
    answer = shown["answers"][DECODERS.index("greedy")]
    kinds = {answer["text"][word["s"] : word["e"]]: word["k"] for word in answer["words"]}
    assert kinds[there.split()[0]] == 1
    assert kinds[f"<b>{absent}</b>."] == 2
    assert absent in "".join(shown["wrong"])
    assert f"<b>{absent}" not in page, "what a model says is text, never markup"
    assert {box[0] for box in shown["boxes"]} == set(first.objects)
    assert "maps" not in answer, "the attention that was read belongs to another text"


def shown_in(page):
    """What the browser of examples holds."""
    return json.loads(page.split('id="data">')[1].split("</script>")[0])


def test_attention_belongs_to_the_text_that_it_was_read_for(copy):
    path = copy / "chair" / "greedy.jsonl"
    changed = [{**row, "text": "A dog."} if place == 0 else row for place, row in enumerate(rows(path))]
    path.write_text("".join(json.dumps(row) + "\n" for row in changed), encoding="utf-8")
    page = Path(steps.report(str(copy))).read_text(encoding="utf-8")
    number = DECODERS.index("greedy")
    mine = {one["id"]: one["answers"][number] for one in shown_in(page)["examples"] if one["benchmark"] == "chair"}
    assert "maps" not in mine[changed[0]["id"]]
    assert mine[changed[1]["id"]]["maps"]


def test_the_attention_of_a_report_is_that_of_the_model_at_the_word(plain):
    from veridical.flows.report import maps
    from veridical.pipelines.attention_maps import attention_maps
    from veridical.pipelines.model.spec import ModelSpec, load

    example = BENCHMARKS["chair"].examples(Evaluation.read(plain).source)[0]
    row = next(row for row in rows(plain / "attention" / "chair" / "vcd.jsonl") if row["id"] == example.id)
    found = attention_maps(load(ModelSpec("embedded")), example.open(), row["text"], heads="mean")
    assert row["grid"] == list(found.overlay(0).shape)
    for token in (0, len(found.tokens) - 1):
        assert row["maps"][token] == maps.packed(found.overlay(token).numpy())
    assert [*map(tuple, row["spans"])] == found.places()


def test_the_report_needs_nothing_from_elsewhere(plain):
    page = (plain / "report.html").read_text(encoding="utf-8")
    assert not re.findall(r"(?:src|href)=[\"'](?!data:|#)", page)
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(", page)
    assert page.count("data:image/jpeg;base64,") >= LIMIT
    for part in (*DECODERS, "How this was run", "VCD(alpha=1.0", "prefers-color-scheme", "random", "adversarial"):
        assert part in page


def test_a_method_that_never_acted_is_named(tmp_path, veridical):
    out = tmp_path / "out"
    command = in_words(out, decoders=["greedy", "vcd:alpha=0,beta=0"], limit=1)
    shown = veridical(*command, "--benchmark", "chair", "--no-prefect")
    assert "note: vcd:alpha=0,beta=0: vcd never acted on chair" in shown.stderr
    assert "vcd never acted here" in (out / "report.html").read_text(encoding="utf-8")


def test_the_best_is_marked_only_where_the_paired_test_ranks_it():
    """Of 40 captions with a dog 20, 18, 8, 4 and 34 name a cat that is not there; more cats, no more dogs."""
    wrong = {"greedy": 20, "near": 18, "far": 8, "farther": 4, "worse": 34}
    truth = {image: {"dog"} for image in range(40)}
    texts = {name: {i: "A dog and a cat." if i < count else "A dog." for i in truth} for name, count in wrong.items()}
    systems = [
        compare.System(name, "chair", name, {"": compare.Texts(Chair(), texts[name], truth)}, {}) for name in wrong
    ]
    marked, about = report.verdicts(systems)
    for figure in ("chair_s", "chair_i", "precision", "f1"):
        assert [marked.get((name, figure)) for name in wrong] == [None, None, "better", "best", "worse"], figure
    assert not any(figure == "recall" for _, figure in marked)
    assert "figures differ on enough images to be tested; their p's are corrected for each other (Holm)" in about
    assert report.verdicts([]) == ({}, "Nothing is marked: there is no paired comparison with plain decoding here.")

