"""M3ID's weight and amplification, in numbers small enough to check by hand."""

import pytest
import torch

from veridical.decoders.m3id import M3ID, amplify, weight
from veridical.pipelines.engine.declarations import Step

SEEN, WITHOUT_IMAGE = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[1.0, 1.5, -1.0]])


def close(found, expected, tolerance=1e-6):
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(found.double().reshape(expected.shape), expected, rtol=tolerance, atol=tolerance)


def test_the_weight_grows_with_the_number_of_the_token_from_one():
    """(1 − e^{−λt})/e^{−λt} = e^{λt} − 1: with λ = 0.02 the first token has 0.0202, the 50th e − 1."""
    assert weight(0, 0.02) == pytest.approx(0.0202013, abs=1e-7)
    assert weight(49, 0.02) == pytest.approx(1.7182818, abs=1e-7)
    assert weight(99, 0.02) == pytest.approx(6.3890561, abs=1e-7)
    assert weight(5, 0.0) == 0


def test_amplified_log_probabilities():
    """λ = 1, first token: weight e − 1 on log p − log p′."""
    close(amplify(SEEN, WITHOUT_IMAGE, weight(0, 1.0)).softmax(1), [0.8596361, 0.0240248, 0.1163391])


def test_what_is_amplified_are_log_probabilities():
    """log p + w(log p − log p′), here (2, 1, 0) − 2.4076060 + 1.71828·(0.616300, −0.883700, 0.616300)."""
    close(amplify(SEEN, WITHOUT_IMAGE, weight(0, 1.0)), [0.6513764, -2.9260463, -1.3486236])
    assert torch.equal(amplify(SEEN, WITHOUT_IMAGE, 0.0), SEEN.log_softmax(1))


def test_a_constant_in_either_branch_changes_no_distribution():
    one, other = amplify(SEEN, WITHOUT_IMAGE, 2.0), amplify(SEEN + 3, WITHOUT_IMAGE - 7, 2.0)
    close(other.softmax(1), one.softmax(1))


def test_the_mix_counts_tokens_by_the_step():
    step = Step(branches={"m3id": WITHOUT_IMAGE}, index=9)
    close(M3ID(lam=0.1, beta=0).mix(SEEN, step), amplify(SEEN, WITHOUT_IMAGE, weight(9, 0.1)))


def test_the_gate_spares_what_the_model_is_sure_of():
    logits, without_image = torch.tensor([[4.0, 0.0], [0.5, 0.0]]), torch.tensor([[0.0, 4.0], [0.0, 4.0]])
    z = M3ID(lam=1.0, beta=0, gate=0.9).mix(logits, Step(branches={"m3id": without_image}, index=0))
    assert torch.equal(z[0], logits[0].log_softmax(0))  # p = 0.98
    close(z[1], amplify(logits, without_image, weight(0, 1.0))[1])  # p = 0.62


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lam": -1}, "lam=-1 is below 0"),
        ({"beta": 2}, "beta=2 is outside 0 to 1"),
        ({"gate": 1.2}, "gate=1.2 is outside 0 to 1"),
    ],
)
def test_values_outside_their_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        M3ID(**options)
