"""VAR's sinks and redistribution, and the direction of the latter, in numbers from its specification.

Ten keys: 0 is the first token, 1 text, 2 to 6 image, 7 to 9 text; tokens 0 and 3 are sinks. 1e-6 unless said: the
specification gives six decimals, float32 keeps seven digits.
"""

import math

import pytest
import torch

from veridical.decoders.var import VAR, redistribute, relative, sinkness

A = [0.30, 0.05, 0.04, 0.10, 0.12, 0.06, 0.08, 0.05, 0.10, 0.10]
B = [0.30, 0.05, 0.02, 0.30, 0.03, 0.02, 0.03, 0.05, 0.10, 0.10]
C = [0.60, 0.15, 0.02, 0.01, 0.02, 0.02, 0.03, 0.05, 0.05, 0.05]
IMAGE = [2, 3, 4, 5, 6]


def marks(*where, keys=10):
    out = torch.zeros(1, keys, dtype=torch.bool)
    out[0, list(where)] = True
    return out


def moved(row, sinks=(0, 3), move=0.6, min_nonsink=0.5, min_image=0.2, image=IMAGE):
    """One row of attention, redistributed."""
    given = torch.as_tensor(row)[None, None, None]  # batch head query key
    rows = torch.ones(1, 1, dtype=torch.bool)
    keys = given.shape[-1]
    out = redistribute(
        given, marks(*image, keys=keys), marks(*sinks, keys=keys), rows, move, min_nonsink, min_image
    )
    return out[0, 0, 0]


def close(found, expected, tolerance=1e-6):
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)


# ---------------------------------------------------------------------- redistribution


def test_var_takes_from_sinks_and_gives_to_the_rest_of_the_image():
    before, after = torch.tensor(A), moved(A)
    assert (after[[0, 3]] < before[[0, 3]]).all(), "sinks, in the text and in the image, lose"
    assert (after[[2, 4, 5, 6]] > before[[2, 4, 5, 6]]).all(), "other image tokens gain"
    assert torch.equal(after[[1, 7, 8, 9]], before[[1, 7, 8, 9]]), "other text is left alone, to the last bit"


@pytest.mark.parametrize(
    ("move", "expected"),
    [
        (0.6, [0.12, 0.05, 0.072, 0.04, 0.216, 0.108, 0.144, 0.05, 0.10, 0.10]),
        (0.4, [0.18, 0.05, 0.061333, 0.06, 0.184, 0.092, 0.122667, 0.05, 0.10, 0.10]),
        (1.0, [0.0, 0.05, 0.093333, 0.0, 0.28, 0.14, 0.186667, 0.05, 0.10, 0.10]),
        (0.0, A),
    ],
)
def test_the_worked_row(move, expected):
    """Image mass 0.40, of which 0.75 on non-sinks; the paper moves 0.6, the released code 0.4 under that name."""
    close(moved(A, move=move), expected)
    assert float(moved(A, move=move).sum()) == pytest.approx(1, abs=1e-6)


def test_a_row_that_looks_mainly_at_image_sinks_is_left_alone():
    """0.10 of 0.40 on non-sinks is 0.25."""
    assert torch.equal(moved(B), torch.tensor(B))
    selected = moved(B, min_nonsink=0.2)
    close(selected, [0.12, 0.05, 0.092, 0.12, 0.138, 0.092, 0.138, 0.05, 0.10, 0.10])


def test_a_row_that_hardly_looks_at_the_image_is_left_alone():
    """Image mass 0.10, although 0.90 of it is on non-sinks."""
    assert torch.equal(moved(C), torch.tensor(C))
    assert not torch.equal(moved(C, min_image=0.05), torch.tensor(C))


def test_thresholds_include_the_value_itself():
    """Numbers exact in binary: image mass 1/4, half of it on non-sinks."""
    row = [0.5, 0.125, 0.125, 0.25]
    found = moved(row, sinks=(0, 1), move=0.5, min_nonsink=0.5, min_image=0.25, image=[1, 2])
    assert found.tolist() == [0.25, 0.0625, 0.4375, 0.25]
    above = moved(row, sinks=(0, 1), move=0.5, min_nonsink=0.5, min_image=0.2500001, image=[1, 2])
    assert above.tolist() == row
    above = moved(row, sinks=(0, 1), move=0.5, min_nonsink=0.5000001, min_image=0.25, image=[1, 2])
    assert above.tolist() == row


def test_a_threshold_above_one_edits_nothing():
    assert torch.equal(moved(A, min_nonsink=1.01), torch.tensor(A))
    assert torch.equal(moved(A, min_image=1.01), torch.tensor(A))


def test_ratios_among_the_image_tokens_that_gain_are_kept():
    close(moved(A)[[2, 4, 5, 6]] / moved(A)[2], [1, 3, 1.5, 2])


def test_text_sinks_alone_feed_the_image_too():
    """Literal Eq. 4; the released code would edit nothing here, which `require_visual_sink` asks for."""
    close(moved(A, sinks=(0,)), [0.12, 0.05, 0.058, 0.145, 0.174, 0.087, 0.116, 0.05, 0.10, 0.10])


def test_a_row_without_sinks_or_without_anyone_to_give_to_is_left_alone():
    assert torch.equal(moved(A, sinks=()), torch.tensor(A))
    assert torch.equal(moved(A, sinks=IMAGE, min_nonsink=0.0), torch.tensor(A))
    assert torch.equal(moved(A, image=[]), torch.tensor(A))


def test_rows_that_are_not_asked_for_are_left_alone_to_the_last_bit():
    given = torch.tensor([A, A, B])[None, None].expand(1, 2, 3, 10)
    rows = torch.tensor([[False, True, True]])
    out = redistribute(given, marks(*IMAGE), marks(0, 3), rows, 0.6, 0.5, 0.2)
    for head in range(2):
        assert torch.equal(out[0, head, 0], torch.tensor(A))
        close(out[0, head, 1], moved(A))
        assert torch.equal(out[0, head, 2], torch.tensor(B))


def test_heads_rows_and_samples_are_judged_each_for_itself():
    given = torch.tensor([[[A], [C]], [[B], [A]]])  # batch head query key
    mask, sinks = marks(*IMAGE).expand(2, -1), torch.cat([marks(0, 3), marks(0)])
    out = redistribute(given, mask, sinks, torch.ones(2, 1, dtype=torch.bool), 0.6, 0.5, 0.2)
    close(out[0, 0, 0], moved(A))
    close(out[0, 1, 0], C)
    close(out[1, 0, 0], moved(B, sinks=(0,)))
    close(out[1, 1, 0], moved(A, sinks=(0,)))


@pytest.mark.parametrize("move", [0.0, 0.3, 0.6, 1.0])
def test_probabilities_stay_probabilities(move):
    """Random rows, 1e-6: sums of 40 float32 numbers."""
    generator = torch.Generator().manual_seed(0)
    given = (3 * torch.randn(2, 4, 7, 40, generator=generator)).softmax(-1)
    image = torch.rand(2, 40, generator=generator) < 0.5
    sinks = torch.rand(2, 40, generator=generator) < 0.2
    out = redistribute(given, image, sinks, torch.ones(2, 7, dtype=torch.bool), move, 0.3, 0.1)
    assert (out >= 0).all()
    assert float((out.sum(-1) - 1).abs().max()) < 1e-6
    assert torch.equal(out, given) == (move == 0)


def test_the_type_of_the_attention_is_kept():
    assert moved(torch.tensor(A, dtype=torch.bfloat16)).dtype == torch.bfloat16


# ---------------------------------------------------------------------- sinks


def state(**places):
    x = torch.ones(4096)
    for place, value in places.items():
        x[int(place[1:])] = value
    return x


@pytest.mark.parametrize(
    ("x", "phi", "sink"),
    [
        (state(d2533=60.0), 43.775077, True),
        (state(d1415=19.0), 18.216334, False),
        (state(d7=500.0), 0.126964, False),
        (state(d1415=-60.0), 43.775077, True),
    ],
    ids=["large", "not_large_enough", "another_dimension", "negative"],
)
def test_phi_of_a_wide_state(x, phi, sink):
    """2e-6 of the value: the mean of 4,096 squares in float32."""
    found = sinkness(x[None, None], torch.tensor([[1415, 2533]]))
    close(found, [[phi]], 2e-6)
    assert bool(found >= VAR().tau) == sink


def test_phi_is_in_units_of_the_root_mean_square():
    x = state(d2533=60.0)
    assert float(x.square().mean().sqrt()) == pytest.approx(1.370643, abs=1e-6)
    close(relative(x)[2533], 43.775077, 2e-6)
    close(relative(10 * x)[2533], 43.775077, 2e-6)


def test_phi_never_exceeds_the_root_of_the_width():
    """So that τ = 65 finds nothing in 4,096 dimensions, whatever the state."""
    lonely = torch.zeros(4096)
    lonely[3] = 1e4
    found = float(sinkness(lonely[None, None], torch.tensor([[3]])))
    assert found == pytest.approx(64, abs=1e-3)
    assert found < 65


def test_a_state_of_zeros_is_no_sink():
    assert float(sinkness(torch.zeros(1, 1, 8), torch.tensor([[0, 1]]))) == 0


def test_each_sample_has_its_own_sink_dimensions():
    x = torch.ones(2, 1, 4)
    x[:, 0, 1] = 9.0
    found = sinkness(x, torch.tensor([[1], [2]]))
    assert float(found[0]) == pytest.approx(9 / math.sqrt(21), abs=1e-5)
    assert float(found[1]) == pytest.approx(1 / math.sqrt(21), abs=1e-5)


def test_dimensions_are_read_off_the_first_real_token_of_each_row():
    """The second row is padded by one position, whose state must not be looked at."""
    hidden = torch.ones(2, 3, 16)
    hidden[0, 0, [4, 9]] = 30.0
    hidden[1, 0, [1, 2]] = 99.0  # padding
    hidden[1, 1, [7, 8]] = 30.0
    mask = torch.tensor([[1, 1, 1], [0, 1, 1]])
    found = VAR().phi(mask, hidden)
    high = 30 / math.sqrt((14 + 2 * 900) / 16)
    assert float(found[0, 0]) == pytest.approx(high, abs=1e-4)
    assert float(found[1, 1]) == pytest.approx(high, abs=1e-4)
    low = 1 / math.sqrt((14 + 2 * 9801) / 16)
    assert float(found[1, 0]) == pytest.approx(low, abs=1e-4)
    assert float(found[0, 1]) == pytest.approx(1, abs=1e-5)


# ---------------------------------------------------------------------- settings


def test_the_defaults_are_the_papers_and_official_is_the_released_code():
    assert VAR() == VAR(0.6, 0.5, 0.2, 20.0, None, 2, True, False)
    assert VAR.official() == VAR(move=0.4, skip_last=False, require_visual_sink=True)


@pytest.mark.parametrize("move", [-0.1, 1.1, math.nan])
def test_a_share_outside_zero_to_one_is_refused(move):
    with pytest.raises(ValueError, match="is outside 0 to 1"):
        VAR(move=move)
