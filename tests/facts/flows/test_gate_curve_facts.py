"""Thresholds, shares and verdicts of a gate's curve, on numbers that can be checked by hand."""

import importlib.util
import math
import xml.etree.ElementTree as ElementTree

import pytest

from veridical.flows.gating.curve import kept, thresholds
from veridical.flows.gating.plot import figure, markdown, svg, verdicts
from veridical.metrics.chair import Chair


def chair(*captions):
    """Scores of captions about images that each show a dog."""
    world = Chair(synonyms=None)
    return world.score(dict(enumerate(captions)), {number: {"dog"} for number in range(len(captions))})


def cell(value, low=None, high=None):
    return {"value": value, "low": value if low is None else low, "high": value if high is None else high, "n": 4}


def row(decoder, detector, share, chair_i, left=None, threshold=None):
    figures = dict.fromkeys(("chair_s", "recall", "length"), cell(0.5))
    return {
        "decoder": decoder, "detector": detector, "share": None if share is None else cell(share), **figures,
        "threshold": threshold, "kept": left, "chair_i": cell(chair_i, chair_i - 0.05, chair_i + 0.05),
    }  # fmt: skip


ROWS = [
    row("greedy", None, None, 0.30),
    row("vcd", None, 1.0, 0.10),
    row("vcd", "entropy", 0.1, 0.20, cell(0.5, 0.3, 0.7), 1.25),
    row("vcd", "entropy", 0.25, 0.12, cell(0.9, 0.6, 1.1), 0.75),
    row("vcd", "entropy", 0.45, 0.10, cell(1.0, 0.8, 1.2), 0.5),
    row("sla", None, 1.0, 0.35),
    row("sla", "entropy", 0.1, 0.31, cell(0.2, -9.0, 9.0), 1.25),
]
FOUND = {
    "model": "a<b", "decoders": ["vcd", "sla"], "detectors": ["entropy"], "max_new_tokens": 20,
    "test": {"split": "world:test", "images": 4}, "validation": {"split": "world:validation", "images": 3},
    "rows": ROWS, "command": "veridical gate-curve -d vcd",
}  # fmt: skip


def test_a_threshold_lets_its_share_of_the_tokens_pass():
    risks = [float(number) for number in range(1, 101)]
    for share in (0.1, 0.3, 0.75):
        (limit,) = thresholds([*risks, math.nan], [share])
        assert sum(risk > limit for risk in risks) == 100 * share


def test_no_risk_no_threshold():
    with pytest.raises(ValueError, match="no token has a risk"):
        thresholds([math.nan], [0.1])


def test_what_is_kept_is_the_share_of_the_gain():
    """4 of 8 mentions wrong, 0 of 4 ungated, 1 of 5 gated: gains of .5 and .3, so that .6 is kept."""
    plain = chair(*["A dog and a cat."] * 4)
    ungated = chair(*["A dog."] * 4)
    gated = chair("A dog and a cat.", *["A dog."] * 3)
    assert kept(plain, ungated, gated).value == pytest.approx(0.6)
    assert kept(plain, ungated, ungated).value == 1
    assert kept(plain, ungated, plain).value == 0
    assert math.isnan(kept(plain, plain, gated).value), "without a gain there is nothing to keep"


def test_images_are_resampled_together():
    """Where every image keeps the same share, no resample differs; unpaired they would."""
    plain, ungated = chair("A dog and a cat.", "A dog."), chair("A dog.", "A dog.")
    found = kept(plain, ungated, ungated)
    assert (found.low, found.high) == (1, 1)


def test_verdicts_name_the_best_gate_within_the_steps_and_what_gains_nothing():
    report = "\n".join(verdicts(ROWS))
    assert "`vcd`: yes, though its interval reaches lower. `entropy` keeps 0.90 [0.60, 1.10] of the gain" in report
    assert "of 0.200 at 25.0% of the steps" in report
    assert "`sla`: ungated it gains nothing in CHAIR_i (+0.050)" in report
    assert "`vcd`: no. `entropy` keeps 0.50" in "\n".join(verdicts(ROWS, most=0.2))
    assert "no gate stayed within 5%" in "\n".join(verdicts(ROWS, most=0.05))
    assert "`vcd`: yes. `entropy`" in "\n".join(verdicts(ROWS, most=0.5))


def test_the_page_has_a_line_per_row_and_the_image():
    page = markdown(FOUND, "gating.svg")
    assert "](gating.svg)" in page
    assert "```bash\nveridical gate-curve -d vcd\n```" in page
    table = [line for line in page.splitlines() if line.startswith("| `")]
    assert len(table) == len(ROWS)
    assert table[2] == (
        "| `vcd` | `entropy` | 1.25 | 0.100 [0.100, 0.100] | 0.200 [0.150, 0.250] | 0.50 [0.30, 0.70] | "
        "0.500 [0.500, 0.500] | 0.500 [0.500, 0.500] | 0.5 |"
    )


def test_the_figure_has_a_point_per_gate_and_a_line_per_detector():
    drawn = figure(FOUND)
    panels = [ax for ax in drawn.axes if ax.get_visible()]
    assert [ax.get_title("left") for ax in panels] == FOUND["decoders"]
    points = [line for ax in panels for line in ax.lines if line.get_marker() == "o"]
    assert sum(len(line.get_xdata()) for line in points) == 4
    (first, *_) = points
    assert list(first.get_ydata()) == sorted(first.get_ydata(), reverse=True), "more steps, less hallucination here"


def test_the_figure_is_sound_xml_and_the_same_text_each_time():
    text = svg(FOUND)
    assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
    assert svg(FOUND) == text
    assert "share of steps acted on" in text


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'veridical\[plots\]'"):
        svg(FOUND)
