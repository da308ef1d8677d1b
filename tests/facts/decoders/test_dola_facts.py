"""DoLa's divergence, layer choice and contrast, in numbers small enough to check by hand."""

import math
from types import SimpleNamespace

import pytest
import torch

from veridical.decoders.dola import DoLa, bucket, contrast_layers, jensen_shannon

P = torch.tensor([0.6, 0.3, 0.1])
EARLY = torch.tensor([[0.02, 0.3, 0.68], [0.1, 0.05, 0.85]])


def close(found, expected, tolerance=1e-6):
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(found.double().reshape(expected.shape), expected, rtol=tolerance, atol=tolerance)


def test_divergence_of_two_coins():
    """m = (0.7, 0.3): ½(0.087177 + 0.116322); the other way round ½(0.082283 + 0.153664)."""
    p, q = torch.tensor([0.5, 0.5]), torch.tensor([0.9, 0.1])
    close(jensen_shannon(p, q), 0.101749)
    close(jensen_shannon(p, q, "official"), 0.117973)


def test_divergence_is_symmetric_and_between_zero_and_ln_2():
    p, q = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    close(jensen_shannon(p, q), math.log(2))
    close(jensen_shannon(P, EARLY[0]), jensen_shannon(EARLY[0], P))
    close(jensen_shannon(P, P), 0)


def test_paper_and_released_code_can_choose_different_layers():
    """0.291672 and 0.318001 by the paper; 0.479456 and 0.419217 by the code."""
    close(jensen_shannon(P.expand(2, 3), EARLY), [0.291672, 0.318001])
    close(jensen_shannon(P.expand(2, 3), EARLY, "official"), [0.479456, 0.419217])
    early = EARLY.log()[:, None]
    close(contrast_layers(P.log()[None], early), (P / EARLY[1]).log())
    close(contrast_layers(P.log()[None], early, "official"), (P / EARLY[0]).log())


def test_each_row_chooses_its_own_layer():
    flat, sharp = torch.zeros(3), torch.tensor([9.0, 0.0, 0.0])
    logits = torch.stack([flat, sharp])
    early = torch.stack([torch.stack([flat, flat]), torch.stack([sharp, sharp])])  # layer batch vocab
    z = contrast_layers(logits, early)
    close(z[0], flat.log_softmax(0) - sharp.log_softmax(0))
    close(z[1], sharp.log_softmax(0) - flat.log_softmax(0))


def test_of_layers_that_are_all_as_far_as_can_be_the_first_is_chosen():
    """Each is sure of a word that p excludes, so that the divergence is ln 2 but for rounding."""
    logits = torch.tensor([[30.0, 29.0, 0.0, 0.0, 0.0]])
    early = torch.full((3, 1, 5), 0.0)
    for layer, sure in enumerate((60.0, 70.0, 65.0)):
        early[layer, 0, 2 + layer] = sure
    p, q = logits.softmax(-1), early.softmax(-1)
    close(jensen_shannon(p.expand_as(q), q), [[math.log(2)]] * 3)
    for nearer in range(3):  # a share of 1e-6 off ln 2
        moved = early.clone()
        moved[nearer, 0, 0] = sum(moved[nearer, 0]) + math.log(1e-7)
        close(contrast_layers(logits, moved), logits.log_softmax(-1) - moved[0].log_softmax(-1), 1e-5)
    moved[0] = logits + torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0])  # now one is near
    close(contrast_layers(logits, moved), logits.log_softmax(-1) - moved[1].log_softmax(-1), 1e-5)


@pytest.mark.parametrize(
    ("which", "count", "tied", "expected"),
    [
        ("low", 32, False, list(range(0, 16, 2))),
        ("high", 32, False, list(range(16, 32, 2))),
        ("low", 40, False, list(range(0, 20, 2))),
        ("high", 40, False, list(range(20, 40, 2))),
        ("low", 60, False, list(range(0, 20, 2))),
        ("high", 60, False, list(range(40, 60, 2))),
        ("high", 80, False, list(range(60, 80, 2))),
        ("low", 32, True, list(range(2, 16, 2))),
    ],
)
def test_buckets_are_those_of_the_released_commands(which, count, tied, expected):
    """Their lists for 7B, 13B, 30B and 65B end with the last layer, which is the one contrasted with."""
    assert list(bucket(which, count, tied)) == expected


@pytest.mark.parametrize(
    ("which", "count", "tied", "expected"),
    [("low", 1, False, 0), ("low", 1, True, 0), ("low", 2, True, 1), ("low", 3, True, 2), ("low", 4, True, 2)],
)
def test_a_shallow_model_has_one_layer_to_contrast_with_and_not_none(which, count, tied, expected):
    """transformers chooses the same; an empty bucket would be plain decoding under the method's name."""
    assert bucket(which, count, tied) == (expected,)


def test_the_contrast_is_cut_by_the_last_layer():
    step = SimpleNamespace(latest=lambda name: torch.zeros(1, 1, 3))
    lvlm = SimpleNamespace(head=lambda states: states)
    z = DoLa(relative_top=0.4).mix(lvlm, P.log()[None], step)
    close(z, [math.log(1.8), math.log(0.9), -math.inf])


def test_layers_are_read_where_they_begin_so_that_zero_is_the_embedding():
    lvlm = SimpleNamespace(layers=range(8), text_config=SimpleNamespace(tie_word_embeddings=False))
    reading, _ = DoLa().edits(lvlm, {})
    assert (list(reading.layers), reading.of) == ([0, 2], "input")
    reading, _ = DoLa(layers=[6, 2, 2]).edits(lvlm, {})
    assert list(reading.layers) == [2, 6]
    assert list(DoLa(layers=()).edits(lvlm, {})) == []


def test_values_outside_their_range_are_refused():
    lvlm = SimpleNamespace(layers=range(8), text_config=SimpleNamespace())
    with pytest.raises(ValueError, match="layers='middle' is none of 'low', 'high'"):
        DoLa(layers="middle")
    with pytest.raises(ValueError, match="relative_top=2 is outside 0 to 1"):
        DoLa(relative_top=2)
    with pytest.raises(ValueError, match="mode='fast' is none of"):
        DoLa(mode="fast")
    with pytest.raises(ValueError, match=r"layers=3 is no list of whole numbers \(0-based layers\)"):
        DoLa(layers=3)
    with pytest.raises(ValueError, match=r"DoLa asks for layers \[8\], but this model's layers are 0 to 7"):
        list(DoLa(layers=(2, 8)).edits(lvlm, {}))


def test_layers_given_as_a_list_hash_and_print():
    method = DoLa(layers=[1, 2])
    assert hash(method) == hash(DoLa(layers=(1, 2)))
    assert eval(repr(method)) == method
