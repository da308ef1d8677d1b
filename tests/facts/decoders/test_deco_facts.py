"""DeCo's candidates and correction, in numbers small enough to check by hand."""

import math
from types import SimpleNamespace

import pytest
import torch

from veridical.decoders.deco import DeCo, candidates, correct, default_layers
from veridical.pipelines.engine.declared import declarations_of

LOGITS = torch.tensor([[2.0, 1.0, 0.0, -1.0]])  # 0.643914, 0.236883, 0.087144, 0.032059


def close(found, expected, tolerance=1e-6):
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(found.double().reshape(expected.shape), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("top_p", "top_k", "expected"),
    [(0.9, 20, 3), (0.88, 20, 2), (0.881, 20, 3), (0.6, 20, 1), (0.9, 2, 2), (1e-6, 4, 1), (1.0, 4, 4), (1.0, 1, 1)],
)
def test_candidates_are_the_fewest_that_reach_top_p(top_p, top_k, expected):
    """0.643914 + 0.236883 = 0.880797 reaches 0.88 and not 0.881."""
    assert candidates(LOGITS, top_p, top_k)[0].tolist() == [True] * expected + [False] * (4 - expected)


def test_candidates_are_found_wherever_they_stand_and_row_by_row():
    found = candidates(torch.tensor([[0.0, 9.0, 0.0], [5.0, 0.0, 5.0]]), 0.9, 20)
    assert found.tolist() == [[False, True, False], [True, False, True]]


EARLY = torch.tensor([[[0.0, 1.0, 0.0, 5.0]], [[0.0, 0.0, 3.0, 0.0]]])  # layer batch vocab
ALLOWED = torch.tensor([[True, True, True, False]])


def test_the_layer_that_is_surest_of_a_candidate_is_added_in_proportion():
    """The first layer is surest of all (0.969), but of no candidate; the second gives candidate 2 0.870049."""
    z = correct(LOGITS, EARLY, ALLOWED, 0.6)
    close(z, [2.0, 1.0, 1.5660873, -math.inf])


def test_a_candidate_more_can_change_the_layer():
    z = correct(LOGITS, EARLY, torch.ones_like(ALLOWED), 0.6)
    m = 0.9691880
    close(z, [2.0, 1.0 + 0.6 * m, 0.0, -1.0 + 0.6 * m * 5])


def test_each_row_chooses_its_own_layer():
    logits, early = LOGITS.expand(2, -1), EARLY.expand(2, 2, 4)
    allowed = torch.stack([ALLOWED[0], torch.ones(4, dtype=torch.bool)])
    z = correct(logits, early, allowed, 0.6)
    close(z[0], correct(LOGITS, EARLY, ALLOWED, 0.6)[0])
    close(z[1], correct(LOGITS, EARLY, torch.ones_like(ALLOWED), 0.6)[0])


def test_default_layers_are_20_to_28_of_32_counted_from_one():
    assert list(default_layers(32)) == list(range(19, 28))
    assert list(default_layers(8)) == [4, 5, 6]
    assert list(default_layers(1)) == [0]


@pytest.mark.parametrize("count", range(2, 81))
def test_default_layers_precede_the_last(count):
    layers = default_layers(count)
    assert 0 <= layers[0] <= layers[-1] < count - 1


def test_the_state_is_normed_before_the_head():
    lvlm = SimpleNamespace(layers=range(8), unembed=lambda states: 10 * states, head=None)
    step = SimpleNamespace(latest=lambda name: EARLY / 10)
    close(DeCo(top_p=0.9).mix(lvlm, LOGITS, step), correct(LOGITS, EARLY, ALLOWED, 0.6))
    reading, _ = DeCo().edits(lvlm, {})
    assert (list(reading.layers), reading.of) == ([4, 5, 6], "block")
    assert list(declarations_of(DeCo(alpha=0), lvlm, {})) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": -1}, "alpha=-1 is below 0"),
        ({"top_p": 0}, "top_p=0 is outside"),
        ({"top_k": 0}, "top_k=0 is below 1"),
        ({"top_k": 2.5}, "top_k=2.5 is no whole number"),
        ({"layers": 3}, "layers=3 is no list of whole numbers"),
    ],
)
def test_values_outside_their_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DeCo(**options)


def test_layers_that_do_not_exist_are_refused_and_lists_hash():
    with pytest.raises(ValueError, match=r"DeCo asks for layers \[9\]"):
        list(DeCo(layers=[1, 9]).edits(SimpleNamespace(layers=range(8)), {}))
    assert hash(DeCo(layers=[1])) == hash(DeCo(layers=(1,)))
