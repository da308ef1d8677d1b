"""VAF's factors on attention scores, in numbers from its specification (six decimals)."""

from types import SimpleNamespace

import pytest
import torch

import veridical
from veridical.decoders.attention_sites import before_image, behind_image
from veridical.decoders.vaf import VAF, amplify
from veridical.pipelines.engine.call import Sequences
from veridical.testing.tiny import prompt, tiny_llava

ROW = torch.ones(1, 1, dtype=torch.bool)


def close(found, expected, tolerance=1e-6):
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(found.double().reshape(expected.shape), expected, rtol=tolerance, atol=tolerance)


def amplified(scores, kinds):
    """kinds: s for a system column, i for an image column, t for text."""
    mask = lambda kind: torch.tensor([[one == kind for one in kinds]])
    z = torch.tensor(scores).view(1, 1, 1, -1)
    return amplify(z, mask("i"), mask("s"), ROW, 0.15, 0.05).flatten()


@pytest.mark.parametrize(
    ("kinds", "scores", "expected", "attention"),
    [
        ("siitt", [1, 2, -1, 0.5, 0], [0.95, 2.3, -1.15, 0.5, 0], [0.166549, 0.642449, 0.020395, 0.106196, 0.064411]),
        ("sit", [-2.0, 1, 0], [-1.9, 1.15, 0], [0.034721, 0.733140, 0.232139]),
    ],
)
def test_image_scores_grow_by_a_factor_and_system_scores_shrink(kinds, scores, expected, attention):
    found = amplified(scores, kinds)
    close(found, expected)
    close(found.softmax(0), attention)


def test_negative_image_scores_fall_so_that_the_image_can_lose_attention():
    z = torch.tensor([2.0, -1, -2, 0, 1])
    found = amplified(z.tolist(), "siitt")
    close(found, [1.9, -1.15, -2.3, 0, 1])
    close(z.softmax(0)[1:3].sum(), 0.043341)
    close(found.softmax(0)[1:3].sum(), 0.038526)
    close(z.softmax(0)[0], 0.636409)
    close(found.softmax(0)[0], 0.617859)


def test_masked_scores_stay_masked():
    least = torch.finfo(torch.float32).min
    found = amplified([least, -torch.inf, 1.0], "sit")
    assert found.tolist() == [least, -torch.inf, 1.0]


@pytest.mark.parametrize(
    ("count", "expected"),
    [(6, (1, 2)), (12, (3, 5)), (24, (6, 10)), (28, (7, 12)), (32, (9, 14)), (36, (9, 14)), (40, (9, 14))],
)
def test_layers_by_depth(count, expected):
    layers = next(VAF().edits(SimpleNamespace(layers=[None] * count, heads=4), {})).layers
    assert (layers[0], layers[-1]) == expected


def masks(*rows):
    """Of rows of p (padding), s, i, t."""
    mask = lambda kinds: torch.tensor([[one in kinds for one in row] for row in rows])
    return Sequences(mask("i"), mask("p"), torch.arange(len(rows)))


def test_rows_are_behind_the_last_image_and_system_columns_before_the_first():
    where = masks("ssitit", "ppsitt", "ppiitt", "ppstts")
    assert behind_image(where).tolist()[0] == [False] * 5 + [True]
    assert behind_image(where).tolist()[1] == [False] * 4 + [True] * 2
    assert before_image(where).tolist() == [
        [True, True, False, False, False, False],
        [False, False, True, False, False, False],
        [False] * 6,
        [False] * 6,
    ]


def edited(decoder, where, queries, heads=2, layer=0):
    keys = where.image.shape[1]
    known = {"sequences": where, "image": where.image, "query": where.image, "columns": lambda mask: mask}
    call = SimpleNamespace(layer=layer, **known)
    return decoder.edit(heads, torch.ones(len(where.image), heads, queries, keys), call)


def test_only_the_chosen_head_and_the_row_behind_the_image_change():
    where = masks("sit")
    where.advance(3)
    change = edited(VAF(heads={0: (1,)}), where, 3) - 1
    expected = torch.zeros(1, 2, 3, 3)
    expected[0, 1, 2] = torch.tensor([-0.05, 0.15, 0])
    close(change, expected)


def test_every_generated_token_is_a_row_behind_the_image():
    where = masks("sit")
    where.advance(5)
    where.image = torch.tensor([[False, True, False]])
    found = edited(VAF(), where, 2)
    close(found[0, 0] - 1, [[-0.05, 0.15, 0]] * 2)


@pytest.fixture(scope="module")
def lvlm():
    return veridical.LVLM(tiny_llava(8, 2))


def logits(lvlm, *decoders):
    inputs = prompt(lvlm.model, 3, 5, 1)
    return veridical.generate(lvlm, inputs, decoders, return_logits=True, max_new_tokens=2, do_sample=False).logits


@pytest.mark.filterwarnings("ignore::veridical.pipelines.generate.NeverActed")
@pytest.mark.parametrize("decoder", [VAF(layers=()), VAF(heads={})], ids=["no layers", "no heads"])
def test_without_layers_or_heads_it_is_plain_decoding(lvlm, decoder):
    assert torch.equal(logits(lvlm, decoder), logits(lvlm))


def test_all_heads_named_are_all_heads(lvlm):
    every = {layer: range(8) for layer in range(8)}
    assert torch.equal(logits(lvlm, VAF(heads=every)), logits(lvlm, VAF()))
    assert not torch.equal(logits(lvlm, VAF(heads={2: (0,)})), logits(lvlm, VAF()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"boost": -1}, "boost=-1 is below 0"),
        ({"suppress": 1.5}, "suppress=1.5 is outside 0 to 1"),
        ({"heads": (1, 2)}, "no mapping from layers to heads"),
        ({"heads": {1: ("a",)}}, "are not all whole numbers"),
    ],
)
def test_values_outside_their_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        VAF(**options)


def test_layers_and_heads_that_the_model_does_not_have_are_refused(lvlm):
    with pytest.raises(ValueError, match=r"VAF asks for layers \[8\], but this model's layers are 0 to 7"):
        logits(lvlm, VAF(layers=(8,)))
    with pytest.raises(ValueError, match=r"VAF asks for heads \[8\]; this model's query heads are 0 to 7"):
        logits(lvlm, VAF(heads={2: (8,)}))


def test_the_defaults_are_the_released_scripts():
    assert VAF() == VAF(boost=0.15, suppress=0.05, layers=None, heads=None) == VAF.official()
