"""The curve of perceptual limits: every level with its interval, in order, a line per decoder."""

import pytest
from matplotlib.figure import Figure

from veridical import plots


def record(decoder, values):
    cells = {
        name: {"value": value, "low": value - 0.1, "high": value + 0.05, "n": 9} for name, value in values.items()
    }
    return {"benchmark": "limits", "decoder": decoder, "metrics": cells}


SIZES = {"size_accuracy_12": 0.3, "size_accuracy_48": 0.8, "size_accuracy_change_12": -0.5, "size_chair_i_12": 0.9}


def test_a_line_has_the_levels_of_its_factor_and_their_values():
    results = [record("greedy", SIZES), record("vcd", {**SIZES, "size_accuracy_12": 0.4})]
    ax = plots.limit_curve(results, "size", ax=Figure().subplots())
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["12", "48"]
    lines = [container.lines[0] for container in ax.containers]
    assert [line.get_ydata().tolist() for line in lines] == [[0.3, 0.8], [0.4, 0.8]]
    assert [one.get_label() for one in ax.containers] == ["greedy", "vcd"]
    segments = ax.containers[0].lines[2][0].get_segments()
    assert segments[0][:, 1].tolist() == pytest.approx([0.2, 0.35])


def test_levels_that_are_words_stand_side_by_side():
    results = [record("greedy", {"background_chair_i_typical": 0.2, "background_chair_i_foreign": 0.4})]
    ax = plots.limit_curve(results, "background", "chair_i", Figure().subplots())
    assert ax.containers[0].lines[0].get_xdata().tolist() == [0, 1]


@pytest.mark.parametrize(("factor", "figure"), [("colour", "accuracy"), ("size", "f1")])
def test_what_was_not_measured_is_refused(factor, figure):
    with pytest.raises(ValueError, match=f"no {figure} by {factor} in 1 results"):
        plots.limit_curve([record("greedy", SIZES)], factor, figure)
