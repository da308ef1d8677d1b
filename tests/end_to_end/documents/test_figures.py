"""The page that says which method to use gives the figures that were measured."""

import re

import pytest

from .reader import ROOT

FIGURE = re.compile(r"×\d\.\d+|\d\.\d{3}")
MEASURED = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
ADVICE = (ROOT / "docs" / "which.md").read_text(encoding="utf-8")


def rows(text):
    """(method, line) of each row of a table that names a setting."""
    for line in text.splitlines():
        if line.startswith("|") and (found := re.search(r"`([\w]+)[`:+]", line)):
            yield found[1], line


def known(method):
    """Every figure of the measured table in rows of this method, or of plain decoding."""
    return {one for name, line in rows(MEASURED) if name in (method, "greedy") for one in FIGURE.findall(line)}


@pytest.mark.parametrize("part", ["If you write captions", "If you answer yes/no questions"])
def test_figures_of_the_advice_are_measured_ones_of_the_method_that_it_names(part):
    section = ADVICE.split(f"## {part}\n")[1].split("\n## ")[0]
    advised = [*rows(section)]
    assert len(advised) >= 3
    wrong = {line: odd for method, line in advised if (odd := {*FIGURE.findall(line)} - known(method))}
    assert not wrong


def test_a_figure_that_was_not_measured_is_found():
    assert "0.143" in known("vcd")
    assert "0.142" not in known("vcd")
