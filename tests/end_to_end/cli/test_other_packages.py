"""A package beside veridical, built and installed for real, with a decoder, a detector and a benchmark of its own."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "shouting"
version = "0.3"
[project.entry-points."veridical.decoders"]
shout = "shouting.decode:Shout"
[project.entry-points."veridical.detectors"]
rank = "shouting.detect:Rank"
[project.entry-points."veridical.benchmarks"]
brevity = "shouting.measure:Brevity"
[tool.setuptools]
packages = ["shouting"]
"""
DECODE = '''
"""Shouting. Nobody, "Louder", 2026, arXiv 2601.00001."""
from dataclasses import dataclass
from veridical.pipelines.engine.declarations import LogitsEdit
from veridical.pipelines.method import Decoder, number

@dataclass(frozen=True)
class Shout(Decoder):
    """Multiply the logits by 1 + volume."""
    volume: float = number(0.5, "how much louder", "0 is plain decoding.")
    paper = "2601.00001"
    changes = "how loud logits are"
    cost = "1 forward per token"
    neutral = {"volume": 0}
    faint = {"volume": 1e-7}

    def edits(self, lvlm, inputs):
        yield LogitsEdit(lambda logits, step: logits * (1 + self.volume))

@dataclass(frozen=True)
class VCD(Decoder):
    """Another one's VCD, which is not registered."""
    neutral = {}

@dataclass(frozen=True)
class Wrong(Decoder):
    """Returns another shape than it is given."""

    def edits(self, lvlm, inputs):
        yield LogitsEdit(lambda logits, step: logits[:, :5])
'''
DETECT = '''
"""Rank of a token."""
from dataclasses import dataclass
from veridical.pipelines.method import Detector

@dataclass(frozen=True)
class Rank(Detector):
    """Negative log-likelihood, halved."""
    paper = "baseline"
    reads = "logits"

    def score(self, record):
        return -record.log_probability / 2
'''
MEASURE = '''
"""How short answers are."""
from veridical.datasets.examples import world_captions
from veridical.flows.benchmarks.base import Benchmark
from veridical.metrics.estimate import Estimate

class Brevity(Benchmark):
    """Brevity: how many words a caption has."""
    name, version, unit, max_new_tokens = "brevity", "1", "images", 12
    prompt = "Please describe this image in detail."
    higher_is_better = {"words": False}
    tables = {"": ("words",)}
    headline = ("words",)

    def examples(self, source):
        return tuple(world_captions("test", source.limit))

    def estimates(self, source, asked, texts):
        mean = sum(len(text.split()) for text in texts) / len(texts)
        return {"words": Estimate(mean, mean, mean, len(texts))}

    def marks(self, source, example, text):
        return []
'''
CONTRACT = '''
from shouting.decode import Shout
from shouting.detect import Rank
from veridical.testing import DecoderContract, DetectorContract

class TestShout(DecoderContract):
    decoder = Shout(volume=0.25)

class TestRank(DetectorContract):
    detector = Rank()
'''


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text).lstrip(), encoding="utf-8")
    return folder


def installed(source, target):
    """Built and installed by pip beside this environment, offline."""
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    done = subprocess.run([*command, "--target", str(target), str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="module")
def shouting(tmp_path_factory):
    folder = tmp_path_factory.mktemp("other")
    files = {"pyproject.toml": PROJECT, "shouting/__init__.py": "", "shouting/decode.py": DECODE,
             "shouting/detect.py": DETECT, "shouting/measure.py": MEASURE}  # fmt: skip
    return installed(write(folder / "source", files), folder / "installed")


def run(beside, *arguments, code=None, cwd=None):
    """`veridical …` (or other code) with packages beside it."""
    program = code or f"import sys; sys.argv = ['veridical', *{list(map(str, arguments))!r}]\n" + (
        "from veridical.cli.main import main; main()"
    )
    path = os.pathsep.join(map(str, beside if isinstance(beside, list) else [beside]))
    environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200"}
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, cwd=cwd)


def test_the_list_shows_another_packages_methods_with_their_origin(shouting):
    shown = run(shouting, "list")
    assert shown.returncode == 0, shown.stderr
    lines = [line for line in shown.stdout.splitlines() if "(shouting 0.3)" in line]
    assert [line.split(" ")[0] for line in lines] == ["shout", "rank", "brevity"]
    assert "how loud logits are" in lines[0]
    assert "arXiv 2601.00001" in lines[0]
    long = " ".join(run(shouting, "list", "--long").stdout.split())
    assert "from shouting 0.3" in long
    assert "volume: how much louder, 0 or more. 0 is plain decoding." in long


def test_an_evaluation_runs_them_by_name_and_by_class(shouting, tmp_path):
    decoders = ["greedy", "shout", "shouting.decode:Shout(volume=2)+vcd"]
    options = [part for decoder in decoders for part in ("-d", decoder)]
    done = run(shouting, "evaluate", *options, "-t", "rank", "--benchmark", "brevity", "--limit", 2,
               "--no-prefect", "--out", tmp_path / "run")  # fmt: skip
    assert done.returncode == 0, done.stderr
    records = {record["decoder"]: record for record in json.loads((tmp_path / "run" / "results.json").read_text())}
    assert list(records) == decoders
    assert records["shout"]["metrics"]["words"]["n"] == 2
    assert "shout" in records["shout"]["acted"]
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert "Shout(volume=2) + VCD(alpha=1.0" in json.dumps(manifest)


def test_the_shared_contract_runs_on_them_from_their_own_tests(shouting, tmp_path):
    write(tmp_path, {"test_contract.py": CONTRACT})
    code = "import sys, pytest; sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', 'test_contract.py']))"
    done = run(shouting, code=code, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "13 passed" in done.stdout


def test_a_class_of_the_same_name_is_not_recorded_as_ours(shouting):
    code = (
        "from shouting.decode import VCD as theirs, Shout\nfrom veridical.decoders import VCD\n"
        "from veridical.pipelines.registry import DECODERS\n"
        "print(DECODERS.name_of(theirs()), DECODERS.name_of(VCD()), DECODERS.name_of(Shout()))"
    )
    assert run(shouting, code=code).stdout.split() == ["VCD", "vcd", "shout"]


def test_a_decoder_that_returns_another_shape_is_named(shouting):
    code = (
        "import veridical, shouting.decode as theirs\nfrom veridical.testing import tiny_case\ncase = tiny_case()\n"
        "try:\n    case.logits([theirs.Wrong()])\nexcept ValueError as error:\n    print(error)"
    )
    found = run(shouting, code=code)
    assert "Wrong: its LogitsEdit returned (3, 5) for a tensor of shape (3, 128)" in found.stdout, found.stderr


@pytest.mark.parametrize(("decoder", "message"), [
    ("shouting.decode:Scream", "from shouting.decode import Scream"),
    ("nowhere.at.all:Thing(volume=1)", "No module named 'nowhere'"),
    ("shouting.detect:Rank", "shouting.detect:Rank is no decoder, which is a dataclass with edits()"),
    ("os:system(command='true')", "os:system is no decoder"),
    ("shouting.decode:Shout(loudness=1)", "Shout has no field 'loudness'; it has: volume=0.5"),
    ("shouting.decode:Shout(volume=-1)", "shout: volume=-1 is below 0 (how much louder)."),
])  # fmt: skip
def test_what_cannot_be_used_by_its_class_is_refused_with_what_to_do(shouting, tmp_path, decoder, message):
    done = run(shouting, "evaluate", "-d", decoder, "--limit", 1, "--no-prefect", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("Error: ") == 1


def test_a_name_that_is_taken_is_refused_with_both_origins(shouting, tmp_path):
    """The name stands for nothing; the others work, and the list says why."""
    project = PROJECT.replace('"shouting"\n', '"copycat"\n', 1).replace("0.3", "9").replace("shout =", "vcd =")
    project = project.replace("rank =", "entropy =").replace("brevity =", "chair =").replace("shouting.", "copycat.")
    files = {"pyproject.toml": project.replace('["shouting"]', '["copycat"]'), "copycat/__init__.py": "",
             "copycat/decode.py": DECODE, "copycat/detect.py": DETECT, "copycat/measure.py": MEASURE}  # fmt: skip
    beside = [shouting, installed(write(tmp_path / "source", files), tmp_path / "installed")]
    shown = run(beside, "list")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.count("registered by veridical and by copycat 9") == 3
    options = ["--benchmark", "pope", "--limit", 1, "--no-prefect", "--out", tmp_path / "run"]
    done = run(beside, "evaluate", "-d", "vcd", *options)
    assert done.returncode == 2
    assert 'decoder "vcd": the name is registered by veridical and by copycat 9' in done.stderr
    done = run(beside, "evaluate", "--benchmark", "chair", "--limit", 1, "--no-prefect", "--out", tmp_path / "run")
    assert 'benchmark "chair": the name is registered by veridical and by copycat 9' in done.stderr
