"""RITUAL's sum, cut and draw, in numbers from its specification (six decimals)."""

import math

import pytest
import torch

import veridical
from veridical.decoders import ritual_transforms, ritual_view
from veridical.decoders.ritual import NAMES, RITUAL, complement
from veridical.pipelines.engine.declarations import Branch, LogitsEdit, Step
from veridical.pipelines.inputs import pixel_values
from veridical.testing.tiny import batch, prompt, tiny_llava

PLAIN, SHIFTED = torch.tensor([[2.0, 1.5, 1.2, -1.0]]), torch.tensor([[0.5, 2.0, 1.0, 5.0]])
COLOURS = ritual_transforms.CLIP


def close(found, expected, tolerance=1e-6):
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(found.double().reshape(expected.shape), expected, rtol=tolerance, atol=tolerance)


def mix(logits, other, **options):
    return RITUAL(**options).mix(logits, Step(branches={"ritual": other}))


def image(seed=0, size=28):
    return torch.randn(3, size, size, generator=torch.Generator().manual_seed(seed))


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def test_three_times_the_transformed_images_logits_are_added_and_the_originals_cut_holds():
    close(mix(PLAIN, SHIFTED), [3.5, 7.5, 4.2, -math.inf])
    close(mix(PLAIN, SHIFTED).softmax(1), [0.017358, 0.947689, 0.034954, 0.0])


def test_without_the_cut_the_token_that_only_the_transformed_image_has_wins():
    mixed = mix(PLAIN, SHIFTED, beta=0)
    close(mixed[0, 3], 14.0)
    close(mixed.softmax(1)[0, 3], 0.998416)


def test_an_unchanged_second_image_sharpens_and_keeps_the_choice():
    close(complement(PLAIN, PLAIN, 3.0), 4 * PLAIN)
    close(mix(PLAIN, PLAIN).softmax(1), [0.850270, 0.115071, 0.034659, 0.0])
    close(mix(PLAIN, PLAIN, alpha=0).softmax(1), [0.486415, 0.295025, 0.218560, 0.0])
    for beta in (0, 0.1, 1):
        assert int(mix(PLAIN, PLAIN, beta=beta).argmax()) == 0


def test_logits_and_log_probabilities_give_the_same_distribution():
    close(mix(PLAIN, SHIFTED).softmax(1), mix(PLAIN.log_softmax(1), SHIFTED.log_softmax(1)).softmax(1))


def test_a_contrast_and_a_weight_above_one_on_the_original_are_something_else():
    for other in (4 * PLAIN - 3 * SHIFTED, 4 * PLAIN + 3 * SHIFTED):
        assert not torch.allclose(complement(PLAIN, SHIFTED, 3.0), other)


def test_a_row_of_no_numbers_adds_nothing_and_leaves_its_neighbours():
    broken = torch.cat([SHIFTED, SHIFTED])
    broken[0, 2] = math.nan
    found = complement(torch.cat([PLAIN, PLAIN]), broken, 3.0)
    close(found[:1], PLAIN)
    close(found[1:], [[3.5, 7.5, 4.2, 14.0]])


@pytest.mark.parametrize("name", ["hflip", "vflip"])
def test_a_flip_twice_is_the_image_to_the_bit(name):
    flip = ritual_transforms.TRANSFORMS[name]
    once = flip(image(), draw(), COLOURS)
    assert torch.equal(flip(once, draw(), COLOURS), image())
    assert not torch.equal(once, image())


def test_flips_are_about_the_axes_of_their_names():
    assert torch.equal(ritual_transforms.TRANSFORMS["hflip"](image(), draw(), COLOURS)[..., 0], image()[..., -1])
    assert torch.equal(ritual_transforms.TRANSFORMS["vflip"](image(), draw(), COLOURS)[:, 0], image()[:, -1])


@pytest.mark.parametrize("name", NAMES)
def test_every_transformation_keeps_the_shape_and_changes_the_image(name):
    found = ritual_transforms.TRANSFORMS[name](image(), draw(), COLOURS)
    assert found.shape == image().shape
    assert found.isfinite().all()
    assert not torch.allclose(found, image())
    assert torch.equal(found, ritual_transforms.TRANSFORMS[name](image(), draw(), COLOURS))


def test_the_corners_that_a_rotation_brings_in_are_black_and_not_grey():
    black = (-COLOURS.mean / COLOURS.std).float()
    found = ritual_transforms.rotation(torch.zeros(3, 28, 28), draw(3), COLOURS)
    close(found.flatten(1).amin(1), black, 1e-5)


def test_jitter_works_between_0_and_1_in_rgb():
    found = ritual_transforms.jitter(5 * image(), draw(1), COLOURS)
    rgb = found * COLOURS.std[:, None, None] + COLOURS.mean[:, None, None]
    assert float(rgb.min()) >= -1e-5
    assert float(rgb.max()) <= 1 + 1e-5


def test_a_blur_smooths_and_keeps_a_plain_image():
    flat = torch.full((3, 28, 28), 0.7)
    close(ritual_transforms.blur(flat, draw(), COLOURS), flat, 1e-5)
    assert float(ritual_transforms.blur(image(), draw(), COLOURS).std()) < 0.3 * float(image().std())


def test_all_six_are_drawn_about_equally_often():
    """600 draws: 100 each, ±4·9.1."""
    ids = torch.tensor([1, 2])
    names = [ritual_view.drawn(ids, image(), NAMES, seed)[0] for seed in range(600)]
    assert all(abs(names.count(name) - 100) < 37 for name in NAMES)


@pytest.fixture(scope="module")
def setting():
    lvlm = veridical.LVLM(tiny_llava(8, 2))
    prompts = [prompt(lvlm.model, 3, 5, 1), prompt(lvlm.model, 6, 7, 2)]
    return lvlm, prompts, batch(prompts)


def test_a_samples_transformation_depends_on_neither_batch_nor_order(setting):
    lvlm, prompts, together = setting
    pixels = RITUAL().branch(lvlm, together)["pixel_values"]
    turned = RITUAL().branch(lvlm, batch(prompts[::-1]))["pixel_values"]
    for row, one in enumerate(prompts):
        alone = RITUAL().branch(lvlm, one)["pixel_values"]
        assert torch.equal(alone[0], pixels[row])
        assert torch.equal(alone[0], turned[1 - row])
    assert torch.equal(RITUAL().branch(lvlm, together)["pixel_values"], pixels)


def test_another_seed_another_question_and_another_image_can_draw_another_one(setting):
    ids, pixels = torch.arange(9), image()
    first = ritual_view.drawn(ids, pixels, NAMES, 0)[1].initial_seed()
    assert first != ritual_view.drawn(ids, pixels, NAMES, 1)[1].initial_seed()
    assert first != ritual_view.drawn(ids + 1, pixels, NAMES, 0)[1].initial_seed()
    assert first != ritual_view.drawn(ids, pixels + 1, NAMES, 0)[1].initial_seed()


def test_the_drawn_name_is_logged(setting, caplog):
    lvlm, _, together = setting
    with caplog.at_level("INFO", "veridical.decoders.ritual_view"):
        RITUAL(transforms=("vflip",)).branch(lvlm, together)
    assert "sample 1: the second image is transformed by vflip" in caplog.text


def test_a_view_replaces_the_draw(setting):
    lvlm, _, together = setting
    branch = RITUAL(view=lambda inputs: inputs["pixel_values"].flip(-1)).branch(lvlm, together)
    assert torch.equal(branch["pixel_values"], together["pixel_values"].flip(-1))


def test_ritual_declares_a_branch_of_its_name_and_then_the_sum(setting):
    lvlm, _, together = setting
    branch, edit = RITUAL().edits(lvlm, together)
    assert isinstance(branch, Branch)
    assert branch.name == "ritual"
    assert torch.equal(branch.inputs["input_ids"], together["input_ids"])
    assert isinstance(edit, LogitsEdit)


def test_qwens_patches_are_transformed_as_one_image(setting):
    config = type("Config", (), {"spatial_merge_size": 2, "patch_size": 4, "temporal_patch_size": 2})
    lvlm = type("Layout", (), {"model": type("Model", (), {"config": type("C", (), {"vision_config": config})})})
    whole = image(size=16)
    packed = pixel_values.folded(whole, 2, 4, 2)
    inputs = {"pixel_values": packed, "image_grid_thw": torch.tensor([[1, 4, 4]]), "input_ids": torch.ones(1, 3).long()}
    lvlm.image_mask = lambda ids: torch.tensor([[False, True, True, True, True, False]])
    images, back = pixel_values.whole_images(lvlm, inputs)
    assert torch.equal(images[0][0], whole)
    assert torch.equal(back([whole.flip(-1)]), pixel_values.folded(whole.flip(-1), 2, 4, 2))


def test_two_images_of_a_prompt_have_one_transformation(setting):
    lvlm, prompts, _ = setting
    one = prompts[0]
    image_ids = one["input_ids"][lvlm.image_mask(one["input_ids"])][None]
    two = {
        "input_ids": torch.cat([image_ids, one["input_ids"]], 1),
        "attention_mask": torch.cat([torch.ones_like(image_ids), one["attention_mask"]], 1),
        "pixel_values": one["pixel_values"].repeat(2, 1, 1, 1),
    }
    found = RITUAL().branch(lvlm, two)["pixel_values"]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], two["pixel_values"][0])


def test_tiles_without_a_view_and_views_of_another_shape_are_refused(setting):
    lvlm, _, together = setting
    tiles = {**together, "pixel_values": torch.zeros(2, 3, 3, 28, 28)}
    with pytest.raises(ValueError, match=r"hold tiles, each of which.*give RITUAL\(view=…\)"):
        RITUAL().branch(lvlm, tiles)
    with pytest.raises(ValueError, match="both branches need as many image tokens"):
        RITUAL(view=lambda inputs: inputs["pixel_values"][:1]).branch(lvlm, together)
    with pytest.raises(ValueError, match="there is no image to transform"):
        RITUAL().branch(lvlm, {"input_ids": together["input_ids"]})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": -1}, "alpha=-1 is below 0"),
        ({"beta": 2}, "beta=2 is outside 0 to 1"),
        ({"view": 3}, "view=3 cannot be called"),
        ({"transforms": ("hflip", "twirl")}, "transforms names 'twirl', which is no transformation; possible: hflip"),
        ({"transforms": ()}, "transforms is empty"),
    ],
)
def test_values_outside_their_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RITUAL(**options)


def test_the_defaults_are_the_released_codes():
    names = ("hflip", "vflip", "rotation", "jitter", "blur", "crop")
    assert RITUAL() == RITUAL(alpha=3.0, beta=0.1, view=None, transforms=names, seed=0) == RITUAL.official()
