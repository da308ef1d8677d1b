"""A benchmark of another package, installed beside veridical: listed, evaluated, in the report."""

import json

import pytest

from veridical.flows.benchmarks.registry import BENCHMARKS

COLOURS = '''
"""A benchmark with one question per scene."""

from veridical.datasets.examples import Example
from veridical.flows.benchmarks.base import Benchmark, Mark
from veridical.metrics.estimate import ratio


class Colours(Benchmark):
    """Colours: is there a colour in the answer?"""

    name = "colours"
    version = "1"
    prompt = None
    max_new_tokens = 4
    unit = "questions"
    higher_is_better = {"named": True}
    tables = {"": ("named",)}
    headline = ("named",)

    def examples(self, source):
        return [Example(f"colours-{n}", f"world:test/{n}", n, "Which colour?", None, frozenset())
                for n in range(source.limit)]

    def estimates(self, source, examples, texts):
        return {"named": ratio(["red" in text for text in texts], [1] * len(texts))}

    def marks(self, source, example, text):
        return [Mark(0, len(text), "red" in text)]
'''


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The package as pip would have installed it."""
    (tmp_path / "colour_questions.py").write_text(COLOURS)
    info = tmp_path / "colour_questions-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: colour-questions\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[veridical.benchmarks]\ncolours = colour_questions:Colours\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    BENCHMARKS.__dict__.pop("_others", None)
    yield
    BENCHMARKS.__dict__.pop("_others", None)
    BENCHMARKS._loaded.pop("colours", None)


def test_it_is_listed_and_evaluated_by_its_name(installed, veridical, tmp_path):
    assert "colours (colour-questions 1.0) Colours: is there" in " ".join(veridical("list").stdout.split())
    out = tmp_path / "run"
    shown = veridical("evaluate", "--no-prefect", "--benchmark", "colours", "--limit", 2, "--out", out)
    assert shown.exit_code == 0, shown.output
    [record] = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert (record["benchmark"], record["answers"], record["metrics"]["named"]["n"]) == ("colours", 2, 2)
    assert "is there a colour in the answer?" in (out / "report.html").read_text(encoding="utf-8")
