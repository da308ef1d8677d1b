"""RH-AUC by hand."""

import numpy as np
import pytest

from veridical.metrics.rh_auc import Setting, estimates, mean_height, points, rh_auc, trade_off

X, Y = [10, 30, 50], [60, 50, 20]


def test_three_points_give_0_625_and_45():
    assert rh_auc(X, Y) == pytest.approx(0.625)
    assert mean_height(X, Y) == pytest.approx(45.0)


def test_the_order_of_the_points_does_not_matter():
    assert rh_auc([50, 10, 30], [20, 60, 50]) == pytest.approx(0.625)


def test_the_area_does_not_know_levels():
    assert rh_auc(X, [y / 10 for y in Y]) == pytest.approx(rh_auc(X, Y))
    assert mean_height(X, [y / 10 for y in Y]) == pytest.approx(4.5)


def test_a_straight_fall_is_a_half_and_a_late_one_nearly_one():
    assert rh_auc([0, 1], [1, 0]) == 0.5
    assert rh_auc([0, 99, 100], [1, 1, 0]) == pytest.approx(0.995)
    assert rh_auc([0, 1, 100], [1, 0, 0]) == pytest.approx(0.005)


def test_equal_x_are_averaged_whatever_their_order():
    assert rh_auc([10, 30, 30, 50], [60, 40, 60, 20]) == pytest.approx(0.625)
    assert rh_auc([10, 30, 30, 50], [60, 60, 40, 20]) == pytest.approx(0.625)


@pytest.mark.parametrize(("x", "y"), [([1], [1]), ([1, 1], [1, 2]), ([1, 2], [3, 3])])
def test_a_curve_without_range_is_refused(x, y):
    with pytest.raises(ValueError, match="at least two settings that differ in both"):
        rh_auc(x, y)


def test_lists_of_different_length_are_refused():
    with pytest.raises(ValueError, match="2 x and 1 y"):
        rh_auc([1, 2], [1])
    with pytest.raises(ValueError, match="no points"):
        rh_auc([], [])


def test_the_slope_says_what_reasoning_costs():
    assert trade_off(X, Y) == -1.0
    assert trade_off([0, 1], [0.2, 0.7]) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="one distinct x"):
        trade_off([1, 1], [0, 1])


def settings(questions=400):
    """Reasoning rises and perception falls with length, on the same questions each time."""
    place = np.arange(questions) / questions
    return [
        Setting(length, place < reasoning, place < perception)
        for length, reasoning, perception in ((16, 0.1, 0.6), (64, 0.3, 0.5), (256, 0.5, 0.2))
    ]


def test_points_are_accuracies_or_lengths():
    x, y = points(settings())
    assert x == pytest.approx([0.1, 0.3, 0.5])
    assert y == pytest.approx([0.6, 0.5, 0.2])
    assert points(settings(), over="length")[0] == [16, 64, 256]


def test_estimates_hold_the_value_in_their_interval():
    found = estimates(settings(), samples=200)
    assert found["rh_auc"].value == pytest.approx(0.625)
    assert found["mean_height"].value == pytest.approx(0.45)
    for estimate in found.values():
        assert estimate.low < estimate.value < estimate.high
        assert estimate.n == 400
    assert found["trade_off"].high < 0
    assert found == estimates(settings(), samples=200)


def test_the_length_itself_can_be_the_axis():
    found = estimates(settings(), over="length", samples=50)
    assert found["rh_auc"].value == pytest.approx((48 * 0.875 + 192 * 0.375) / 240)


def test_a_flat_curve_is_measured_as_nothing():
    flat = [Setting(1, [1, 0], [1, 1]), Setting(2, [1, 1], [1, 1])]
    found = estimates(flat, samples=20)
    assert (found["rh_auc"].value, found["rh_auc"].low, found["rh_auc"].high, found["rh_auc"].n) == (0, 0, 1, 0)
    assert found["mean_height"].value == 1


def test_settings_need_the_same_questions():
    with pytest.raises(ValueError, match="1, 2 perception questions"):
        estimates([Setting(1, [1], [1]), Setting(2, [1], [1, 0])])
    with pytest.raises(ValueError, match="1 settings"):
        estimates(settings()[:1])
    with pytest.raises(ValueError, match="over='tokens' is no axis"):
        estimates(settings(), over="tokens")
