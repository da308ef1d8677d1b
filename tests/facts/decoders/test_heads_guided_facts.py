"""Heads-guided attention's boost, in numbers from its specification (six decimals)."""

from types import SimpleNamespace

import pytest
import torch

import veridical
from veridical.decoders.guidance import boost
from veridical.decoders.heads_guided import HeadsGuided, raise_by_mean
from veridical.pipelines.engine.call import Sequences

SCORES = torch.tensor([[1.0, -2, 0.5, 0], [0.0, 1, -1.5, 2]]).view(1, 2, 1, 4)
IMAGE = torch.tensor([[False, True, True, False]])
ROW = torch.ones(1, 1, dtype=torch.bool)


def close(found, expected, tolerance=1e-6):
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(found.double().reshape(expected.shape), expected, rtol=tolerance, atol=tolerance)


def raised(alpha, scores=SCORES):
    return raise_by_mean(scores, IMAGE, ROW, alpha)


def test_image_scores_rise_by_the_mean_size_over_heads():
    close(raised(0.5), [[1, -1.25, 1.0, 0], [0, 1.75, -1.0, 2]])
    close(raised(1.0), [[1, -0.5, 1.5, 0], [0, 2.5, -0.5, 2]])


def test_the_attention_that_follows():
    close(SCORES.softmax(-1), [[0.494023, 0.024596, 0.299640, 0.181741], [0.088258, 0.239909, 0.019693, 0.652140]])
    close(raised(0.5).softmax(-1), [
        [0.404322, 0.042615, 0.404322, 0.148742], [0.068911, 0.396554, 0.025351, 0.509185],
    ])  # fmt: skip


def test_pai_adds_a_heads_own_size_and_is_something_else():
    own = boost(SCORES, 0.5 * IMAGE, ROW)
    close(own[:, 0], [1, -1, 0.75, 0])
    close(own[:, 0].softmax(-1), [0.438209, 0.059305, 0.341278, 0.161208])
    assert not torch.allclose(own, raised(0.5))


def test_it_is_the_mean_of_sizes_and_not_the_size_of_the_mean():
    close(raised(1.0)[0, 0, 0, 1] - SCORES[0, 0, 0, 1], 1.5)


def test_one_head_is_pai():
    alone = SCORES[:, :1]
    assert torch.equal(raised(0.5, alone), boost(alone, 0.5 * IMAGE, ROW))


def test_no_image_score_falls():
    assert bool((raised(0.5) >= SCORES).all())


def test_masked_scores_stay_and_add_nothing():
    masked = SCORES.clone()
    masked[..., 1] = torch.finfo(torch.float32).min
    found = raised(0.5, masked)
    assert torch.equal(found[..., 1], masked[..., 1])
    close(found[..., 2], [1.0, -1.0])


@pytest.mark.parametrize(
    ("count", "expected"),
    [(6, (0, 3)), (12, (1, 6)), (24, (3, 13)), (28, (4, 15)), (32, (5, 18)), (36, (5, 18)), (40, (5, 18))],
)
def test_layers_by_depth(count, expected):
    layers = next(HeadsGuided().edits(SimpleNamespace(layers=[None] * count), {})).layers
    assert (layers[0], layers[-1]) == expected


def test_rows_that_produce_tokens_are_edited_and_no_others():
    """A prompt of 4 positions and 2 tokens in one pass: the last prompt row and the new ones."""
    where = Sequences(IMAGE, torch.zeros_like(IMAGE), torch.zeros(1, dtype=torch.long), seen=6)
    image = torch.tensor([[False, True, True, False, False, False]])
    call = SimpleNamespace(sequences=where, image=image, query=torch.zeros(1))
    changed = HeadsGuided().edit(torch.ones(1, 2, 6, 6), call) - 1
    assert changed.abs().sum((0, 1, 3)).bool().tolist() == [False] * 3 + [True] * 3
    assert changed[0, 0, 5].tolist() == [0, 0.5, 0.5, 0, 0, 0]


def test_without_layers_it_is_plain_decoding_and_wrong_ones_are_refused(two_steps):
    with pytest.warns(veridical.pipelines.generate.NeverActed):
        assert torch.equal(two_steps(HeadsGuided(layers=())), two_steps())
    with pytest.raises(ValueError, match=r"HeadsGuided asks for layers \[8\], but this model's layers are 0 to 7"):
        two_steps(HeadsGuided(layers=(8,)))
    with pytest.raises(ValueError, match="alpha=-1 is below 0"):
        HeadsGuided(alpha=-1)


def test_the_defaults_are_the_papers():
    assert HeadsGuided() == HeadsGuided(alpha=0.5, layers=None) == HeadsGuided.official()
