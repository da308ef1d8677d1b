"""The penalty and the reward of HELPD's decoding, in numbers from its specification."""

import pytest
import torch

from veridical.decoders.helpd import HELPD, text_penalty, vision_reward
from veridical.pipelines.inputs.rows import extended

TEXT = torch.tensor([[0.5, 0.0, 0.0], [0.4, 0.3, 0.0], [0.6, 0.1, 0.2]])
IMAGE = torch.tensor([[0.2, 0.1], [0.3, 0.1], [0.1, 0.4]])


def close(found, expected, tolerance=1e-6):
    torch.testing.assert_close(found.double(), torch.tensor(expected, dtype=torch.float64), rtol=tolerance, atol=1e-9)


def test_unscaled_column_products_and_their_largest():
    """0.12, 0.03 and 0.2: the newest token's own column wins."""
    close(text_penalty(TEXT, scale=1, factor=1), 0.2)


def test_the_scale_changes_the_winner_because_columns_have_different_lengths():
    """1.5e-3, 7.5e-6 and 1e-6: the first column wins."""
    close(text_penalty(TEXT), 1.5e-3)


@pytest.mark.parametrize(("column", "unscaled", "scaled"), [(0, 0.12, 1.5e-3), (1, 0.03, 7.5e-6), (2, 0.2, 1e-6)])
def test_the_product_of_each_column(column, unscaled, scaled):
    """The other columns' entries are taken away, so that theirs are 0."""
    alone = torch.zeros(3, 3)
    alone[:, column] = TEXT[:, column]
    close(text_penalty(alone, scale=1, factor=1), unscaled)
    close(text_penalty(alone), scaled)


def test_a_column_has_the_rows_from_its_own_on():
    """Entries above the diagonal have no say."""
    noisy = TEXT + torch.ones(3, 3).triu(1)
    close(text_penalty(noisy), float(text_penalty(TEXT)))


def test_the_reward_is_a_sum_over_image_tokens_of_products_over_rows():
    close(vision_reward(IMAGE, scale=1, factor=1), 0.006 + 0.004)


@pytest.mark.parametrize(("beta", "rho"), [(1.0, 0.19), (10.0, 0.10), (0.0, 0.2)])
def test_the_reward_is_taken_off_the_penalty(beta, rho):
    close(text_penalty(TEXT, 1, 1) - beta * vision_reward(IMAGE, 1, 1), rho)


def test_direct_products_agree_with_those_of_logarithms():
    generator = torch.Generator().manual_seed(0)
    text, image = torch.rand(5, 4, 4, generator=generator), torch.rand(5, 4, 7, generator=generator)
    direct = torch.stack([(50 * text[:, j:, j]).prod(1) for j in range(4)], 1).amax(1) * 1e-7
    close(text_penalty(text), direct.tolist(), 1e-5)
    close(vision_reward(image), (1e-7 * (100 * image).prod(1).sum(1)).tolist(), 1e-5)


def test_more_attention_to_the_image_never_raises_the_penalty_and_more_to_the_winner_never_lowers_it():
    decoder = HELPD(first_tokens="vep")
    rho = lambda text, image: float(decoder.penalty(text[None], image[None], 3))
    for i in range(3):
        for k in range(2):
            more = IMAGE.clone()
            more[i, k] += 0.1
            assert rho(TEXT, more) <= rho(TEXT, IMAGE)
        text = TEXT.clone()
        text[i, 0] += 0.1
        assert rho(text, IMAGE) >= rho(TEXT, IMAGE)


def test_without_a_reward_it_is_the_penalty_of_opera():
    decoder = HELPD(vision_weight=0.0)
    close(decoder.penalty(TEXT[None], IMAGE[None], 11), [1.5e-3])


def test_the_first_ten_tokens_are_rewarded_for_the_newest_rows_attention_to_the_image():
    """Attention of 0.1 and 0.3 gains 0.4; the older rows have no say."""
    window = torch.tensor([[0.9, 0.0], [0.1, 0.3]])
    for new in (1, 10):
        close(HELPD().penalty(torch.eye(2)[None], window[None], new), [-0.4])
    vep = HELPD(first_tokens="vep").penalty(torch.eye(2)[None], window[None], 2)
    assert torch.equal(HELPD().penalty(torch.eye(2)[None], window[None], 11), vep)
    assert float(vep) != pytest.approx(-0.4)


def test_no_attention_at_all_is_a_product_of_zero_and_a_long_window_stays_finite():
    assert float(text_penalty(torch.zeros(3, 3))) == 0
    assert float(vision_reward(torch.zeros(3, 2))) == 0
    for products in (text_penalty(torch.ones(300, 300)), vision_reward(torch.ones(300, 4))):
        assert products.isfinite()


def test_prompts_grow_by_the_candidates():
    inputs = {
        "input_ids": torch.tensor([[0, 1, 3]]),
        "attention_mask": torch.tensor([[0, 1, 1]]),
        "token_type_ids": torch.tensor([[0, 0, 0]]),
        "mm_token_type_ids": torch.tensor([[0, 0, 1]]),
        "pixel_values": torch.ones(1, 3, 2, 2),
    }
    out = extended(inputs, torch.tensor([[8, 9]]))
    assert out["input_ids"].tolist() == [[0, 1, 3, 8, 9]]
    assert out["attention_mask"].tolist() == [[0, 1, 1, 1, 1]]
    assert out["token_type_ids"].tolist() == [[0, 0, 0, 1, 1]]
    assert out["mm_token_type_ids"].tolist() == [[0, 0, 1, 0, 0]]
    assert out["pixel_values"] is inputs["pixel_values"]


def test_the_released_scripts_run_operas_penalty():
    assert HELPD.official() == HELPD(vision_weight=0.0, window=512)


def test_nothing_is_claimed_that_is_not_known():
    for words in ("could not be", "Left out", "rollback", "training"):
        assert words in HELPD.__doc__.replace("\n    ", " ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": -1}, "weight=-1 is below 0"),
        ({"candidates": 0}, "candidates=0 is below 1"),
        ({"window": 0}, "window=0 is below 1"),
        ({"window": 2.5}, "window=2.5 is no whole number"),
        ({"candidates": 2.5}, "candidates=2.5 is no whole number"),
        ({"first_tokens": "all"}, "first_tokens='all' is none of 'opera', 'vep'"),
    ],
)
def test_values_outside_their_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        HELPD(**options)
