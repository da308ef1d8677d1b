"""PAI's boost and guidance, in numbers small enough to check by hand."""

import math
from types import SimpleNamespace

import pytest
import torch

from veridical.decoders.pai import PAI, boost, guide, producing_rows
from veridical.pipelines.engine.call import Sequences
from veridical.pipelines.engine.declarations import Step

SCORES = torch.tensor([2.0, -1.0, 0.5, 0.0]).view(1, 1, 1, 4)
ROW = torch.ones(1, 1, dtype=torch.bool)
SEEN, WITHOUT_IMAGE = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[1.0, 1.5, -1.0]])


def close(found, expected, tolerance=1e-6):
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(found.double().reshape(expected.shape), expected, rtol=tolerance, atol=tolerance)


def test_scores_of_boosted_keys_move_by_their_size_and_others_stay():
    z = boost(SCORES, torch.tensor([[0.2, 0.2, 0.0, 0.0]]), ROW)
    close(z, [2.4, -0.8, 0.5, 0.0])


def test_boosted_attention_still_adds_up_to_one():
    z = boost(SCORES, torch.tensor([[0.7, 0.4, 0.0, 0.0]]), ROW)
    close(z.softmax(-1), [0.903577, 0.016550, 0.049718, 0.030155])
    close(SCORES.softmax(-1), [0.710100, 0.035354, 0.158445, 0.096102])


def test_rows_that_are_not_asked_for_stay():
    scores = SCORES.expand(1, 2, 3, 4).clone()
    z = boost(scores, torch.ones(1, 4), torch.tensor([[False, False, True]]))
    assert torch.equal(z[:, :, :2], scores[:, :, :2])
    close(z[0, 0, 2], [4.0, 0.0, 1.0, 0.0])


@pytest.mark.parametrize("strength", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("least", [False, True])
def test_masked_keys_stay_masked_whatever_the_strength(strength, dtype, least):
    """An image outside a sliding window: z + 1·|z| of the least number would be 0, and that of −∞ no number."""
    masked = torch.finfo(dtype).min if least else -math.inf
    scores = torch.tensor([1.0, masked], dtype=dtype).view(1, 1, 1, 2)
    boosted = boost(scores, torch.full((1, 2), strength), ROW)
    assert boosted.flatten().tolist() == [1 + strength, masked]
    assert boosted.softmax(-1).flatten().tolist() == [1, 0]


def test_strength_one_and_a_half_turns_a_negative_score_positive():
    close(boost(SCORES, torch.full((1, 4), 1.5), ROW)[..., 1], 0.5)


@pytest.mark.parametrize(
    ("seen", "queries", "expected"),
    [(5, 5, [0, 0, 0, 0, 1]), (6, 1, [1]), (7, 7, [0, 0, 0, 0, 1, 1, 1]), (7, 2, [1, 1])],
)
def test_rows_that_produce_tokens_are_the_same_with_and_without_a_cache(seen, queries, expected):
    image = torch.zeros(1, 5, dtype=torch.bool)
    call = SimpleNamespace(
        sequences=Sequences(image, image, torch.tensor([0]), seen), query=torch.zeros(1, 1, queries, 1)
    )
    assert producing_rows(call, queries)[0].int().tolist() == expected


def test_guided_distribution():
    """1.1·log p − 0.1·log p′, normalised."""
    close(guide(SEEN, WITHOUT_IMAGE, 1.1, 0).softmax(1), [0.6887185, 0.2180736, 0.0932079])
    assert torch.equal(guide(SEEN, WITHOUT_IMAGE, 1.0, 0), SEEN)


def test_guidance_by_itself_is_nothing_and_its_cut_looks_at_the_model():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    for gamma in (1.1, 2.0, 7.5):
        z = guide(logits, logits, gamma, 0.1)
        assert z.tolist() == [[2.0, 1.0, 0.0, -math.inf]]


def test_the_two_parts_are_switched_by_their_strengths():
    inputs = {"input_ids": torch.tensor([[1, 3, 5]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}
    lvlm = SimpleNamespace(layers=range(4), image_free=lambda given: given)
    kinds = lambda decoder: [type(declared).__name__ for declared in decoder.edits(lvlm, inputs)]
    assert kinds(PAI()) == ["Branch", "AttentionEdit", "LogitsEdit"]
    assert kinds(PAI(gamma=1)) == ["AttentionEdit"]
    assert kinds(PAI(alpha=0)) == ["Branch", "LogitsEdit"]
    assert kinds(PAI(alpha=0, gamma=1)) == []
    assert list(next(iter(PAI(gamma=1).edits(lvlm, inputs))).layers) == [2, 3]


def test_the_mix_is_the_guidance():
    close(PAI(gamma=2.0).mix(SEEN, Step(branches={"pai": WITHOUT_IMAGE})), guide(SEEN, WITHOUT_IMAGE, 2.0, 0.1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": -1}, "alpha=-1 is below 0"),
        ({"gamma": 0.9}, "gamma=0.9 is below 1"),
        ({"beta": 2}, "beta=2 is outside 0 to 1"),
        ({"skip_first": -1}, "skip_first=-1 is below 0"),
        ({"skip_first": 1.5}, "skip_first=1.5 is no whole number"),
    ],
)
def test_values_outside_their_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PAI(**options)
