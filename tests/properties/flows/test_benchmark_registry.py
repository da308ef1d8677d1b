"""Benchmarks by name: ours, and those of other packages, which register them by an entry point."""

import pytest

from veridical.cli.render import methods
from veridical.flows.benchmarks import NAMES, registry
from veridical.flows.benchmarks.registry import BENCHMARKS, Benchmarks, UnknownBenchmark

COLOURS = '''
from veridical.flows.benchmarks.base import Benchmark


class Colours(Benchmark):
    """Colours: is the object of this colour?"""

    name = "colours"
    tables = {"": ("accuracy",)}
'''


def package(folder, name, entry):
    """A package as pip would have installed it, with one benchmark."""
    (folder / f"{name}.py").write_text(COLOURS)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[veridical.benchmarks]\n{entry} = {name}:Colours\n")


@pytest.fixture
def installed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    return lambda name, entry: package(tmp_path, name, entry)


def test_a_benchmark_of_another_package_is_found_by_its_name_and_stands_behind_ours(installed):
    installed("colour_words", "colours")
    found = Benchmarks()
    assert [*found] == [*NAMES, "colours"]
    assert found["colours"].tables == {"": ("accuracy",)}
    assert found.origin("colours") == "colour_words 1.0"
    assert found.origin("chair") == "veridical"


def test_a_name_that_is_taken_is_refused_with_both_owners(installed):
    installed("colour_words", "pope")
    with pytest.raises(ValueError, match=r'"pope": the name is registered by veridical and by colour_words 1\.0, so'):
        Benchmarks()["pope"]


def test_two_packages_with_one_name_are_refused_with_both_owners(installed):
    installed("colour_words", "colours")
    installed("more_colours", "colours")
    with pytest.raises(ValueError, match=r'"colours": .* by (colour_words|more_colours) 1\.0 and by '):
        Benchmarks()["colours"]


def test_an_unknown_benchmark_is_answered_with_a_near_name_and_all_known_ones():
    with pytest.raises(UnknownBenchmark, match=r'no benchmark "popes"\. Did you mean "pope"\? Known: amber'):
        BENCHMARKS["popes"]


def test_the_list_says_which_package_a_benchmark_comes_from(installed, monkeypatch, capsys):
    installed("colour_words", "colours")
    found = Benchmarks()
    monkeypatch.setattr(registry, "BENCHMARKS", found)
    monkeypatch.setattr(methods, "BENCHMARKS", found)
    methods.benchmarks(long=True)
    shown = capsys.readouterr().out
    assert "colours (colour_words 1.0)" in shown
    assert "Colours: is the object of this colour?" in shown
    assert shown.count(" (colour_words") == 1


def test_every_benchmark_is_registered_under_its_own_name():
    assert [benchmark.name for benchmark in BENCHMARKS.values()] == [*NAMES]
