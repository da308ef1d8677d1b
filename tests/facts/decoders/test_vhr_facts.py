"""VHR's choice of heads and their reinforcement, in numbers from its specification.

1e-6 unless said: the specification gives six decimals, float32 keeps seven digits.
"""

import math
from types import SimpleNamespace

import pytest
import torch

from veridical.decoders import vhr
from veridical.decoders.vhr import VHR, choose_heads, default_layers, divergence, reinforce

WITH_IMAGE = [[1.0, 0.0], [0.0, 3.0], [2.0, 2.0], [0.0, 1.0]]
WITHOUT_IMAGE = [[1.0, 1.0], [0.0, 0.0], [2.0, 2.0], [6.0, 9.0]]


def heads(values):
    return torch.tensor([values])  # batch head head_dim


def chosen(with_image, without_image, **options):
    return choose_heads(heads(with_image), heads(without_image), **options)[0].nonzero().flatten().tolist()


def with_scores(vhd, strength):
    """Heads of two dimensions with the given divergences and squared image-free norms."""
    without_image = [[math.sqrt(s), 0.0] for s in strength]
    return [[a, v] for (a, _), v in zip(without_image, vhd, strict=True)], without_image


# ---------------------------------------------------------------------- divergence and choice


def test_divergence_is_the_euclidean_distance_and_not_its_square():
    assert divergence(heads(WITH_IMAGE), heads(WITHOUT_IMAGE))[0].tolist() == [1.0, 3.0, 0.0, 10.0]


def test_vhr_chooses_the_heads_that_change_most_when_the_image_is_taken_away():
    """Without the filter: median 2 of [1, 3, 0, 10]; heads 1 and 3 are above."""
    assert chosen(WITH_IMAGE, WITHOUT_IMAGE, outlier_filter=False) == [1, 3]


def test_a_head_that_is_large_without_the_image_too_is_no_evidence():
    """Head 3: 10 > 8.0092 and 117 > 88.685. Zeroed, the median is 0.5 and heads 0 and 1 are above."""
    assert chosen(WITH_IMAGE, WITHOUT_IMAGE) == [0, 1]


def test_thresholds_take_the_sample_deviation():
    vhd, strength = torch.tensor([1.0, 3.0, 0.0, 10.0]), torch.tensor([2.0, 0.0, 8.0, 117.0])
    assert float(vhd.mean() + vhd.std()) == pytest.approx(8.0092, abs=5e-5)
    assert float(strength.mean() + strength.std()) == pytest.approx(88.685, abs=5e-4)
    population = [float(values.mean() + values.std(unbiased=False)) for values in (vhd, strength)]
    assert population == pytest.approx([7.4051, 81.057], abs=5e-4)


def test_the_sample_deviation_makes_a_difference():
    """4.4 lies between the population line, 4.2048, and the sample line, 4.5304: no outlier, so that it is chosen."""
    vhd = [0.0, 0.0, 4.0, 4.4]
    values = torch.tensor(vhd)
    assert float(values.mean() + values.std(unbiased=False)) == pytest.approx(4.2048, abs=5e-5)
    assert float(values.mean() + values.std()) == pytest.approx(4.5304, abs=5e-5)
    assert chosen(*with_scores(vhd, [0.0, 0.0, 0.0, 100.0])) == [2, 3]


def test_plain_and_squared_distances_filter_differently():
    """VHD [1×6, 4.5, 6]: the plain line, 4.0703, zeroes heads 6 and 7, and nothing exceeds the median of 1. Squared
    distances would keep head 6 (20.25 against 21.0245)."""
    vhd, strength = [1.0] * 6 + [4.5, 6.0], [1.0] * 6 + [9.0, 9.0]
    assert float(torch.tensor(vhd).mean() + torch.tensor(vhd).std()) == pytest.approx(4.0703, abs=5e-5)
    squared = torch.tensor(vhd).square()
    assert float(squared.mean() + squared.std()) == pytest.approx(21.0245, abs=5e-5)
    with_image, without_image = with_scores(vhd, strength)
    assert chosen(with_image, without_image) == []
    assert chosen(with_image, without_image, outlier_filter=False) == [6, 7]


@pytest.mark.parametrize(
    ("vhd", "strength", "expected"),
    [
        ([1.0, 3.0, 0.0, 10.0], [0.0, 0.0, 0.0, 0.0], [1, 3]),  # large divergence alone
        ([1.0, 3.0, 0.0, 2.0], [0.0, 0.0, 0.0, 117.0], [1, 3]),  # large image-free output alone
        ([1.0, 3.0, 0.0, 10.0], [0.0, 0.0, 0.0, 117.0], [0, 1]),  # both
    ],
    ids=["divergence_alone", "strength_alone", "both"],
)
def test_an_outlier_must_be_one_in_both(vhd, strength, expected):
    assert chosen(*with_scores(vhd, strength)) == expected


def test_the_detector_files_last_example_keeps_head_two():
    """Its image-free output is zero, so the joint filter keeps it: heads 0 and 2 are above the median of 1.914214."""
    with_image = [[1.0, 2.0, 2.0], [0.0, 0.0, 1.0], [3.0, 0.0, 4.0], [1.0, 1.0, 1.0]]
    without_image = [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 0.0]]
    vhd = divergence(heads(with_image), heads(without_image))[0]
    torch.testing.assert_close(vhd, torch.tensor([2.828427, 0.0, 5.0, 1.0]), rtol=0, atol=1e-6)
    assert float(vhd.mean() + vhd.std()) == pytest.approx(4.406707, abs=1e-6)
    assert float(vhd.quantile(0.5)) == pytest.approx(1.914214, abs=1e-6)
    assert chosen(with_image, without_image) == [0, 2]


def test_the_median_is_taken_after_zeroing_and_is_the_mean_of_the_two_in_the_middle():
    """[1, 3, 0, 0]: 0.5. The lower one, 0, would choose the same; the upper one, 1, head 1 alone."""
    assert chosen(WITH_IMAGE, WITHOUT_IMAGE) == [0, 1]
    assert chosen(*with_scores([1.0, 2.0, 3.0, 4.0], [0.0] * 4)) == [2, 3]


def test_identical_contexts_choose_no_head():
    assert chosen(WITH_IMAGE, WITH_IMAGE) == []
    assert chosen(WITH_IMAGE, WITH_IMAGE, outlier_filter=False) == []


def test_a_head_with_score_zero_is_never_chosen():
    assert chosen(*with_scores([0.0, 0.0, 0.0, 0.0, 5.0], [0.0] * 5)) == [4]


def test_a_lone_head_has_no_deviation_and_is_not_chosen():
    assert chosen([[1.0, 2.0]], [[0.0, 0.0]]) == []


@pytest.mark.parametrize("count", [2, 8, 32])
def test_half_of_the_heads_are_chosen_when_scores_are_distinct(count):
    generator = torch.Generator().manual_seed(count)
    with_image, without_image = (torch.randn(5, count, 4, generator=generator) for _ in range(2))
    assert (choose_heads(with_image, without_image, outlier_filter=False).sum(1) == count // 2).all()


def test_samples_choose_each_for_itself():
    with_image, without_image = torch.tensor([WITH_IMAGE, WITHOUT_IMAGE]), torch.tensor([WITHOUT_IMAGE, WITHOUT_IMAGE])
    assert choose_heads(with_image, without_image).tolist() == [[True, True, False, False], [False] * 4]


# ---------------------------------------------------------------------- reinforcement


def test_vhr_reinforces_the_chosen_heads_and_leaves_the_others():
    """[1, 2 | 3, 4] with head 1 doubled."""
    given = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])  # batch query head head_dim
    assert reinforce(given, torch.tensor([[False, True]]), 2.0).flatten().tolist() == [1.0, 2.0, 6.0, 8.0]


def test_reinforcement_acts_on_every_position_of_the_samples_own_heads():
    given = torch.ones(2, 3, 2, 1)
    out = reinforce(given, torch.tensor([[True, False], [False, True]]), 3.0)
    assert out[0, :, :, 0].tolist() == [[3.0, 1.0]] * 3
    assert out[1, :, :, 0].tolist() == [[1.0, 3.0]] * 3


def test_what_reinforcement_adds_is_alpha_minus_one_times_the_chosen_heads():
    generator = torch.Generator().manual_seed(0)
    given, weight = torch.randn(1, 2, 4, 3, generator=generator), torch.randn(12, 5, generator=generator)
    mask = torch.tensor([[True, False, True, False]])
    added = reinforce(given, mask, 2.5).flatten(2) @ weight - given.flatten(2) @ weight
    expected = 1.5 * (given * mask[:, None, :, None]).flatten(2) @ weight
    torch.testing.assert_close(added, expected, rtol=0, atol=1e-5)


def test_a_gain_of_one_and_no_chosen_head_leave_the_heads_to_the_last_bit():
    given = torch.randn(1, 2, 4, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(reinforce(given, torch.ones(1, 4, dtype=torch.bool), 1.0), given)
    assert torch.equal(reinforce(given, torch.zeros(1, 4, dtype=torch.bool), 9.0), given)


def test_reinforcing_a_head_turns_the_sum_of_heads_toward_it():
    """The example, 0 to 0.70711, and 2,000 random trials."""
    cosine = torch.nn.functional.cosine_similarity

    def turned(x, y, alpha):
        """x: the sum of two heads of which the second is y."""
        two = torch.stack([x - y, y], 1)[:, None]  # batch query head head_dim
        second = torch.tensor([[False, True]]).expand(x.shape[0], -1)
        return cosine(reinforce(two, second, alpha).sum(2)[:, 0], y, dim=1)

    x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert float(cosine(x, y)) == 0
    assert float(turned(x, y, 2.0)) == pytest.approx(0.70711, abs=1e-5)
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(2000, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    for alpha in (1.1, 2.0, 4.0):
        assert (turned(x, y, alpha) > cosine(x, y, dim=1)).all()


# ---------------------------------------------------------------------- layers and settings


@pytest.mark.parametrize(
    ("count", "expected"),
    [(32, (1, *range(18, 32))), (28, (1, *range(14, 28))), (40, (1, *range(26, 40))), (8, (1, 4, 5, 6, 7)), (1, (0,))],
)
def test_the_second_layer_and_the_last_fourteen(count, expected):
    """Fewer, in proportion, where a model has under 28 layers."""
    assert default_layers(count) == expected


def test_the_defaults_are_the_papers():
    assert VHR() == VHR(alpha=2.0, layers=None, outlier_filter=True)


@pytest.mark.parametrize("alpha", [0.0, -1.0, math.nan])
def test_a_gain_that_is_not_positive_is_refused(alpha):
    with pytest.raises(ValueError, match="alpha="):
        VHR(alpha=alpha)


# ---------------------------------------------------------------------- in a model


@pytest.fixture(scope="module")
def tiny():
    import veridical

    from ...parity.tiny import batch, prompt, tiny_llava

    model = tiny_llava(8, 2)
    return veridical.LVLM(model), batch([prompt(model, 3, 5, 1), prompt(model, 1, 7, 2)])


def test_heads_are_chosen_once_per_layer_and_not_again_while_decoding(tiny, monkeypatch):
    import veridical

    calls, inner = [], vhr.choose_heads
    monkeypatch.setattr(vhr, "choose_heads", lambda *given: calls.append(given) or inner(*given))
    veridical.generate(*tiny, [VHR(layers=(2, 5, 6))], max_new_tokens=4, do_sample=False)
    assert len(calls) == 3
    assert all(one.shape == (2, 8, 8) for one, *_ in calls), "batch, head, head_dim: the last position alone"


def test_the_image_free_prompt_is_the_prompt_without_its_image_tokens(tiny):
    """Left-padded; every row is 16 image tokens shorter, and what is left keeps its order."""
    lvlm, inputs = tiny
    free = lvlm.image_free(inputs)
    for row in range(2):
        mask = inputs["attention_mask"][row].bool()
        words = inputs["input_ids"][row][mask & ~lvlm.image_mask(inputs["input_ids"][row])]
        kept = free["input_ids"][row][free["attention_mask"][row].bool()]
        assert torch.equal(kept, words)
        assert len(kept) == int(mask.sum()) - 16
        assert bool(free["attention_mask"][row, -1])
    assert "pixel_values" not in free


# ---------------------------------------------------------------------- what the paper leaves open


def test_squared_distances_filter_less():
    """VHD = [1×6, 4.5, 6], ‖without‖² = [1×6, 9, 9]: squared, the 4.5 stays below 21.0 and is chosen."""
    without_image = torch.tensor([[[1.0, 0.0]] * 6 + [[3.0, 0.0]] * 2])
    with_image = without_image + torch.tensor([[[0.0, 1.0]] * 6 + [[0.0, 4.5], [0.0, 6.0]]])
    plain, squared = (choose_heads(with_image, without_image, squared=flag)[0].tolist() for flag in (False, True))
    assert plain == [False] * 8
    assert squared == [False] * 6 + [True, False]


def test_the_population_deviation_has_lower_thresholds():
    """VHD = [0, 0, 2, 2.1]: mean + σ is 2.209 by n − 1 and 2.051 by n, so that 2.1 is an outlier by the latter alone.

    ‖without‖² = [0, 0, 0, 4]: 3 by n − 1, 2.732 by n.
    """
    without_image = torch.tensor([[[0.0, 0.0]] * 3 + [[2.0, 0.0]]])
    with_image = without_image + torch.tensor([[[0.0, 0.0], [0.0, 0.0], [0.0, 2.0], [0.0, 2.1]]])
    assert choose_heads(with_image, without_image, deviation="sample")[0].tolist() == [False, False, True, True]
    assert choose_heads(with_image, without_image, deviation="population")[0].tolist() == [False, False, True, False]


def test_the_image_free_side_is_reinforced_or_not_while_choosing():
    """Two rows, with and without the image: head 1 changes more than the median and is doubled."""
    heads = torch.tensor([[[[1.0], [5.0]]], [[[1.0], [2.0]]]])  # row query head head_dim
    call = SimpleNamespace(layer=0, of=lambda values, like: values.repeat(2, 1))
    both, one = (VHR(reinforce_blind=flag).choose({}, heads, call) for flag in (True, False))
    assert both.flatten().tolist() == [1, 10, 1, 4]
    assert one.flatten().tolist() == [1, 10, 1, 2]


def test_an_unknown_deviation_is_refused():
    with pytest.raises(ValueError, match="deviation='robust' is none of 'sample', 'population'"):
        VHR(deviation="robust")
