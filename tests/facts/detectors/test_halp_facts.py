"""HALP's layers, its network and its positions in the numbers of its specification."""

import pytest
import torch

from veridical.detectors.deep_probe import Deep, fit_deep, folded, network
from veridical.detectors.halp import HALP, entries, state_at
from veridical.detectors.probe import Fitting

ENTRIES = {
    24: [0, 6, 12, 18, 23], 28: [0, 7, 14, 21, 27], 32: [0, 8, 16, 24, 31], 40: [0, 10, 20, 30, 39],
    48: [0, 12, 24, 36, 47],
}  # fmt: skip


@pytest.mark.parametrize("layers", ENTRIES)
def test_the_layers_that_the_released_code_probes(layers):
    assert entries(layers) == ENTRIES[layers]


def test_the_network_of_a_7b_model_has_2263809_weights():
    assert sum(weight.numel() for weight in network(4096).parameters()) == 2_263_809


def test_a_normalisation_folded_into_the_next_layer_changes_nothing():
    torch.manual_seed(0)
    built = network(6)
    built.train()
    for _ in range(20):  # running means and variances other than 0 and 1
        built(torch.randn(32, 6) * 3 + 1)
    for part in built:
        if isinstance(part, torch.nn.BatchNorm1d):
            torch.nn.init.normal_(part.weight)
            torch.nn.init.normal_(part.bias)
    built.eval()
    x = torch.randn(5, 6)
    found = Deep(torch.full((6,), 0.5), torch.full((6,), 2.0), *folded(built))
    torch.testing.assert_close(found(x), built((x - 0.5) / 2)[:, 0].sigmoid(), rtol=0, atol=1e-6)


def test_a_probe_is_read_back_from_its_tensors():
    """With every size that its file is checked for."""
    built = Deep(torch.zeros(6), torch.ones(6), *folded(network(6).eval()))
    x = torch.randn(3, 6)
    assert torch.equal(Deep(**built.tensors())(x), built(x))
    assert Deep(**built.tensors()) == built
    assert list(built.tensors()) == list(Deep.dimensions)


def test_a_fitted_probe_finds_what_separates_the_answers_and_the_seed_repeats_it():
    draw = torch.Generator().manual_seed(3)
    x = torch.randn(200, 8, generator=draw)
    labels = (x[:, 2] > 0).long()
    probe, about = fit_deep(x, labels, [n // 2 for n in range(200)], Fitting(epochs=8, batch=32))
    again, _ = fit_deep(x, labels, [n // 2 for n in range(200)], Fitting(epochs=8, batch=32))
    assert about["held_out_auroc"] > 0.9
    assert float(probe(x)[labels == 1].mean()) > 0.7 > 0.3 > float(probe(x)[labels == 0].mean())
    assert torch.equal(probe(x), again(x))


def test_positions_are_the_last_of_the_prompt_and_the_last_image_token_of_each_row():
    states = torch.arange(12.0).reshape(2, 6, 1)
    image = torch.tensor([[False, True, True, False], [True, False, False, True]])
    assert state_at(states, image, "query").flatten().tolist() == [5, 11]
    assert state_at(states, image, "image").flatten().tolist() == [4, 11]  # two columns of padding stand in front
    assert state_at(states[:, :0], image, "image").shape == (2, 0, 1)


def test_a_prompt_without_an_image_has_no_last_image_token():
    with pytest.raises(ValueError, match="a row has none"):
        state_at(torch.zeros(1, 3, 2), torch.zeros(1, 3, dtype=torch.bool), "image")


def test_the_released_settings_take_the_input_of_the_last_block():
    assert HALP.official() == HALP(layer=-2)
    with pytest.raises(ValueError, match=r"layer=2\.5 is no whole number"):
        HALP(layer=2.5)
