"""Detectors' arithmetic, and that higher means riskier, in numbers from their specifications. 1e-6 unless said."""

import pytest
import torch

from veridical.detectors.confidence import Entropy, TokenProbability
from veridical.detectors.image_attention import ImageAttention
from veridical.detectors.lookback_lens import LookbackLens, ratio
from veridical.detectors.position import Position
from veridical.detectors.vhd import VHD, distance
from veridical.pipelines.engine.record import Record, confidence

P = [0.7, 0.2, 0.1]


def record(logs=0.0, entropy=0.0, tokens=1, **readings):
    """One sample of `tokens` tokens with the given readings, each (token, layer, ...)."""
    full = lambda value: torch.full((1, tokens), float(value))
    given = {name: torch.tensor(value)[None] for name, value in readings.items()}
    ids = torch.zeros(1, tokens, dtype=torch.long)
    return Record(ids, ids == 0, full(logs), full(entropy), full(0), torch.tensor([5]), given)


# ---------------------------------------------------------------------- confidence


def test_the_worked_distribution():
    logs, entropy, margin = confidence(torch.tensor(P).log()[None])
    assert float(-logs[0, 0]) == pytest.approx(0.356675, abs=1e-6)
    assert float(entropy) == pytest.approx(0.801819, abs=1e-6)
    assert float(margin) == pytest.approx(0.5, abs=1e-6)


def test_confidence_does_not_mind_what_the_logits_add_up_to():
    logits = torch.tensor(P).log()
    for one, other in zip(confidence(logits[None]), confidence((logits + 40)[None]), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-5)


def test_forbidden_tokens_have_no_part_in_the_entropy():
    logs, entropy, margin = confidence(torch.tensor([[*torch.tensor(P).log().tolist(), -torch.inf]]))
    assert float(entropy) == pytest.approx(0.801819, abs=1e-6)
    assert float(margin) == pytest.approx(0.5, abs=1e-6)
    assert torch.isneginf(logs[0, 3])


def test_a_uniform_distribution_has_the_largest_entropy_and_a_certain_one_none():
    assert float(confidence(torch.zeros(1, 8))[1]) == pytest.approx(2.0794415, abs=1e-6)
    assert float(confidence(torch.tensor([[0.0, -100.0]]))[1]) == pytest.approx(0, abs=1e-6)


def test_an_unlikely_token_is_the_riskier_one():
    confident, unsure = (TokenProbability().score(record(logs=value)) for value in (-0.356675, -2.302585))
    assert float(confident) == pytest.approx(0.356675, abs=1e-6)
    assert float(unsure) > float(confident)


def test_an_undecided_model_is_the_riskier_one():
    confident, unsure = (Entropy().score(record(entropy=value)) for value in (0.1, 0.801819))
    assert float(unsure) == pytest.approx(0.801819, abs=1e-6)
    assert float(unsure) > float(confident)


def test_later_tokens_are_the_riskier_ones_to_the_control():
    found = Position().score(record(tokens=33))
    assert found[0, 0] == 0
    assert found[0, 32] == 0.5
    assert (found.diff(dim=1) > 0).all()


# ---------------------------------------------------------------------- image attention


def test_the_worked_sum_of_image_attention():
    """Layer means 0.2, 0.3, 0.1; layers 0 and 1 together 0.5."""
    three = [[[0.30, 0.10], [0.20, 0.40], [0.05, 0.15]]]
    assert float(ImageAttention().score(record(image_attention=three))) == pytest.approx(-0.6, abs=1e-6)
    two = [three[0][:2]]
    assert float(ImageAttention().score(record(image_attention=two))) == pytest.approx(-0.5, abs=1e-6)


def test_a_token_made_without_looking_at_the_image_is_the_riskier_one():
    found = ImageAttention().score(record(tokens=2, image_attention=[[[0.6, 0.8]], [[0.1, 0.0]]]))
    assert found[0, 1] > found[0, 0]


def test_image_attention_takes_layers_five_to_eighteen_of_thirty_two():
    class Model:
        layers = range(32)

    (reading,) = ImageAttention().readings(Model, {})
    assert list(reading.layers) == list(range(5, 19))


# ---------------------------------------------------------------------- lookback


def lookback(row, context, new):
    sums = torch.tensor([[[[sum(row[at] for at in side) for side in (context, new)]]]])
    return float(ratio(sums, torch.tensor([[[1 / len(context), 1 / max(1, len(new))]]])))


def test_the_worked_lookback_ratio_takes_means_and_not_sums():
    """0.2 / (0.2 + 0.1); of sums it would be 0.8."""
    row = [0.1, 0.2, 0.3, 0.2, 0.1, 0.1]
    assert lookback(row, range(4), [4, 5]) == pytest.approx(0.666667, abs=1e-6)


def test_a_ratio_with_nothing_new_is_one():
    assert lookback([0.5, 0.5], [0, 1], []) == 1


def test_a_ratio_with_no_attention_on_either_side_is_zero_and_no_fault():
    assert lookback([0.0, 0.0, 1.0], [0], [1]) == 0


def test_the_lookback_ratio_has_one_number_per_token_and_head():
    sums = torch.full((2, 4, 3, 2), 1 / 3)  # batch token head side
    assert torch.allclose(ratio(sums, torch.full((2, 4, 2), 0.5)), torch.full((2, 4, 3), 0.5))


def test_a_token_made_without_looking_back_is_the_riskier_one():
    found = LookbackLens().score(record(tokens=2, lookback=[[[0.9, 0.7]], [[0.2, 0.4]]]))
    assert found.tolist() == [pytest.approx([0.2, 0.7], abs=1e-6)]


def test_another_context_is_refused():
    with pytest.raises(ValueError, match="context='photo' is none of 'image', 'prompt'"):
        LookbackLens(context="photo")


# ---------------------------------------------------------------------- vision-aware head divergence

WITH_IMAGE = [[1.0, 2.0, 2.0], [0.0, 0.0, 1.0], [3.0, 0.0, 4.0], [1.0, 1.0, 1.0]]
WITHOUT_IMAGE = [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 0.0]]


def divergences(with_image, without_image):
    return distance(torch.tensor(with_image), torch.tensor(without_image), "norm").tolist()


def t_vhd(with_image, without_image, **options):
    return -float(VHD(**options).score(record(vhd=[divergences(with_image, without_image)])))


def test_the_worked_divergences():
    found = VHD().divergence(record(vhd=[[divergences(WITH_IMAGE, WITHOUT_IMAGE)]]))
    torch.testing.assert_close(found, torch.tensor([[[[2.828427, 0.0, 5.0, 1.0]]]]), rtol=0, atol=1e-6)


def test_the_largest_half_of_the_heads_of_every_layer_is_summed():
    """Second layer [.5, .1, .2, .4]: 7.828427 + 0.9. The four largest of the whole model would be 9.328427."""
    second = [[0.5], [0.1], [0.2], [0.4]]
    with_image = [WITH_IMAGE, [[*value, 0.0, 0.0] for value in second]]
    without_image = [WITHOUT_IMAGE, [[0.0] * 3] * 4]
    assert t_vhd([WITH_IMAGE], [WITHOUT_IMAGE]) == pytest.approx(7.828427, abs=1e-6)
    assert t_vhd(with_image, without_image) == pytest.approx(8.728427, abs=1e-6)
    assert t_vhd(with_image, without_image, top=2) == t_vhd(with_image, without_image)


def test_the_score_adds_up_over_layers_and_grows_with_k():
    """vhr.md: divergences [1, 3, 0, 10], two largest 13."""
    with_image = [[1.0, 0.0], [0.0, 3.0], [2.0, 2.0], [0.0, 1.0]]
    without_image = [[1.0, 1.0], [0.0, 0.0], [2.0, 2.0], [6.0, 9.0]]
    assert t_vhd([with_image], [without_image], top=2) == pytest.approx(13, abs=1e-6)
    assert t_vhd([with_image, with_image], [without_image, without_image], top=2) == pytest.approx(26, abs=1e-6)
    grown = [t_vhd([with_image], [without_image], top=k) for k in (1, 2, 3, 4, 9)]
    assert grown == sorted(grown) == pytest.approx([10, 13, 14, 14, 14], abs=1e-6)


def test_a_token_whose_heads_do_not_need_the_image_is_the_riskier_one():
    steps = divergences([[WITH_IMAGE], [WITHOUT_IMAGE]], [[WITHOUT_IMAGE], [WITHOUT_IMAGE]])
    found = VHD().score(record(tokens=2, vhd=steps))
    assert found[0, 1] > found[0, 0]
    assert float(found[0, 1]) == 0
