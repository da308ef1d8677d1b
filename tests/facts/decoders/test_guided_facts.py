"""Numbers of the Lookback Lens specification for guided decoding, and the pieces that guided decoding is made of."""

import math

import pytest
import torch

from veridical.decoders.procedures.guided import Guided, choose, chunk_risk
from veridical.pipelines.engine.logits import Forced
from veridical.pipelines.registry import DETECTORS


def test_the_chunk_with_the_largest_probability_of_being_faithful_is_kept():
    """w = [2, −1], b = −0.3; chunks [.6, .2], [.4, .5], [.7, .3]: P = .668188, .500000, .689974; the third."""
    faithful = [1 / (1 + math.exp(-(2 * a - b - 0.3))) for a, b in ([0.6, 0.2], [0.4, 0.5], [0.7, 0.3])]
    assert faithful == pytest.approx([0.668188, 0.5, 0.689974], abs=5e-7)
    assert choose(1 - torch.tensor(faithful)[:, None]).tolist() == [2]


def test_each_sample_has_a_choice_of_its_own_and_the_first_of_equals_is_kept():
    assert choose(torch.tensor([[0.3, 0.2, 0.5], [0.1, 0.2, 0.5]])).tolist() == [1, 0, 0]


def test_the_risk_of_a_chunk_is_the_mean_over_its_real_tokens():
    risk = torch.tensor([[[0.9, 0.8, 0.1]], [[0.2, float("nan"), float("nan")]], [[float("nan")] * 3]])
    found = chunk_risk(risk, ~risk.isnan())[:, 0]
    assert found[:2].tolist() == pytest.approx([0.6, 0.2])
    assert math.isinf(found[2])


def test_a_given_beginning_is_all_that_can_be_chosen_while_it_lasts_in_every_branch():
    forced = Forced([[2, 1], [3]])
    scores = torch.zeros(4, 5)  # two blocks of two rows
    first, second, third = (forced(torch.zeros(4, 1).long(), scores) for _ in range(3))
    assert first.argmax(1).tolist() == [2, 3, 2, 3]
    assert (first.isfinite().sum(1) == 1).all()
    assert second.argmax(1)[[0, 2]].tolist() == [1, 1]
    assert torch.equal(second[[1, 3]], scores[[1, 3]])
    assert torch.equal(third, scores)


def test_the_defaults_are_the_papers():
    assert (Guided().candidates, Guided().chunk, Guided.official().chunk) == (8, 8, 5)
    assert DETECTORS.name_of(DETECTORS.make(Guided().detector)) == "lookback_lens"


@pytest.mark.parametrize(("settings", "message"), [
    ({"candidates": 0}, "candidates=0 is below 1"),
    ({"chunk": 2.5}, "chunk=2.5 is no whole number"),
    ({"temperature": 0}, "temperature=0 is below"),
    ({"top_p": 2}, "top_p=2 is outside 0 to 1"),
    ({"detector": "lokback"}, "Did you mean"),
])  # fmt: skip
def test_wrong_settings_are_refused_with_what_is_possible(settings, message):
    with pytest.raises((ValueError, KeyError), match=message):
        Guided(**settings)
