"""Risk control by hand, and by simulation: claims hold as often as they say, and no small sample makes one."""

import math

import numpy as np
import pytest

from veridical.metrics.risk_control import (
    betting_p,
    conformal_setting,
    fixed_sequence,
    frontier,
    images_needed,
)


def drawn(rng, n, risk):
    """Shares of wrong mentions in captions of one to five mentions."""
    mentions = rng.integers(1, 6, n)
    return rng.binomial(mentions, risk) / mentions


def test_the_conformal_setting_by_hand():
    losses = np.zeros((19, 3))
    losses[:1, 1] = 1  # (1 + 1) / 20 = 0.1
    losses[:2, 2] = 1  # (2 + 1) / 20 = 0.15
    assert conformal_setting(losses, 0.1) == 1
    assert conformal_setting(losses, 0.15) == 2
    assert conformal_setting(losses, 0.099) == 0
    assert conformal_setting(losses, 0.04) is None  # 1 / 20 is above it


def test_a_loss_that_falls_again_does_not_open_the_way():
    losses = np.array([[0.0, 1.0, 0.0]] * 99)
    assert conformal_setting(losses, 0.1) == 0


def test_the_largest_loss_of_an_image_so_far_counts():
    losses = np.eye(19)[:, :4]  # another image errs at each setting: R̂ is 1/19 at all, its largest so far grows
    assert conformal_setting(losses, 0.1) == 0
    assert conformal_setting(losses, 0.15) == 1


def test_the_conformal_setting_has_its_level_on_new_images_on_average():
    rng, risks = np.random.default_rng(0), []
    for _ in range(400):
        strength = rng.random((101, 1))  # the images' own, so that losses of an image hang together
        losses = (strength < np.linspace(0.02, 0.3, 57)).astype(float)
        at = conformal_setting(losses[:100], 0.1)
        risks.append(losses[100, at])
    assert np.mean(risks) == pytest.approx(0.1, abs=3 * math.sqrt(0.09 / 400))


def test_the_betting_p_by_hand():
    # bets: min(1, √(2·ln 10 / (2·¼))) = 1, then σ̂² = (¼ + (0 − ¼)²) / 2 = 0.15625: 1 again
    assert betting_p([0.0, 1.0], 0.1) == pytest.approx(1 / 1.1)


@pytest.mark.parametrize("risk", [0.1, 0.13])
def test_a_risk_at_the_level_or_above_is_certified_at_most_as_often_as_delta(risk):
    rng = np.random.default_rng(1)
    wrong = np.mean([betting_p(drawn(rng, 300, risk), 0.1, 0.9) <= 0.1 for _ in range(600)])
    assert wrong <= 0.1 + 0.025  # two standard errors


def test_a_clearly_smaller_risk_is_certified_nearly_always():
    rng = np.random.default_rng(2)
    assert np.mean([betting_p(drawn(rng, 400, 0.05), 0.1, 0.9) <= 0.1 for _ in range(100)]) > 0.95


def test_a_sequence_stops_at_its_first_failure():
    losses = np.stack([np.zeros(100), np.ones(100), np.zeros(100)], axis=1)
    passed, ps = fixed_sequence(losses, 0.1, 0.9)
    assert (passed, len(ps)) == (1, 2)
    assert ps[1] == 1


@pytest.mark.parametrize(("level", "confidence"), [(0.1, 0.9), (0.05, 0.95), (0.2, 0.8)])
def test_with_fewer_images_than_needed_nothing_is_claimed_even_without_any_mistake(level, confidence):
    for n in range(1, images_needed(level, confidence)):
        assert fixed_sequence(np.zeros((n, 1)), level, confidence)[0] == 0
    for n in range(1, images_needed(level)):
        assert conformal_setting(np.zeros((n, 1)), level) is None
    assert conformal_setting(np.zeros((images_needed(level), 1)), level) == 0


def test_the_number_of_images_needed_by_hand():
    assert images_needed(0.05, 0.95) == 59  # 0.95^58 > 0.05 > 0.95^59
    assert images_needed(0.05) == 19


def test_the_frontier_leaves_out_what_another_beats_in_both():
    assert frontier([0.2, 0.1, 0.3, 0.25], [0.5, 0.5, 0.7, 0.4]) == [1, 2]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: betting_p([0.0, 1.2], 0.1), "a loss is outside 0 to 1"),
        (lambda: betting_p([], 0.1), "needed: \\(images,\\)"),
        (lambda: conformal_setting([0.0], 0.1), "needed: \\(images, settings\\)"),
        (lambda: conformal_setting([[0.0]], 1.0), "level=1.0 is outside 0 to 1"),
        (lambda: images_needed(0.1, 1.0), "confidence=1.0 is outside 0 to 1"),
    ],
)
def test_bad_values_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
