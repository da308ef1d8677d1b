"""AVC's layer choice, blind tokens, blanking and contrast, in numbers from its specification."""

import math
from types import SimpleNamespace

import pytest
import torch

from veridical.decoders.avc import AVC, blind_tokens, choose_layers, find_blind
from veridical.decoders.contrast import contrast
from veridical.decoders.image_tokens import adds_image_later, blank_branch, hide, image_tokens, overwrite, place
from veridical.pipelines.engine.call import LayerCall, Sequences
from veridical.pipelines.engine.declarations import Step


def row(*values):
    return torch.tensor([list(values)])


def close(found, expected, tolerance=1e-5):
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(found.double().reshape(expected.shape), expected, rtol=tolerance, atol=tolerance)


def where(mask):
    return mask[0].nonzero().flatten().tolist()


# ---------------------------------------------------------------------- contrast and cut


def test_the_contrast_of_the_overview_figure_flips_the_answer():
    z = contrast(row(28.01, 27.10), row(21.43, 19.04), AVC().alpha)
    close(z, [44.46, 47.25])
    assert int(z.argmax()) == 1


@pytest.mark.parametrize(
    ("alpha", "expected"), [(2.5, [0.75, 4.0, -2.5, -math.inf]), (3.0, [0.5, 4.5, -3.0, -math.inf])]
)
def test_the_cut_takes_the_fourth_token(alpha, expected):
    z = AVC(alpha=alpha).mix(row(2.0, 1.5, 0.0, -1.0), Step(branches={"avc": row(2.5, 0.5, 1.0, -4.0)}))
    close(z, expected)
    if alpha == 2.5:
        close(z.softmax(1), [0.037273, 0.961282, 0.001445, 0.0])


def test_without_a_cut_the_fourth_token_would_win():
    z = AVC(beta=0).mix(row(2.0, 1.5, 0.0, -1.0), Step(branches={"avc": row(2.5, 0.5, 1.0, -4.0)}))
    close(z[0, 3], 6.5)
    close(z.softmax(1)[0, 3], 0.921327)


def test_alpha_zero_leaves_the_logits_and_beta_one_the_models_own_choice():
    logits, other = row(2.0, 1.5, 0.0, -1.0), row(2.5, 9.0, 1.0, -4.0)
    assert torch.equal(AVC(alpha=0, beta=0).mix(logits, Step(branches={"avc": other})), logits)
    for alpha in (0.0, 2.5, 50.0):
        z = AVC(alpha=alpha, beta=1).mix(logits, Step(branches={"avc": other}))
        assert z.isfinite().tolist() == [[True, False, False, False]]


def test_equal_branches_leave_the_logits():
    logits = row(2.0, 1.5, 0.25, -1.0)
    assert torch.equal(AVC(alpha=2.5, beta=0).mix(logits, Step(branches={"avc": logits})), logits)


def test_a_sample_whose_branch_is_no_number_keeps_its_logits_and_others_do_not():
    logits = torch.tensor([[2.0, 1.0], [2.0, 1.0]])
    z = AVC(alpha=1, beta=0).mix(logits, Step(branches={"avc": torch.tensor([[math.nan, 0.0], [0.0, 4.0]])}))
    assert z.tolist() == [[2.0, 1.0], [4.0, -2.0]]


def test_logits_and_log_probabilities_give_the_same_distribution():
    logits, other = row(2.0, 1.5, 0.0, -1.0), row(2.5, 0.5, 1.0, -4.0)
    logs = contrast(logits.log_softmax(1), other.log_softmax(1), 2.5)
    close(contrast(logits, other, 2.5).softmax(1), logs.softmax(1))


# ---------------------------------------------------------------------- layers


@pytest.mark.parametrize(
    ("gamma", "expected"), [(0.0, [0]), (0.3, [0]), (0.5, [0, 2]), (0.8, [0, 1, 2]), (1.0, [0, 1, 2, 3])]
)
def test_layers_are_taken_until_their_share_reaches_gamma(gamma, expected):
    assert where(choose_layers(row(0.9, 0.3, 0.6, 0.2), gamma)) == expected


def test_a_share_of_exactly_gamma_is_enough():
    """Numbers exact in binary, as settled choice 16 asks."""
    assert where(choose_layers(row(0.5, 0.25, 0.125, 0.125), 0.5)) == [0]


def test_no_more_layers_than_there_are():
    generator = torch.Generator().manual_seed(0)
    masses = torch.rand(50, 7, generator=generator)
    assert (choose_layers(masses, 1.0).sum(1) <= 7).all()
    assert (choose_layers(torch.zeros(1, 7), 0.5).sum(1) <= 7).all()


# ---------------------------------------------------------------------- blind tokens


ATTENTION = row(0.01, 0.02, 0.30, 0.01, 0.03, 0.02, 0.20, 0.01)
ALL = torch.ones(1, 8, dtype=torch.bool)


@pytest.mark.parametrize(
    ("lam", "expected"), [(1.0, [2, 6]), (1.2, [2]), (1.14, [2]), (100.0, []), (-100.0, list(range(8)))]
)
def test_blind_tokens_stand_out_by_lambda_sample_deviations(lam, expected):
    """λ = 1.14 tells n − 1 (0.202091, {2}) from n (0.193883, {2, 6})."""
    assert where(blind_tokens(ATTENTION, ALL, lam)) == expected


def test_the_thresholds_of_the_worked_row():
    mean, deviation = ATTENTION.mean(), ATTENTION.std()
    close(torch.stack([mean, deviation, mean + deviation]), [0.075, 0.111484, 0.186484])
    close(mean + 1.14 * deviation, 0.202091)
    close(mean + 1.14 * ATTENTION.std(unbiased=False), 0.193883)


def test_an_exact_tie_with_the_threshold_is_blind():
    assert where(blind_tokens(row(0.25, 0.25, 0.25, 0.25), ALL[:, :4], 3.0)) == [0, 1, 2, 3]


def test_half_precision_attention_is_measured_in_float32():
    small = (ATTENTION * 1e-4).half()
    assert where(blind_tokens(small, ALL, 1.0)) == [2, 6]


def test_a_sample_is_its_own_measure_whatever_is_beside_it():
    """The released code takes μ and σ over the batch."""
    beside = torch.cat([ATTENTION, 100 * ATTENTION.flip(1), row(*[0.9] * 8)])
    found = blind_tokens(beside, ALL.expand(3, -1), 1.0)
    assert [where(found[i : i + 1]) for i in range(2)] == [[2, 6], [1, 5]]


def test_tokens_that_only_fill_up_are_neither_counted_nor_blind():
    padded, real = torch.nn.functional.pad(ATTENTION, (0, 3), value=5.0), torch.nn.functional.pad(ALL, (0, 3))
    assert where(blind_tokens(padded, real, 1.0)) == [2, 6]


@pytest.mark.parametrize("gamma", [0.5, 0.9])
def test_the_worked_example_of_two_layers(gamma):
    """Last-row attention over six keys, image at 1 to 4; thresholds 0.283853 and 0.154613, blind image token 1."""
    heads = torch.tensor([
        [[0.10, 0.05, 0.40, 0.05, 0.10, 0.30], [0.20, 0.10, 0.30, 0.10, 0.10, 0.20]],
        [[0.70, 0.02, 0.02, 0.02, 0.04, 0.20], [0.60, 0.03, 0.03, 0.02, 0.02, 0.30]],
    ])  # fmt: skip
    image = torch.tensor([[False, True, True, True, True, False]])
    seen, real = image_tokens(heads.mean(1)[:, None], image)
    close(seen.sum(2), [[0.60], [0.10]])
    close(seen.sum(2)[:, 0] / seen.sum(), [0.857143, 0.142857])
    assert where(find_blind(seen, real, gamma, 1.0)) == [1]
    chosen = choose_layers(seen.sum(2).T, gamma)
    assert where(chosen) == ([0] if gamma == 0.5 else [0, 1])
    mean = seen[chosen[0]].mean(0)[0]
    close(mean, [0.075, 0.35, 0.075, 0.10] if gamma == 0.5 else [0.05, 0.1875, 0.0475, 0.065])
    close(mean.mean() + mean.std(), 0.283853 if gamma == 0.5 else 0.154613)


# ---------------------------------------------------------------------- places


IMAGE = torch.tensor([[0, 1, 0, 1, 1, 0], [0, 0, 0, 1, 0, 0]], dtype=torch.bool)


def sequences(image, sample, seen):
    return Sequences(image, torch.zeros_like(image), torch.tensor(sample), seen)


def test_image_tokens_are_collected_in_order_and_filled_up():
    values, real = image_tokens(torch.arange(12.0).view(2, 6), IMAGE)
    assert real.tolist() == [[True, True, True], [True, False, False]]
    assert values[0].tolist() == [1, 3, 4]
    assert float(values[1, 0]) == 9


def test_a_batch_without_an_image_has_nothing_to_blank():
    values, real = image_tokens(torch.ones(2, 2, 6), torch.zeros(2, 6, dtype=torch.bool))
    assert not real.any()
    assert not find_blind(values, real, 0.5, 1.0).any()


def test_tokens_find_their_place_by_their_order_in_any_layout_of_the_prompt():
    tokens = torch.tensor([[True, False, True], [True, False, False]])
    assert place(tokens, sequences(IMAGE, [0, 1], 6)).nonzero().tolist() == [[0, 1], [0, 4], [1, 3]]
    longer = torch.tensor([[1, 0, 0, 1, 1, 0, 0, 0]] * 2, dtype=torch.bool)  # beams of sample 0 in a longer prompt
    assert place(tokens, sequences(longer, [0, 0], 8)).nonzero().tolist() == [[0, 0], [0, 4], [1, 0], [1, 4]]


def test_blanking_touches_the_prompt_alone():
    blanked = torch.tensor([[True, False, True], [True, False, False]])
    hidden = torch.full((2, 8, 3), 7.0)  # an uncached pass: six prompt positions, two new ones
    call = LayerCall(0, sequences(IMAGE, [0, 1], 8))
    gone = (overwrite(blanked, lambda h, rows: torch.zeros_like(h), hidden, call) == 0).all(-1)
    assert gone.nonzero().tolist() == [[0, 1], [0, 4], [1, 3]]
    step = LayerCall(0, sequences(IMAGE, [0, 1], 9))
    assert torch.equal(overwrite(blanked, lambda h, rows: torch.zeros_like(h), hidden[:, :1], step), hidden[:, :1])


def test_hidden_tokens_have_no_attention():
    blanked = torch.tensor([[True, False, True], [True, False, False]])
    where_ = sequences(IMAGE, [0, 1], 6)
    call = SimpleNamespace(sequences=where_, columns=lambda prompt: prompt)
    attention = hide(blanked, torch.zeros(2, 2, 1, 6), call).softmax(-1)
    assert attention[0, 0, 0].tolist() == [0.25, 0, 0.25, 0.25, 0, 0.25]
    close(attention.sum(-1), torch.ones(2, 2, 1))


# ---------------------------------------------------------------------- models that add the image again


def model(**vision):
    config = SimpleNamespace(vision_config=SimpleNamespace(**vision))
    return SimpleNamespace(layers=range(4), model=SimpleNamespace(config=config))


def test_an_ordinary_model_is_blanked_at_its_input_alone():
    (edit,) = blank_branch(model(), "avc", torch.ones(1, 3, dtype=torch.bool), "zeros")
    assert (list(edit.layers), edit.at, edit.branch) == ([0], "input", "avc")
    assert not adds_image_later(model())


def test_what_later_layers_add_to_blanked_tokens_is_taken_away_again():
    """DeepStack (Qwen3-VL) adds image features between layers: what one block left is what the next one gets."""
    deep = model(deepstack_visual_indexes=[1, 2])
    assert adds_image_later(deep)
    blanked = torch.tensor([[True, False, True]])
    _, remember, restore = blank_branch(deep, "avc", blanked, "zeros")
    assert (list(remember.layers), remember.at) == ([0, 1, 2], "block")
    assert (list(restore.layers), restore.at) == ([1, 2, 3], "input")
    call = lambda layer: LayerCall(layer, sequences(IMAGE[:1], [0], 6))
    left = torch.arange(6.0)[None, :, None]
    assert remember.apply(left, call(0)) is left
    added = left + 100 * IMAGE[:1, :, None]
    assert restore.apply(added, call(1)).flatten().tolist() == [0, 1, 2, 103, 4, 5]


# ---------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": -1}, "alpha=-1 is below 0"),
        ({"beta": 2}, "beta=2 is outside 0 to 1"),
        ({"gamma": 1.5}, "gamma=1.5 is outside 0 to 1"),
        ({"blank": "grey"}, "blank='grey' is none of 'zeros', 'ones', 'noise', 'mask'"),
    ],
)
def test_values_outside_their_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        AVC(**options)


def test_the_released_scripts_have_another_strength():
    assert AVC.official() == AVC(alpha=1.0)
