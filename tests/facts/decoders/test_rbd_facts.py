"""The placeholder formula of our reading of RBD, in numbers from its specification."""

import math

import pytest
import torch

from veridical.decoders.rbd import RBD, rebalance, significant
from veridical.decoders.vcd import noise_scale
from veridical.pipelines.engine.declarations import Step
from veridical.pipelines.registry import DECODERS

SEEN = torch.tensor([[2.0, 1.5, 0.0, -1.0]])
VISUAL = torch.tensor([[2.5, 0.5, 1.0, -1.0]])
TEXTUAL = torch.tensor([[1.0, 2.0, 0.0, -1.0]])
STEP = Step(branches={"rbd_visual": VISUAL, "rbd_textual": TEXTUAL})


def close(found, expected, tolerance=1e-6):
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(found.double().reshape(expected.shape), expected, rtol=tolerance, atol=tolerance)


def test_zero_weights_leave_the_logits():
    assert torch.equal(rebalance(SEEN, VISUAL, TEXTUAL, 0.0, 0.0), SEEN)


def test_equal_branches_leave_the_logits_whatever_the_weights():
    for visual, textual in ((0.5, 1.0), (2.0, 0.0), (0.25, 4.0)):  # exact in binary
        assert torch.equal(rebalance(SEEN, SEEN, SEEN, visual, textual), SEEN)


def test_the_worked_example():
    z = RBD(visual=0.5, textual=1.0, beta=0.1).mix(SEEN, STEP)
    close(z, [3.25, 0.5, 0.5, -math.inf])
    close(z.softmax(1), [0.886638, 0.056681, 0.056681, 0])


def test_without_the_visual_branch_it_is_the_contrast_of_vcd():
    close(RBD(visual=0.0, beta=0).mix(SEEN, Step(branches={"rbd_textual": TEXTUAL})), [3.0, 1.0, 0.0, -1.0])


def test_without_the_textual_branch_it_moves_toward_the_significant_tokens():
    close(RBD(textual=0.0, visual=1.0, beta=0).mix(SEEN, Step(branches={"rbd_visual": VISUAL})), VISUAL[0])


def test_logits_and_log_probabilities_give_the_same_distribution():
    logs = rebalance(*(branch.log_softmax(1) for branch in (SEEN, VISUAL, TEXTUAL)), 0.5, 1.0)
    close(rebalance(SEEN, VISUAL, TEXTUAL, 0.5, 1.0).softmax(1), logs.softmax(1))


def test_beta_one_leaves_the_models_own_choice():
    for visual, textual in ((0.0, 0.0), (0.5, 1.0), (9.0, 9.0)):
        z = RBD(visual=visual, textual=textual, beta=1.0).mix(SEEN, STEP)
        assert z.isfinite().tolist() == [[True, False, False, False]]


def test_the_noise_is_that_of_vcd():
    assert noise_scale(RBD().noise_step) == pytest.approx((0.863017, 0.505175), abs=1e-6)


def test_a_token_that_another_method_has_cut_stays_cut():
    seen = torch.tensor([[2.0, -math.inf]])
    for visual in (0.5, 2.0, 3.0):  # the weight of l itself is then 1.5, 0 and −1
        z = rebalance(seen, torch.ones(1, 2), torch.ones(1, 2), visual, 1.0)
        assert z[0, 1] == -math.inf


@pytest.mark.parametrize(("keep", "expected"), [(1.0, [0, 1, 2, 3, 4]), (0.5, [1, 2, 4]), (0.4, [1, 4]), (0.01, [1])])
def test_the_tokens_with_most_attention_are_significant(keep, expected):
    """⌈keep·N⌉ of five tokens; a sixth one only fills up."""
    attention = torch.tensor([[0.1, 0.5, 0.2, 0.1, 0.4, 9.0]])
    real = torch.tensor([[True] * 5 + [False]])
    assert significant(attention, real, keep)[0].nonzero().flatten().tolist() == expected


def test_of_equal_tokens_the_earlier_ones_stay_and_shares_are_not_rounded_up_by_floats():
    """0.1·30 is 3.0000000000000004 in floating point."""
    found = significant(torch.ones(1, 30), torch.ones(1, 30, dtype=torch.bool), 0.1)
    assert found[0].nonzero().flatten().tolist() == [0, 1, 2]


def test_its_docstring_says_whose_formula_it_is():
    assert "could not be read" in RBD.__doc__
    assert "abstract" in RBD.__doc__
    assert "abstract" in DECODERS.own["rbd"].paper


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"visual": -1}, "visual=-1 is below 0"),
        ({"textual": -1}, "textual=-1 is below 0"),
        ({"keep": 0}, "keep=0 is outside"),
        ({"noise_step": 1000}, "noise_step=1000 is outside 0 to 999"),
        ({"noise_step": 500.5}, "noise_step=500.5 is no whole number"),
        ({"seed": 0.5}, "seed=0.5 is no whole number"),
    ],
)
def test_values_outside_their_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RBD(**options)


def test_without_noise_and_with_every_token_kept_the_branches_say_the_same(monkeypatch):
    """Through the model: whatever the weights, plain decoding. The schedule's own least noise is not none."""
    from veridical.decoders import rbd

    from ...contract import setting

    monkeypatch.setattr(rbd, "diffused", lambda inputs, step, seed: dict(inputs))
    tiny = setting.tiny(8, 2)
    found = tiny.logits([RBD(visual=0.7, textual=1.5, keep=1.0, beta=0)])
    assert setting.difference(found, tiny.plain()) <= 1e-5 * setting.scale(found)
