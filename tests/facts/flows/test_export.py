"""Tables for papers and other programs: the same figures and verdicts in every format."""

import csv
import io
from types import SimpleNamespace

import pytest

from veridical.flows.scoring import tables as export
from veridical.flows.scoring.compare import Found, System
from veridical.metrics.compare import Comparison
from veridical.metrics.estimate import Estimate


def system(name, method):
    return System(name, "chair", method, {}, {})


def comparison(first, second, p):
    return Comparison(first, second, Estimate(first - second, -0.3, -0.1, 100), False, p, differing=50)


@pytest.fixture
def found():
    """Two systems against the first: one better, one not to be told apart."""
    base = system("runs/a:greedy", "greedy")
    pairs = (("vcd", 0.2, 1e-6), ("sla_2", 0.39, 0.9))
    return [
        Found(base, system(f"runs/a:{name}", name), {"": {"chair_i": comparison(value, 0.4, p)}}, [])
        for name, value, p in pairs
    ]


def test_every_system_is_one_row_under_its_decoder_and_marked_where_it_is_better(found):
    (matrix,) = export.compared(found)
    assert matrix.cells() == [
        ["system", "chair_i ↓"], ["greedy", "0.400"], ["vcd", "0.200▲"], ["sla_2", "0.390"],
    ]  # fmt: skip


def test_systems_of_one_decoder_keep_the_names_of_their_folders(found):
    other = [Found(found[0].baseline, system("runs/b:greedy", "greedy"), found[0].tables, [])]
    (matrix,) = export.compared(other)
    assert list(matrix.rows) == ["runs/a:greedy", "runs/b:greedy"]


def test_markdown_latex_and_csv_hold_the_same_figures(found):
    matrices = export.compared(found)
    assert "| vcd | 0.200▲ |" in export.as_text(matrices, "markdown")
    latex = export.as_text(matrices, "latex")
    assert r"sla\_2 & 0.390 \\" in latex
    assert r"vcd & 0.200$^{\uparrow}$ \\" in latex
    rows = list(csv.DictReader(io.StringIO(export.as_text(matrices, "csv"))))
    assert [(row["system"], float(row["value"]), row["verdict"]) for row in rows] == [
        ("greedy", 0.4, ""), ("vcd", 0.2, "better"), ("sla_2", 0.39, ""),
    ]  # fmt: skip


def test_a_figure_that_one_system_lacks_is_a_dash():
    records = [
        {"benchmark": "chair", "decoder": "greedy", "metrics": {"recall": {"value": 0.5}, "f1": {"value": 0.6}}},
        {"benchmark": "chair", "decoder": "vcd", "metrics": {"recall": {"value": 0.7}}},
    ]
    (matrix,) = export.evaluated(records, {"chair": {"recall": True}})
    assert matrix.cells() == [["system", "recall ↑", "f1"], ["greedy", "0.500", "0.600"], ["vcd", "0.700", "–"]]


# ---------------------------------------------------------------------- --config


def context():
    option = lambda name, several=False: SimpleNamespace(opts=[f"--{name}"], name=name, multiple=several)
    params = [option("limit"), option("decoder", True), option("config")]
    return SimpleNamespace(command=SimpleNamespace(params=params), default_map=None)


def test_a_file_gives_the_defaults_of_a_command_and_one_value_is_a_list_of_one(tmp_path):
    from veridical.cli.config import configured

    (tmp_path / "run.toml").write_text('limit = 3\ndecoder = "vcd"\n')
    here = context()
    configured(here, tmp_path / "run.toml")
    assert here.default_map == {"limit": 3, "decoder": ["vcd"]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("limits = 3", 'no option "limits". Did you mean "limit"? Possible: decoder, limit.'),
        ("limit = [3]", "limit is one value, not"), ("limit 3", "is no TOML"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_one_sentence(tmp_path, text, expected):
    from veridical.cli.config import configured

    (tmp_path / "run.toml").write_text(text)
    with pytest.raises(ValueError, match="--config") as raised:
        configured(context(), tmp_path / "run.toml")
    assert expected in str(raised.value)


def manifest(folder, **changes):
    """A manifest with a request about COCO, sampled."""
    import json

    from veridical.flows.benchmarks.base import Source
    from veridical.flows.evaluation.request import Evaluation
    from veridical.pipelines.model.spec import ModelSpec

    source = {"coco": "coco", "limit": 7, "pope": "vcd", **changes}
    sampled = {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "top_k": 0}
    request = Evaluation(ModelSpec("embedded"), ["vcd"], [], ["pope"], Source(**source), 4, sampled)
    (folder / "manifest.json").write_text(json.dumps({"request": request.record()}))
    return folder / "manifest.json"


def test_a_manifest_gives_the_options_of_its_run(tmp_path):
    from veridical.cli.config import of_manifest

    found = of_manifest(manifest(tmp_path, prompt_name="@vista @vcd"))
    assert found == {
        "model": "embedded", "device": "auto", "dtype": "auto", "coco": "coco", "limit": 7, "seed": 0,
        "decoder": ["vcd"], "benchmark": ["pope"], "batch-size": 4, "protocol": "vcd", "prompt": ["@vista", "@vcd"],
        "sample": True, "temperature": 0.7, "top-p": 0.9,
    }  # fmt: skip


def test_a_manifest_with_prompts_in_words_is_refused(tmp_path):
    from veridical.cli.config import of_manifest

    with pytest.raises(ValueError, match=r"its prompts are texts \('Say what you see\.'\)"):
        of_manifest(manifest(tmp_path, prompt_name="Say what you see."))
