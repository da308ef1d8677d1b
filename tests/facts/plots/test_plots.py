"""Figures are those of stored images, and say in words what cannot be drawn.

`WRITE_IMAGES=1` stores them anew. The tolerance is the root mean square of differences of 0 to 255: other releases of
FreeType and matplotlib place the edges of letters differently, which gives up to about 6 on images this small; a
missing point, a swapped axis or an overlay of another token gives 12 and more.
"""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.testing.compare import compare_images

from veridical import Answer, plots
from veridical.pipelines.attention_maps import AttentionMaps
from veridical.pipelines.model.families import NoGrid

IMAGES = Path(__file__).parent / "images"
TOLERANCE = 8


def axis(width=3.0, height=2.2):
    return Figure(figsize=(width, height), dpi=60, layout="constrained").subplots()


def same(ax, name, tmp_path):
    """Compares the figure with the stored image."""
    drawn, stored = tmp_path / f"{name}.png", IMAGES / f"{name}.png"
    with matplotlib.rc_context(matplotlib.rcParamsDefault):
        ax.figure.savefig(stored if os.environ.get("WRITE_IMAGES") else drawn, metadata={"Software": None})
    if not os.environ.get("WRITE_IMAGES"):
        assert compare_images(str(stored), str(drawn), TOLERANCE) is None


@pytest.fixture
def maps():
    """Two tokens, three layers, two heads, an image of 2 × 3 positions: token 1, layer 2, head 1 looks at the last."""
    values = torch.full((2, 3, 2, 6), 0.01)
    values[0, :, :, 0] = 0.5
    values[1, 2, 1] = torch.tensor([0, 0, 0.1, 0, 0.1, 0.6])
    return AttentionMaps("A dog.", ["A", " dog."], values, torch.tensor([0.9, 0.2]), (0, 1, 2), [(2, 3)])


@pytest.fixture
def image():
    shades = np.linspace(40, 220, 60, dtype=np.uint8)
    return np.stack([np.tile(shades, (40, 1))] * 3, 2)


def record(decoder, chair, recall, seconds):
    cell = lambda value: {"value": value, "low": value - 0.03, "high": value + 0.02, "n": 50}
    return {
        "benchmark": "chair", "decoder": decoder, "seconds_per_image": seconds,
        "metrics": {"chair_i": cell(chair), "recall": cell(recall)},
    }  # fmt: skip


RECORDS = [record("greedy", 0.20, 0.80, 1.0), record("vcd", 0.13, 0.74, 2.1)]
EXAMPLE = Answer("A hot dog.", ["A", " hot", " do", "g", "."], {"entropy": [0.1, 0.2, 0.9, 0.3, 0.1]})


def test_an_overlay_shows_the_chosen_layer_and_head_on_the_image(maps, image, tmp_path):
    ax = axis()
    assert plots.attention_overlay(maps, image, "dog", layer=2, head=1, ax=ax) is ax
    np.testing.assert_allclose(ax.images[1].get_array(), [[0, 0, 0.1], [0, 0.1, 0.6]], atol=1e-7)
    same(ax, "overlay", tmp_path)


def test_an_overlay_of_what_a_processor_cuts_out_covers_that_part_alone(maps, image, tmp_path):
    from dataclasses import replace

    ax = plots.attention_overlay(replace(maps, area=(0.2, 0.0, 0.8, 1.0)), image, 0, ax=axis())
    same(ax, "overlay_of_a_part", tmp_path)
    _, drawn = ax.images
    assert drawn.get_extent() == [12, 48, 40, 0]


def test_the_mean_is_over_the_layers_and_heads_that_are_not_chosen(maps):
    assert maps.overlay("dog", 2, 1).tolist() == [pytest.approx([0, 0, 0.1]), pytest.approx([0, 0.1, 0.6])]
    assert maps.overlay("dog", 2)[1, 2].item() == pytest.approx((0.6 + 0.01) / 2)
    assert maps.overlay("dog")[1, 2].item() == pytest.approx((0.6 + 5 * 0.01) / 6)
    assert maps.share(1)[2].tolist() == pytest.approx([0.06, 0.8])


def test_without_a_grid_the_overlay_is_refused_with_the_reason(maps, image):
    from dataclasses import replace

    with pytest.raises(NoGrid, match="query tokens"):
        plots.attention_overlay(replace(maps, grids=(), no_grid="its positions are query tokens"), image, 0, ax=axis())
    with pytest.raises(NoGrid, match="2 rectangles of positions, and none shows all"):
        replace(maps, grids=[(1, 3), (1, 3)]).overlay(0)
    assert replace(maps, grids=[(1, 3), (1, 3)], whole=-1).overlay(1, 2, 1).tolist() == [pytest.approx([0, 0.1, 0.6])]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"token": "cat"}, "'cat' is not in the text 'A dog.'"), ({"token": 2}, "token=2 of a text of 2 tokens"),
        ({"token": 0, "layer": 3}, "layer=3 was not read; there are 0, 1, 2"),
        ({"token": 0, "head": 2}, 'head=2 is not there: 2 were kept, 0 to 1; read the maps with heads="all"'),
    ],
)  # fmt: skip
def test_a_token_layer_or_head_that_is_not_there_is_named(maps, options, words):
    with pytest.raises(ValueError, match=words):
        maps.overlay(**options)


def test_a_map_of_heads_has_layers_upwards_and_heads_to_the_right(maps, tmp_path):
    ax = axis()
    assert plots.head_map(maps, "dog", ax=ax) is ax
    same(ax, "heads", tmp_path)


def test_the_risk_along_a_caption_has_a_point_per_word(tmp_path):
    ax = axis()
    assert plots.risk_along_caption(EXAMPLE, ax=ax) is ax
    assert ax.lines[0].get_ydata().tolist() == [0.1, 0.2, 0.9]
    same(ax, "risk", tmp_path)


def test_risks_that_are_not_there_are_named():
    with pytest.raises(ValueError, match=r"no risks of 'vhd'; there are entropy\."):
        plots.risk_along_caption(EXAMPLE, "vhd", axis())
    with pytest.raises(ValueError, match="name detectors when you ask for the answer"):
        plots.risk_along_caption(Answer("A dog."), ax=axis())


def test_the_plane_has_a_cross_per_decoder_from_records_and_from_a_folder(tmp_path):
    ax = axis()
    assert plots.hallucination_recall(RECORDS, ax=ax) is ax
    same(ax, "plane", tmp_path)
    (tmp_path / "results.json").write_text(json.dumps(RECORDS))
    again = plots.hallucination_recall(tmp_path, ax=axis())
    assert [one.get_label() for one in again.containers] == ["greedy (1.0×)", "vcd (2.1×)"]


def test_a_plane_of_a_benchmark_without_recall_is_refused():
    with pytest.raises(ValueError, match=r"'pope' has no hallucination and recall to draw; possible: chair, amber\."):
        plots.hallucination_recall(RECORDS, "pope", axis())
    with pytest.raises(ValueError, match=r"the results have no 'amber'; they have chair\."):
        plots.hallucination_recall(RECORDS, "amber", axis())


def test_a_gate_curve_is_drawn_on_the_given_axis(tmp_path):
    cell = lambda value: {"value": value, "low": value - 0.02, "high": value + 0.03}
    row = lambda detector, share, chair: {
        "decoder": "vcd", "detector": detector, "share": share and cell(share), "chair_i": cell(chair)
    }
    rows = [row(None, None, 0.2), row(None, 1.0, 0.12), row("entropy", 0.2, 0.16), row("entropy", 0.5, 0.13)]
    ax = axis()
    assert plots.gate_curve({"rows": rows, "detectors": ["entropy"]}, "vcd", ax) is ax
    same(ax, "gate", tmp_path)
    with pytest.raises(ValueError, match="no decoder 'sla'; it has vcd"):
        plots.gate_curve({"rows": rows, "detectors": ["entropy"]}, "sla", axis())


def test_a_reliability_diagram_has_a_point_per_bin_over_its_mean_risk(tmp_path):
    one = lambda probability, value, count: SimpleNamespace(
        probability=probability, count=count, share=SimpleNamespace(value=value, low=value - 0.1, high=value + 0.05)
    )
    ax = axis(2.6, 2.6)
    assert plots.reliability_diagram([one(0.1, 0.2, 90), one(0.5, 0.45, 30), one(0.9, 0.6, 10)], "vhd", ax) is ax
    assert ax.collections[-1].get_offsets().tolist() == [[0.1, 0.2], [0.5, 0.45], [0.9, 0.6]]
    same(ax, "reliability", tmp_path)
    with pytest.raises(ValueError, match="no bins to draw"):
        plots.reliability_diagram([], ax=axis())


def test_without_an_axis_it_is_pyplots_current_one():
    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, ax = pyplot.subplots()
    assert plots.risk_along_caption(EXAMPLE) is ax
    pyplot.close(figure)


def test_public_names_are_listed_and_a_wrong_one_is_named():
    assert {"attention_overlay", "head_map"} <= set(dir(plots))
    with pytest.raises(AttributeError, match="public: AttentionMaps"):
        plots.overlay  # noqa: B018
