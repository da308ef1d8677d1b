"""How often two systems that are alike are ranked, and how often two that are not: on made counts, seeds fixed.

The shares asserted are over 4,000 pairs, so that chance moves them by 0.35 points (one sigma); a percentile bootstrap
ranks 8 to 10 % of such pairs at 10 and 20 images. docs/statistics.md has the figures for sampled captions.
"""

import numpy as np
import pytest

from veridical.metrics.compare import Comparison, together
from veridical.metrics.estimate import mcnemar
from veridical.metrics.paired import SWAPS, holm, paired_difference, paired_differences

PAIRS, SWAPPED = 4000, 499


def mentions(generator, n, mean=3.0, risk=1.0, share=None):
    """(mentions that are wrong, mentions) of each image; `share`: of wrong ones, the image's own."""
    mentioned = 1 + generator.poisson(mean, n)
    return generator.binomial(mentioned, np.minimum(risk * share, 1)), mentioned


def captions(generator, n, means=(3.0, 3.0), risk=1.0):
    """CHAIR_i, CHAIR_s and the number of mentions of two systems on images that are as hard for both."""
    share = generator.beta(1, 4, n)
    wrong, mentioned = mentions(generator, n, means[0], risk, share)
    other_wrong, other_mentioned = mentions(generator, n, means[1], 1.0, share)
    ones = np.ones(n)
    return {
        "chair_i": (wrong, mentioned, other_wrong, other_mentioned),
        "chair_s": (wrong > 0, ones, other_wrong > 0, ones),
        "mentions": (mentioned, ones, other_mentioned, ones),
    }


def answers(generator, n):
    """F1 and accuracy of two systems on six questions per image, three of them about objects that are there."""
    skill = generator.beta(8, 1.5, n)
    found = []
    for _ in range(2):
        hits, rejected = generator.binomial(3, skill), generator.binomial(3, skill)
        found.append(((2 * hits, 2 * hits + 3 - hits + 3 - rejected), (hits + rejected, np.full(n, 6))))
    return {name: (*found[0][at], *found[1][at]) for at, name in enumerate(("f1", "accuracy"))}


def ranked(draw, pairs=PAIRS):
    """Of pairs, the share with a verdict, per figure."""
    counts: dict[str, int] = {}
    for _ in range(pairs):
        for name, one in paired_differences(draw(), ("mentions",), SWAPPED).items():
            found = Comparison(0, 0, one.estimate, True, one.p, differing=one.differing)
            counts[name] = counts.get(name, 0) + (found.verdict != "inside the noise")
    return {name: count / pairs for name, count in counts.items()}


@pytest.mark.parametrize("n", [5, 10, 20, 50])
def test_systems_that_are_alike_are_ranked_in_at_most_one_of_twenty_pairs(n):
    generator = np.random.default_rng(n)
    found = ranked(lambda: captions(generator, n) | answers(generator, n), 500 if n == 5 else PAIRS)
    assert max(found.values()) <= 0.055, found
    if n == 5:  # of five images no swap is rare enough
        assert not any(found.values())
    if n >= 20:
        assert found["chair_i"] >= 0.035, "the test is not blunt"


@pytest.mark.parametrize("n", [10, 20])
def test_a_system_that_only_says_more_is_not_called_worse(n):
    """Twice the mentions, the same share of wrong ones: the figures are equal, and the counts are not alike."""
    generator = np.random.default_rng(n)
    found = ranked(lambda: {"chair_i": captions(generator, n, (2.0, 6.0))["chair_i"]})
    assert found["chair_i"] <= 0.055


def test_half_the_risk_is_seen_on_a_hundred_images():
    generator = np.random.default_rng(0)
    found = ranked(lambda: {"chair_i": captions(generator, 100, risk=0.5)["chair_i"]}, 300)
    assert found["chair_i"] >= 0.95


def test_of_tables_of_twelve_figures_at_most_one_in_twenty_has_a_false_verdict():
    generator = np.random.default_rng(0)
    false, alone, tables = 0, 0, 800
    for _ in range(tables):
        rows = [paired_differences(captions(generator, 30), ("mentions",), 1999) for _ in range(4)]
        table = [
            Comparison(0, 0, d.estimate, False, d.p, differing=d.differing) for row in rows for d in row.values()
        ]
        alone += any(one.verdict != "inside the noise" for one in table)
        false += any(one.verdict != "inside the noise" for one in together(table))
    assert alone / tables > 0.2, "one by one they would often be ranked"
    assert false / tables <= 0.06, "5 %, and 0.8 for one sigma of 800 tables"


# -- the test itself -----------------------------------------------------------------------------------------------
def test_interval_and_p_say_the_same():
    generator = np.random.default_rng(1)
    for n in (6, 8, 12, 15, 30, 80):
        for _ in range(60):
            for name, one in paired_differences(captions(generator, n, risk=0.6), ("mentions",), 999).items():
                low, high = one.estimate.low, one.estimate.high
                assert (low > 0 or high < 0) == (one.p <= 0.05), (n, name, one)
                assert low <= one.estimate.value <= high


def test_random_swaps_agree_with_all_swaps(monkeypatch):
    """16 images that differ: 32,768 swaps against 9,999 random ones; three sigma of a share of 0.05 are 0.0065."""
    generator = np.random.default_rng(3)
    figures = captions(generator, 16, risk=0.5)
    drawn = paired_differences(figures, ("mentions",))
    monkeypatch.setattr("veridical.metrics.paired.EXACT", 16)
    exact = paired_differences(figures, ("mentions",))
    for name in figures:
        assert drawn[name].p == pytest.approx(exact[name].p, abs=0.0065), name
        assert drawn[name].estimate.low == pytest.approx(exact[name].estimate.low, abs=0.02), name


def test_single_trials_have_mcnemars_p():
    first, second = np.arange(60) < 40, (np.arange(60) >= 25) & (np.arange(60) < 50)
    units = [np.stack([one, np.ones(60)], axis=-1) for one in (first, second)]
    assert paired_difference(*units).p == mcnemar(list(first), list(second))
    few = [rows[20:30] for rows in units]
    assert paired_difference(*few).p == pytest.approx(mcnemar(list(first[20:30]), list(second[20:30])))


def test_p_goes_on_below_what_random_swaps_can_count():
    """200 images that are better by 1 to 3 of 10: far beyond one in 10,000, and never below one of all swaps."""
    gain, ten = 1 + np.arange(200) % 3, np.full(200, 10)
    one = paired_difference(np.stack([5 + gain, ten], axis=-1), np.stack([np.full(200, 5), ten], axis=-1))
    assert 2.0**-199 <= one.p < 1e-9 < 1 / (SWAPS + 1)


def test_a_figure_that_one_system_lacks_ranks_nothing():
    one = paired_difference([[0, 0]] * 20, [[1, 2]] * 20)
    assert (one.p, one.differing, one.estimate.n, one.estimate.low, one.estimate.high) == (1.0, 0, 0, -1.0, 1.0)


def test_fewer_than_six_images_that_differ_are_never_significant_and_the_interval_holds_zero():
    for differing in range(1, 6):
        one = paired_difference([[1, 1]] * differing + [[0, 1]] * 30, [[0, 1]] * (differing + 30))
        assert one.p == 2.0 ** (1 - differing)
        assert one.estimate.low <= 0 < one.estimate.high


def test_holm_multiplies_the_smallest_by_all_and_never_falls():
    assert holm([0.04, 0.001, 0.03, 0.9]) == pytest.approx([0.09, 0.004, 0.09, 0.9])
    assert holm([]) == []


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="samples=0: a test needs at least one swap"):
        paired_differences({}, samples=0)
    with pytest.raises(ValueError, match="level=1 is outside 0 to 1"):
        paired_differences({}, level=1)
