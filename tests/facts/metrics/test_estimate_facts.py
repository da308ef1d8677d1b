"""Intervals small enough to check by hand, and against scipy where it is installed."""

import numpy as np
import pytest

from veridical.metrics.estimate import Estimate, bootstrap, mcnemar, ratio, wilson
from veridical.metrics.paired import Difference, paired_difference


def share(sums):
    return sums[..., 0] / sums[..., 1]


def test_an_estimate_prints_value_interval_and_n():
    assert str(Estimate(0.5, 0.25, 0.75, 12)) == "0.500 [0.250, 0.750] (n=12)"


def test_wilson_of_nine_in_ten():
    estimate = wilson(9, 10)
    assert (estimate.value, estimate.n) == (0.9, 10)
    assert estimate.low == pytest.approx(0.59585, abs=1e-5)
    assert estimate.high == pytest.approx(0.98212, abs=1e-5)


def test_wilson_of_none_and_all_stays_inside_zero_to_one_and_is_no_point():
    none, every = wilson(0, 20), wilson(20, 20)
    assert none.low == 0
    assert none.high == pytest.approx(0.16113, abs=1e-5)
    assert every.low == pytest.approx(1 - 0.16113, abs=1e-5)
    assert every.high == 1


def test_wilson_of_nothing_knows_nothing():
    assert wilson(0, 0) == Estimate(0.0, 0.0, 1.0, 0)


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5), (0, -1)])
def test_impossible_counts_are_refused(successes, n):
    with pytest.raises(ValueError, match=f"successes={successes} is outside 0 to n={n}"):
        wilson(successes, n)


@pytest.mark.parametrize("level", [0, 1, 95])
def test_a_level_outside_zero_to_one_is_refused(level):
    with pytest.raises(ValueError, match=f"level={level} is outside 0 to 1"):
        wilson(1, 2, level=level)
    with pytest.raises(ValueError, match=f"level={level} is outside 0 to 1"):
        bootstrap([[1, 2]], share, level=level)


def test_the_bootstrap_value_is_the_statistic_of_the_summed_counts():
    assert bootstrap([[1, 1], [0, 3]], share).value == 0.25


def test_the_bootstrap_interval_agrees_with_the_normal_one_for_many_images():
    units = np.stack([np.arange(400) % 4 == 0, np.ones(400)], axis=-1)
    estimate = bootstrap(units, share, samples=4000)
    assert estimate.value == 0.25
    assert estimate.low == pytest.approx(0.25 - 1.96 * np.sqrt(0.25 * 0.75 / 400), abs=0.005)
    assert estimate.high == pytest.approx(0.25 + 1.96 * np.sqrt(0.25 * 0.75 / 400), abs=0.005)


def test_images_and_not_mentions_are_resampled():
    clustered = [[10, 10]] * 10 + [[0, 10]] * 10
    spread = [[1, 1]] * 100 + [[0, 1]] * 100
    wide, narrow = bootstrap(clustered, share), bootstrap(spread, share)
    assert wide.high - wide.low > 2.5 * (narrow.high - narrow.low)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    units = [[i % 3, 3] for i in range(50)]
    assert bootstrap(units, share, seed=1) == bootstrap(units, share, seed=1)
    assert bootstrap(units, share, seed=1) != bootstrap(units, share, seed=2)


def test_a_wider_level_gives_a_wider_interval():
    units = [[i % 3, 3] for i in range(50)]
    narrow, wide = bootstrap(units, share, level=0.8), bootstrap(units, share, level=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_nought_by_nought_is_nan_and_rare_nought_by_noughts_are_left_out():
    assert np.isnan(bootstrap([[0, 0], [0, 0]], share).value)
    rare = bootstrap([[1, 1], [0, 0], [0, 0]], share)
    assert (rare.value, rare.low, rare.high) == (1, 1, 1)


def test_a_share_without_denominator_is_zero_with_n_zero():
    assert ratio([0, 0], [0, 0]) == Estimate(0.0, 0.0, 1.0, 0)


def test_a_share_of_exactly_zero_is_not_reported_as_certain():
    assert ratio([0] * 20, [3] * 20) == wilson(0, 20)
    assert ratio([3] * 20, [3] * 20) == wilson(20, 20)


def test_a_single_image_is_not_reported_as_certain():
    estimate = ratio([1], [3])
    assert estimate.low < 0.1
    assert estimate.high > 0.8


def test_a_mean_may_leave_zero_to_one():
    assert ratio([10, 20], [1, 1], share=False).value == 15


def test_no_image_and_no_table_are_refused():
    with pytest.raises(ValueError, match="at least one image"):
        bootstrap([], share)
    with pytest.raises(ValueError, match=r"units has shape \(2,\)"):
        bootstrap([1, 2], share)
    with pytest.raises(ValueError, match="samples=0"):
        bootstrap([[1, 2]], share, samples=0)


def test_a_system_does_not_differ_from_itself():
    units = [[i % 3, 3] for i in range(50)]
    assert paired_difference(units, units) == Difference(Estimate(0.0, 0.0, 0.0, 50), 1.0, 0)


def test_pairing_narrows_the_interval_of_a_difference():
    generator = np.random.default_rng(0)
    hard = generator.integers(0, 9, 200)
    a, b = np.stack([hard + 1, np.full(200, 10)], axis=-1), np.stack([hard, np.full(200, 10)], axis=-1)
    paired = paired_difference(a, b).estimate
    unpaired = paired_difference(a, generator.permutation(b)).estimate
    assert paired.value == pytest.approx(0.1)
    assert paired.high - paired.low < 1e-9 < unpaired.high - unpaired.low


def test_the_difference_is_first_minus_second():
    assert paired_difference([[2, 2]], [[1, 2]]).estimate.value == 0.5


def test_tables_of_other_images_are_not_paired():
    with pytest.raises(ValueError, match=r"units_a is \(1, 2\).*units_b \(2, 2\)"):
        paired_difference([[1, 2]], [[1, 2], [1, 2]])


def test_mcnemar_of_eight_against_none_is_two_to_the_minus_seven():
    assert mcnemar([True] * 10, [False] * 8 + [True] * 2) == 2**-7


def test_mcnemar_is_symmetric_and_one_where_nothing_differs():
    a, b = [True, True, False, True], [False, True, True, False]
    assert mcnemar(a, b) == mcnemar(b, a) == 1.0
    assert mcnemar(a, a) == 1.0


def test_mcnemar_of_three_against_one_is_five_eighths():
    assert mcnemar([True] * 3 + [False], [False] * 3 + [True]) == 0.625


def test_mcnemar_holds_for_nine_thousand_questions():
    assert 0 < mcnemar([True] * 4600 + [False] * 4400, [False] * 4600 + [True] * 4400) < 0.05


def test_mcnemar_needs_the_same_questions():
    with pytest.raises(ValueError, match="3 and 2 answers"):
        mcnemar([True] * 3, [True] * 2)


def test_wilson_and_mcnemar_agree_with_scipy():
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    for successes, n, level in [(0, 7, 0.95), (3, 7, 0.95), (499, 500, 0.99)]:
        theirs = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
        ours = wilson(successes, n, level)
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    for only_a, only_b in [(3, 9), (17, 20), (1, 0)]:
        ours = mcnemar([True] * only_a + [False] * only_b, [False] * only_a + [True] * only_b)
        assert ours == pytest.approx(stats.binomtest(only_a, only_a + only_b).pvalue, abs=1e-12)
