"""SPIN's ranking and factor, in numbers from its specification."""

from types import SimpleNamespace

import pytest
import torch

import veridical
from veridical.decoders.spin import SPIN, head_scores, kept_heads, shrink
from veridical.pipelines.engine.call import Sequences

SCORES = torch.tensor([[1, 2], [0.5, -3], [-1, 1.5], [2, 1.5]]).view(1, 4, 1, 2)
BOTH = torch.ones(1, 2, dtype=torch.bool)


def close(found, expected, tolerance=1e-6):
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(found.double().reshape(expected.shape), expected, rtol=tolerance, atol=tolerance)


def kept(sums, keep):
    found = kept_heads(torch.as_tensor(sums).view(1, -1, 1), keep)
    return found.flatten().nonzero().flatten().tolist()


def test_the_heads_with_the_largest_sums_of_raw_scores_stay():
    sums = head_scores(SCORES, BOTH).flatten()
    close(sums, [3, -2.5, 0.5, 3.5])
    found = {keep: kept(sums, keep) for keep in (0.5, 0.95, 1, 0.2)}
    assert found == {0.5: [0, 3], 0.95: [0, 2, 3], 1: [0, 1, 2, 3], 0.2: []}


def test_the_released_codes_gates_are_in_the_same_order():
    sums = head_scores(SCORES, BOTH).flatten()
    close(sums.std(), 2.75, 1e-3)
    gates = (sums / 2.75).softmax(0)
    close(gates, [0.365281, 0.049435, 0.147168, 0.438116], 1e-5)
    assert gates.argsort().tolist() == sums.argsort().tolist()


def test_of_equal_sums_the_lower_head_stays():
    assert kept([1.0, 2, 2, 2], 0.5) == [1, 2]


def test_a_sum_of_scores_is_no_attention():
    scores = torch.tensor([[3.0, 0, 4], [0, 0, -2]]).view(1, 2, 1, 3)
    image = torch.tensor([[True, True, False]])
    sums = head_scores(scores, image).flatten()
    assert sums.tolist() == [3, 0]
    assert kept(sums, 0.5) == [0]
    close(scores.softmax(-1)[..., :2].sum(-1), [0.278601, 0.936621])


@pytest.mark.parametrize(
    ("heads", "counts"),
    [
        (4, [3, 3, 3, 2, 2]), (8, [7, 7, 6, 5, 4]), (12, [11, 10, 9, 8, 6]), (14, [13, 12, 11, 9, 7]),
        (16, [15, 14, 12, 11, 8]), (28, [26, 25, 22, 19, 14]), (32, [30, 28, 25, 22, 16]), (40, [38, 36, 32, 28, 20]),
    ],
)  # fmt: skip
def test_how_many_heads_stay(heads, counts):
    assert [len(kept(torch.arange(float(heads)), keep)) for keep in (0.95, 0.9, 0.8, 0.7, 0.5)] == counts


def test_masked_columns_never_enter_the_sum():
    scores = SCORES.clone()
    scores[..., 0] = torch.finfo(torch.float32).min
    close(head_scores(scores, BOTH), [2, -3, 1.5, 1.5])


def test_sums_of_half_precision_are_taken_in_float32():
    scores = torch.full((1, 1, 1, 4096), 1.0, dtype=torch.bfloat16)
    scores[..., 0] = 256.0
    assert float(head_scores(scores, torch.ones(1, 4096, dtype=torch.bool))) == 4351


def test_the_other_heads_outputs_shrink_in_the_edited_row():
    rows = torch.tensor([[False, False, True]])
    chosen = kept_heads(head_scores(SCORES, BOTH), 0.5).expand(1, 4, 3)
    found = shrink(torch.ones(1, 3, 4, 1), chosen, rows, 0.08)[0, :, :, 0]
    close(found, [[1, 1, 1, 1], [1, 1, 1, 1], [1, 0.08, 0.08, 1]])


def rows(decoder, image, seen, queries):
    image = torch.tensor(image)
    where = Sequences(image, torch.zeros_like(image), torch.arange(len(image)), seen=seen)
    call = SimpleNamespace(layer=0, sequences=where, query=torch.zeros(1))
    none = {0: torch.zeros(len(image), 2, queries, dtype=torch.bool)}
    return (decoder.edit(none, torch.ones(len(image), queries, 2, 1), call)[:, :, 0, 0] < 1).tolist()


def test_last_edits_rows_that_produce_tokens_and_text_every_row_behind_the_image():
    prompt_image = [[False, True, False, False]]
    assert rows(SPIN(), prompt_image, 4, 4) == [[False, False, False, True]]
    assert rows(SPIN(queries="text"), prompt_image, 4, 4) == [[False, False, True, True]]
    assert rows(SPIN(), prompt_image, 6, 6) == [[False, False, False, True, True, True]]
    assert rows(SPIN(queries="text"), prompt_image, 6, 1) == [[True]]


def test_a_sample_without_an_image_is_left_alone():
    image = [[False, True, False], [False, False, False]]
    for queries in ("last", "text"):
        assert rows(SPIN(queries=queries), image, 3, 3) == [[False, False, True], [False] * 3]


def test_keeping_all_heads_or_a_factor_of_one_is_plain_decoding(two_steps):
    assert SPIN(keep=1).is_neutral
    assert SPIN(factor=1).is_neutral
    assert not SPIN().is_neutral
    with pytest.warns(veridical.pipelines.generate.NeverActed):
        assert torch.equal(two_steps(SPIN(layers=())), two_steps())
    with pytest.raises(ValueError, match=r"SPIN asks for layers \[8\], but this model's layers are 0 to 7"):
        two_steps(SPIN(layers=(8,)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": 1.5}, "keep=1.5 is outside 0 to 1"),
        ({"factor": -1}, "factor=-1 is below 0"),
        ({"queries": "some"}, "queries='some' is none of 'last', 'text', 'all'"),
    ],
)
def test_values_outside_their_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SPIN(**options)


def test_the_defaults_are_the_released_readmes():
    assert SPIN() == SPIN(keep=0.95, factor=0.08, layers=None, queries="last") == SPIN.official()
