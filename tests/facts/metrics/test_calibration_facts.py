"""Curves from risk to probability and the bins of a reliability diagram, in numbers worked by hand."""

import numpy as np
import pytest

from veridical.metrics.calibration import Curve, fit_curve, reliability
from veridical.metrics.ranking import ece


def test_bins_count_what_is_in_them_and_leave_empty_ones_out():
    found = reliability([0.05, 0.15, 0.15, 0.95, 1.0], [0, 1, 0, 1, 1], bins=10)
    assert [(b.low, b.high, b.count) for b in found] == [(0.0, 0.1, 1), (0.1, 0.2, 2), (0.9, 1.0, 2)]
    assert [b.probability for b in found] == pytest.approx([0.05, 0.15, 0.975])
    assert [b.share.value for b in found] == [0.0, 0.5, 1.0]
    assert (found[1].share.low, found[1].share.high) == pytest.approx((0.0945, 0.9055), abs=1e-4)


def test_the_bins_gaps_weighed_by_their_counts_are_the_calibration_error():
    draw = np.random.default_rng(0)
    p = draw.random(300)
    labels = (draw.random(300) < p**2).astype(int)
    gaps = sum(b.count * abs(b.share.value - b.probability) for b in reliability(p, labels)) / 300
    assert gaps == pytest.approx(ece(p, labels), abs=1e-9)


def test_items_of_one_image_widen_the_interval():
    p, labels = [0.5] * 40, [1] * 20 + [0] * 20
    (alone,) = reliability(p, labels)
    (together,) = reliability(p, labels, [n // 10 for n in range(40)])
    assert together.share.n == 4
    assert together.share.high - together.share.low > 1.5 * (alone.share.high - alone.share.low)


def test_isotonic_pools_what_falls_and_is_flat_outside():
    curve = fit_curve([1, 2, 3, 4], [0, 1, 0, 1])
    assert curve([-9, 1, 2.5, 3, 3.5, 4, 9]).tolist() == [0, 0, 0.5, 0.5, 0.75, 1, 1]


def test_platt_finds_the_logistic_curve_that_drew_the_labels():
    draw = np.random.default_rng(1)
    risk = draw.normal(size=20_000) * 3 - 5
    labels = (draw.random(20_000) < 1 / (1 + np.exp(-(0.8 * risk + 3)))).astype(int)
    (slope, shift), = fit_curve(risk, labels, "platt").knots
    assert (slope, shift) == pytest.approx((0.8, 3), rel=0.06)


@pytest.mark.parametrize("kind", ["isotonic", "platt"])
def test_a_curve_rises_is_read_back_and_calibrates_fresh_items(kind):
    draw = np.random.default_rng(2)
    risk = draw.normal(size=4000)
    labels = (draw.random(4000) < 1 / (1 + np.exp(-2 * risk + 1))).astype(int)
    curve = fit_curve(risk[:2000], labels[:2000], kind)
    grid = curve(np.linspace(-5, 5, 99))
    assert (np.diff(grid) >= 0).all()
    assert grid.min() >= 0
    assert grid.max() <= 1
    assert Curve.of(curve.record()) == curve
    assert ece(curve(risk[2000:]), labels[2000:]) < 0.035
    assert np.isnan(curve([np.nan, 0.0])).tolist() == [True, False]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: reliability([0.5, 1.5], [0, 1]), r"probabilities in 0 to 1; found 0\.5 to 1\.5"),
        (lambda: reliability([0.5], [1], bins=0), "bins=0"),
        (lambda: fit_curve([1.0, 2.0], [1, 1]), "2 items are all alike"),
        (lambda: fit_curve([1.0, 2.0], [0, 1], "spline"), "kind='spline' is neither isotonic nor platt"),
        (lambda: Curve("isotonic", ((0.0, 0.5), (1.0, 0.2))), "rise in risk"),
        (lambda: Curve("isotonic", ((0.0, 0.5), (1.0, 1.2))), "within 0 to 1"),
        (lambda: Curve("platt", ((1.0, 0.0), (2.0, 0.0))), r"one pair \(a, b\); found 2"),
        (lambda: Curve.of({"kind": "platt"}), "needs kind and knots"),
    ],
)
def test_what_is_no_curve_and_no_probability_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
