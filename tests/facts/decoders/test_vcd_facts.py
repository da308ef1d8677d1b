"""VCD's contrast, cut and noise, and the sign of each, in numbers from its specification.

1e-6 unless said: the specification gives six decimals, float32 keeps seven digits.
"""

import math

import pytest
import torch

from veridical.decoders.plausibility import cut
from veridical.decoders.vcd import VCD, contrast, diffuse, diffused, noise_scale
from veridical.pipelines.engine.declarations import Branch, LogitsEdit, Step

SEEN = [2.0, 1.5, 0.0, -1.0]
OTHER = [2.5, 0.5, 1.0, -4.0]


def row(*values):
    return torch.tensor([list(values)])


def close(found, expected, tolerance=1e-6):
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(found.double().reshape(expected.shape), expected, rtol=tolerance, atol=tolerance)


# ---------------------------------------------------------------------- the contrast


def test_vcd_pushes_away_from_the_noised_image():
    """A token that the noised image finds likelier loses, one that it finds less likely gains."""
    seen = row(1.0, 1.0, 1.0)
    mixed = contrast(seen, row(2.0, 1.0, 0.0), alpha=1.0)
    close(mixed, [0.0, 1.0, 2.0])
    assert int(mixed.argmax()) == 2
    mixed = VCD(beta=0).mix(seen, Step(branches={"vcd": row(2.0, 1.0, 0.0)}))
    assert int(mixed.argmax()) == 2


def test_the_contrast_of_the_overview_figure_flips_the_answer():
    seen, other = row(28.01, 27.10), row(21.43, 19.04)
    close(contrast(seen, other, 2.5), [44.46, 47.25])
    assert int(seen.argmax()) == 0
    assert int(contrast(seen, other, 2.5).argmax()) == 1


def test_a_stronger_contrast_is_further_from_the_noised_image():
    distance = [float((contrast(row(*SEEN), row(*OTHER), a) - row(*OTHER)).norm()) for a in (0, 1, 2.5, 3)]
    assert distance == sorted(distance)


@pytest.mark.parametrize(("alpha", "expected"), [(2.5, [0.75, 4.0, -2.5, 6.5]), (3.0, [0.5, 4.5, -3.0, 8.0])])
def test_the_worked_contrast_before_the_cut(alpha, expected):
    close(contrast(row(*SEEN), row(*OTHER), alpha), expected)


def test_alpha_zero_leaves_the_logits():
    assert torch.equal(contrast(row(*SEEN), row(*OTHER), 0.0), row(*SEEN))


def test_equal_branches_leave_the_logits_whatever_alpha():
    for alpha in (0.5, 1.0, 2.0):  # exact in binary
        assert torch.equal(contrast(row(*SEEN), row(*SEEN), alpha), row(*SEEN))


def test_contrasting_logits_or_log_probabilities_gives_the_same_distribution():
    raw = contrast(row(*SEEN), row(*OTHER), 2.5)
    logs = contrast(row(*SEEN).log_softmax(1), row(*OTHER).log_softmax(1), 2.5)
    close(raw.softmax(1), logs.softmax(1))


def test_the_contrast_of_the_rebalancing_placeholder_with_a_zero():
    """rbd.md, fact 4."""
    close(contrast(row(*SEEN), row(1.0, 2.0, 0.0, -1.0), 1.0), [3.0, 1.0, 0.0, -1.0])


# ---------------------------------------------------------------------- the cut


@pytest.mark.parametrize(
    ("alpha", "expected"), [(2.5, [0.75, 4.0, -2.5, -math.inf]), (3.0, [0.5, 4.5, -3.0, -math.inf])]
)
def test_the_cut_removes_what_the_image_finds_implausible(alpha, expected):
    """l's largest is 2, so the line is 2 + ln 0.1 = −0.302585; the fourth token, at −1, goes."""
    found = VCD(alpha=alpha).mix(row(*SEEN), Step(branches={"vcd": row(*OTHER)}))
    close(found, expected)


def test_the_cut_saves_the_worked_example_from_its_least_plausible_token():
    mixed = contrast(row(*SEEN), row(*OTHER), 2.5)
    assert int(mixed.argmax()) == 3
    close(mixed.softmax(1)[0, 3], 0.921327)
    close(cut(mixed, row(*SEEN), 0.1).softmax(1), [0.037273, 0.961282, 0.001445, 0.0])


def test_the_cut_judges_by_the_image_and_not_by_the_contrast():
    """The token with the largest contrast goes, the one with the smallest stays."""
    kept = cut(row(-5.0, 9.0), row(3.0, 0.0), 0.1)
    assert kept.tolist() == [[-5.0, -math.inf]]


def test_beta_one_leaves_the_images_own_choice_whatever_alpha():
    for alpha in (0.0, 1.0, 50.0):
        found = VCD(alpha=alpha, beta=1.0).mix(row(*SEEN), Step(branches={"vcd": row(*OTHER)}))
        assert found.isfinite().tolist() == [[True, False, False, False]]


def test_beta_zero_cuts_nothing():
    mixed = row(*OTHER)
    assert cut(mixed, row(0.0, -1e9, 0.0, -math.inf), 0.0) is mixed


def test_a_tie_with_the_line_stays():
    """max + ln 1 is the maximum itself, exactly; the second token reaches it."""
    assert cut(row(7.0, 8.0, 9.0), row(2.0, 2.0, 1.0), 1.0).tolist() == [[7.0, 8.0, -math.inf]]


def test_the_cut_is_a_share_of_the_largest_probability():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(50, 40, generator=generator)
    p = logits.softmax(1)
    kept = cut(logits, logits, 0.1).isfinite()
    assert torch.equal(kept, p >= 0.1 * p.max(1, keepdim=True).values)


def test_rows_are_cut_each_by_its_own_line():
    found = cut(torch.zeros(2, 2), torch.tensor([[0.0, -1.0], [0.0, -3.0]]), 0.1)
    assert found.isfinite().tolist() == [[True, True], [True, False]]


# ---------------------------------------------------------------------- the noise


@pytest.mark.parametrize(
    ("step", "keep", "spread"),
    [(500, 0.863017, 0.505175), (700, 0.592677, 0.805440), (900, 0.364888, 0.931051), (999, 0.285043, 0.958515)],
)
def test_the_noise_schedule(step, keep, spread):
    """The specification's figures come from a float32 product of up to 1,000 factors; ours is float64."""
    assert noise_scale(step) == pytest.approx((keep, spread), abs=1e-6)


def test_noise_grows_with_the_step_and_the_squares_add_up_to_one():
    """To 1e-12, in float64. Step 0 is one step of noise already: t counts from 0 and ᾱ_t includes it."""
    scales = [noise_scale(step) for step in range(0, 1000, 37)]
    assert [keep for keep, _ in scales] == sorted((keep for keep, _ in scales), reverse=True)
    assert all(keep**2 + spread**2 == pytest.approx(1, abs=1e-12) for keep, spread in scales)
    first = (0.005 - 1e-5) / (1 + math.exp(6)) + 1e-5
    assert noise_scale(0)[0] == pytest.approx(math.sqrt(1 - first), abs=1e-12)


@pytest.mark.parametrize("step", [-1, 1000, 5000])
def test_a_step_outside_the_schedule_is_refused(step):
    with pytest.raises(ValueError, match=f"noise_step={step} is outside 0 to 999"):
        noise_scale(step)
    with pytest.raises(ValueError, match=f"noise_step={step} is outside 0 to 999"):
        VCD(noise_step=step)


def test_diffused_pixels_keep_a_share_of_the_image_and_add_the_same_noise():
    """The difference of two images under one seed is that of the pixels times √ᾱ."""
    dark, light = torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)
    shift = diffuse(light, 500, 3) - diffuse(dark, 500, 3)
    close(shift, torch.full((1, 3, 8, 8), 0.863017), 1e-5)


def test_the_noise_is_spread_as_the_schedule_says():
    """49,152 draws: the deviation is known to 0.3 %, four standard errors are 0.013 of it."""
    noise = diffuse(torch.zeros(1, 3, 128, 128), 999, 1)
    assert float(noise.std()) == pytest.approx(0.958515, rel=0.013)
    assert abs(float(noise.mean())) < 0.018


def test_the_same_seed_is_the_same_noise_and_another_seed_another():
    pixels = torch.zeros(1, 3, 8, 8)
    assert torch.equal(diffuse(pixels, 500, 4), diffuse(pixels, 500, 4))
    assert not torch.allclose(diffuse(pixels, 500, 4), diffuse(pixels, 500, 5))


def test_an_images_noise_does_not_depend_on_its_place_in_the_batch():
    pixels = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for place in range(3):
        assert torch.equal(diffuse(pixels, 500, 4)[place], diffuse(pixels[place : place + 1], 500, 4)[0])


def test_pixels_keep_their_type():
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert diffuse(torch.zeros(1, 3, 4, 4, dtype=dtype), 500).dtype == dtype


def test_flattened_patches_are_noised_image_by_image():
    """Qwen's layout: two images of 2×2 and 2×3 patches; each gets what it would get alone."""
    patches = torch.randn(10, 12, generator=torch.Generator().manual_seed(0))
    both = {"pixel_values": patches, "image_grid_thw": torch.tensor([[1, 2, 2], [1, 2, 3]])}
    found = diffused(both, 500, 4)["pixel_values"]
    for rows, grid in ((slice(0, 4), [[1, 2, 2]]), (slice(4, 10), [[1, 2, 3]])):
        alone = {"pixel_values": patches[rows], "image_grid_thw": torch.tensor(grid)}
        assert torch.equal(found[rows], diffused(alone, 500, 4)["pixel_values"])


def test_vcd_declares_a_branch_with_noised_pixels_and_the_same_words_and_then_the_contrast():
    inputs = {"input_ids": torch.tensor([[1, 2]]), "pixel_values": torch.ones(1, 3, 4, 4)}
    branch, edit = VCD().edits(None, inputs)
    assert isinstance(branch, Branch)
    assert isinstance(edit, LogitsEdit)
    assert torch.equal(branch.inputs["input_ids"], inputs["input_ids"])
    assert torch.equal(branch.inputs["pixel_values"], diffuse(inputs["pixel_values"], 500, 0))
    assert torch.equal(inputs["pixel_values"], torch.ones(1, 3, 4, 4))


def test_the_defaults_are_the_papers():
    assert VCD() == VCD(alpha=1.0, beta=0.1, noise_step=500, seed=0)
