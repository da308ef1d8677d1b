"""AUROC, AUPRC and calibration against scikit-learn and numbers worked by hand; exact to 1e-12 unless said."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from veridical.metrics import ranking
from veridical.metrics.ranking import Ranking, auprc, auroc, difference, ece, estimates


@pytest.fixture(params=range(8))
def drawn(request):
    """Risks with many ties, labels, weights as a resample gives them, strata."""
    generator = np.random.default_rng(request.param)
    risks, labels = generator.integers(0, 9, 40) / 10, generator.integers(0, 2, 40)
    return risks, labels, generator.integers(0, 4, 40).astype(float), generator.integers(0, 4, 40)


def test_the_worked_areas():
    assert auroc([0.9, 0.8, 0.7, 0.4, 0.3], [1, 0, 1, 1, 0]) == pytest.approx(0.666667, abs=1e-6)
    assert auroc([0.5, 0.5, 0.9, 0.1], [1, 0, 1, 0]) == 0.875


def test_weighted_areas_are_those_of_scikit_learn(drawn):
    risks, labels, weights, _ = drawn
    built = Ranking(risks, labels)
    assert built.auroc(weights) == pytest.approx(roc_auc_score(labels, risks, sample_weight=weights), abs=1e-12)
    expected = average_precision_score(labels, risks, sample_weight=weights)
    assert built.auprc(weights) == pytest.approx(expected, abs=1e-12)


def test_strata_leave_only_pairs_of_one_stratum(drawn):
    risks, labels, weights, strata = drawn
    won = pairs = 0.0
    for i in np.flatnonzero(labels == 1):
        for j in np.flatnonzero((labels == 0) & (strata == strata[i])):
            both = weights[i] * weights[j]
            pairs += both
            won += both * ((risks[i] > risks[j]) + (risks[i] == risks[j]) / 2)
    assert Ranking(risks, labels, strata).auroc(weights) == pytest.approx(won / pairs, abs=1e-12)


def test_what_only_knows_the_stratum_has_one_half_within_it():
    strata, labels = [0, 0, 0, 1, 1, 1], [0, 0, 1, 0, 1, 1]
    assert auroc(strata, labels) == (1 + 2 * 2.5) / 9  # it does tell later from earlier
    assert auroc(strata, labels, strata) == 0.5


def test_the_other_way_round_is_one_minus(drawn):
    risks, labels, _, strata = drawn
    assert auroc(-risks, labels) == pytest.approx(1 - auroc(risks, labels), abs=1e-12)
    assert auroc(-risks, labels, strata) == pytest.approx(1 - auroc(risks, labels, strata), abs=1e-12)


def test_calibration_by_hand():
    """Bin of 0.9: mean label 0.5, off by 0.4; bin of 0.1: off by 0.1; half of the items each."""
    assert ece([0.9, 0.9, 0.1, 0.1], [1, 0, 0, 0]) == pytest.approx(0.25, abs=1e-12)
    assert ece([1.0, 1.0, 0.0], [1, 1, 0]) == 0
    assert ece([1.0, 0.0], [0, 1]) == 1


def test_many_items_of_one_image_widen_the_interval():
    """Ten copies of every item say nothing new if they are of the same image, and are ten times the data if not."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 60)
    risks, images = labels + generator.normal(0, 2, 60), list(range(60))
    alone = estimates(risks, labels, images)["auroc"]
    copies = np.repeat(risks, 10), np.repeat(labels, 10)
    same = estimates(*copies, np.repeat(images, 10).tolist())["auroc"]
    other = estimates(*copies, list(range(600)))["auroc"]
    assert (same.value, same.low, same.high, same.n) == pytest.approx((alone.value, alone.low, alone.high, 60))
    assert other.high - other.low < 0.5 * (same.high - same.low)
    assert other.n == 600


def test_an_interval_holds_the_value_and_repeats_with_its_seed():
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 2, 80)
    risks = 1 / (1 + np.exp(-labels - generator.normal(0, 1, 80)))
    found = estimates(risks, labels, list(range(80)), generator.integers(0, 5, 80), probability=True)
    assert list(found) == ["auroc", "auprc", "ece", "auroc_at_equal_position"]
    assert all(one.low < one.value < one.high or name == "ece" for name, one in found.items())
    assert found["auroc"] == estimates(risks, labels, list(range(80)))["auroc"]
    assert found["auroc"] != estimates(risks, labels, list(range(80)), seed=1)["auroc"]


def test_the_paired_difference_is_narrower_than_two_intervals():
    generator = np.random.default_rng(2)
    labels = generator.integers(0, 2, 200)
    first = labels + generator.normal(0, 1, 200)
    second, images = first + generator.normal(0, 0.3, 200), list(range(200))
    found = difference(first, second, labels, images)
    parts = [estimates(one, labels, images)["auroc"] for one in (first, second)]
    assert found.value == pytest.approx(parts[0].value - parts[1].value)
    assert found.high - found.low < min(part.high - part.low for part in parts)


def test_items_of_one_label_have_no_area():
    assert np.isnan(auroc([0.1, 0.2], [1, 1]))
    assert np.isnan(auprc([0.1, 0.2], [0, 0]))
    assert str(estimates([0.1, 0.2], [0, 0], [1, 2])["auroc"]) == "0.000 [0.000, 1.000] (n=0)"
    assert difference([0.1, 0.2], [0.2, 0.1], [0, 0], [1, 2]).n == 0


def test_a_perfect_ranking_of_few_images_is_no_certainty():
    found = estimates([0.9, 0.1, 0.8, 0.2], [1, 0, 1, 0], ["a", "a", "b", "b"])["auroc"]
    assert (found.value, found.high) == (1, 1)
    assert found.low < 0.5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (([0.1], [1, 0]), "1 risks, 2 labels"),
        (([], []), "no items to rank"),
        (([0.1, 0.2], [1, 2]), r"labels are 1 \(hallucinated\) or 0"),
        (([0.1, float("nan")], [1, 0]), "1 of 2 risks are no number"),
    ],
)
def test_what_cannot_be_ranked_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        auroc(*given)


def test_calibration_is_refused_for_risks_that_are_no_probabilities():
    with pytest.raises(ValueError, match="found -3 to 1"):
        ece([-3.0, 1.0], [0, 1])


def test_every_figure_says_which_way_is_better():
    labels, images = [1, 0, 1, 0], [1, 2, 3, 4]
    assert set(estimates([0.5] * 4, labels, images, [0, 0, 1, 1], True)) == set(ranking.HIGHER_IS_BETTER)
