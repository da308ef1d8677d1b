"""Paired comparisons of counts: by hand, and against the test of ratios that they must agree with."""

import numpy as np
import pytest

from veridical.metrics import dash_b, hallusionbench, mme, mmvp, repope
from veridical.metrics.counted import Counted, compare_counted, composed_difference, of_sums
from veridical.metrics.paired import paired_difference


def two_ratios(sums):
    return sums[..., 0] / sums[..., 1] + sums[..., 2] / sums[..., 3]


def drawn(n, seed):
    rng = np.random.default_rng(seed)
    bottoms = rng.integers(1, 6, n)
    return np.stack([rng.binomial(bottoms, 0.4), bottoms], axis=1)


@pytest.mark.parametrize("units", [9, 40])
def test_a_ratio_as_a_composed_figure_has_the_p_and_interval_of_the_paired_test(units):
    a, b = drawn(units, 0), drawn(units, 1)
    one, two = composed_difference(a, b, lambda s: s[..., 0] / s[..., 1]), paired_difference(a, b)
    assert (one.p, one.differing) == (two.p, two.differing)
    assert np.allclose(list(vars(one.estimate).values()), list(vars(two.estimate).values()), atol=1e-7)


def test_eight_units_that_all_say_the_same_have_the_smallest_p_of_all_swaps():
    a, b = np.tile([1, 1, 1, 1], (8, 1)), np.tile([0, 1, 0, 1], (8, 1))
    found = composed_difference(a, b, two_ratios, (-2.0, 2.0))
    assert found.p == 2 / 2**8
    assert found.estimate.value == 2


def test_equal_systems_differ_in_nothing():
    a = np.concatenate([drawn(30, 0), drawn(30, 1)], axis=1)
    found = composed_difference(a, a.copy(), two_ratios, (-2.0, 2.0))
    assert (found.p, found.differing, found.estimate.value) == (1.0, 0, 0.0)


def test_the_composed_test_holds_its_level_where_systems_are_alike():
    rng = np.random.default_rng(0)
    ps = []
    for seed in range(200):
        a, b = (np.stack([rng.binomial(1, 0.6, 40), np.ones(40), rng.binomial(1, 0.3, 40), np.ones(40)], 1)
                for _ in range(2))  # fmt: skip
        ps.append(composed_difference(a, b, two_ratios, (-2.0, 2.0), samples=199, seed=seed).p)
    assert 0.01 <= np.mean(np.array(ps) <= 0.05) <= 0.09  # 5 % ± 2.6 standard errors


def test_a_figure_that_one_system_does_not_have_has_no_verdict():
    a, b = np.array([[1.0, 1.0]] * 8), np.array([[0.0, 0.0]] * 8)
    found = composed_difference(a, b, lambda s: s[..., 0] / s[..., 1])
    assert (found.estimate.n, found.p, found.estimate.low, found.estimate.high) == (0, 1.0, -1.0, 1.0)


def test_other_units_are_refused():
    one, two = (Counted(units, np.ones((2, 2)), {"accuracy": tuple}) for units in ("ab", "ac"))
    with pytest.raises(ValueError, match="the same ones in the same order"):
        compare_counted(one, two, {})


def test_sums_by_unit_that_lack_a_unit_are_paired_on_those_that_have_it():
    one, two = (of_sums({"f": dict.fromkeys(range(9), (right, 1)), "g": {0: (1, 1)}}) for right in (1, 0))
    found = compare_counted(one, two, {"f": True})
    assert found["f"].verdict == "better"
    assert found["g"].difference.value == 0


def test_mmes_score_is_compared_by_image_and_its_total_over_tasks():
    def tasks(right):
        return {
            task: [mme.Question(f"{task}{n}", label, label if right else "yes")
                   for n in range(8) for label in ("yes", "no")]
            for task in mme.TASKS
        }  # fmt: skip

    one, two = mme.counted(tasks(True)), mme.counted(tasks(False))
    found = {title: compare_counted(one[title], two[title], mme.HIGHER_IS_BETTER) for title in one}
    assert found["count"]["score"].difference.value == 150  # 200 − 50
    assert found["total"]["score"].difference.value == 600
    assert found["total"]["score"].verdict == "better"
    assert found["total"]["score"].difference.n == 32
    assert found["total"]["score"].first == mme.score(tasks(True))["total"]["score"] == 800


def test_balanced_accuracy_of_repope_is_compared_and_equals_its_score():
    labels, images = ["yes", "no", "no"] * 20, [n // 3 for n in range(60)]
    rng = np.random.default_rng(0)
    one, two = ([("yes", "no")[rng.integers(2)] for _ in labels] for _ in range(2))
    counted = [repope.counted([(answers, labels, images)]) for answers in (one, two)]
    found = compare_counted(*counted, repope.HIGHER_IS_BETTER)["balanced_accuracy"]
    assert found.first == pytest.approx(repope.score(one, labels)["balanced_accuracy"])
    assert found.second == pytest.approx(repope.score(two, labels)["balanced_accuracy"])
    assert found.difference.n == 20


def test_dash_b_and_mmvp_and_hallusionbench_count_their_own_units():
    labels = ["yes", "no"] * 10
    assert dash_b.counted(labels, labels).table.shape == (20, 7)
    pairs = [n // 2 for n in range(8)]
    assert mmvp.counted(["(a)"] * 8, "abababab", [("Yes", "No")] * 8, pairs).units == (0, 1, 2, 3)
    questions = [
        hallusionbench.Question("yes", "VD", "ocr", 1, set_id, figure, "0") for set_id in "01" for figure in "01"
    ]
    assert hallusionbench.counted(["yes"] * 4, questions).units == ("VD/ocr/0", "VD/ocr/1")
