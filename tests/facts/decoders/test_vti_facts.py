"""VTI's numbers, by hand: the turn, the directions, the masks, and the site in the vision tower."""

import pytest
import torch

import veridical
from veridical.datasets.world import scene
from veridical.decoders.gate import Gate
from veridical.decoders.vti import VTI, steer
from veridical.decoders.vti_fit import Demonstrations, direction, grouped, masked, principal, tower_states
from veridical.pipelines.engine.declarations import ResidualEdit
from veridical.pipelines.engine.run import prefill
from veridical.testing.tiny import batch, prompt, tiny_llava

T = lambda *rows: torch.tensor(rows, dtype=torch.float32)


def close(found, expected, tolerance=1e-6):
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=found.dtype), rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("d", "alpha", "expected"),
    [
        ((2, 0), 2, (3.535534, 3.535534)), ((20, 0), 2, (3.535534, 3.535534)), ((0, 1), 0.8, (2.816684, 4.131136)),
        ((-4, 3), 0.9, (2.629373, 4.252811)), ((-3, -4), 5, (3, 4)), ((1, 2), 0, (3, 4)), ((0, 0), 0.8, (3, 4)),
        ((-3, -4), 10, (3, 4)),
    ],
)  # fmt: skip
def test_a_state_is_turned_toward_the_direction_and_keeps_its_length(d, alpha, expected):
    found = steer(T(3, 4), T(*d), alpha)
    close(found, expected)
    close(found.norm(), 5.0, 1e-5)


def test_a_state_of_zeros_stays():
    assert steer(T(0, 0), T(1, 0), 2).tolist() == [0, 0]


def test_half_precision_is_turned_in_float32():
    found = steer(T(300, 400).half(), T(20000, 0).half(), 2)
    assert found.dtype == torch.float16
    close(found.float(), [353.5, 353.5], 0.2)


def test_the_direction_is_the_mean_and_one_component_over_all_layers():
    close(direction(T([[1, 0], [2, 0]], [[1, 1], [2, 0]], [[1, 5], [2, 0]])), [[1, 3], [2, 0]], 1e-5)


def test_the_largest_score_decides_the_sign():
    close(direction(T([[0, 0]], [[0, 1]], [[0, -5]])), [[0, -2.333333]], 1e-5)


def test_without_components_the_direction_is_the_mean():
    close(direction(T([[0, 0]], [[0, 1]], [[0, -5]]), 0), [[0, -4 / 3]], 1e-5)


def test_each_component_has_a_sign_of_its_own():
    """The released code reads every sign from the first column."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(8, 5, generator=draw)
    mean, several = principal(x, 3)
    scores = (x - mean) @ several.T
    assert (scores.gather(0, scores.abs().argmax(0, keepdim=True)) > 0).all()


def test_the_towers_groups_are_tokens_and_as_released_runs_of_memory():
    x = torch.randn(4, 3, 2, 5, generator=torch.Generator().manual_seed(0))  # demo layer token hidden
    mean, several = grouped(x, 1, "paper")
    close(mean, x.mean(0))
    for token in range(2):
        own = principal(x[:, :, token].flatten(1), 1)[1][0]
        close(several[0, :, token].flatten(), own, 1e-5)
    released_mean, released = grouped(x, 1, "official")
    close(released_mean, x.mean(0))
    for run in range(2):
        own = principal(x.flatten(1)[:, run * 15 : (run + 1) * 15], 1)[1][0]
        close(released[0].flatten()[run * 15 : (run + 1) * 15], own, 1e-5)
    assert float((released - several).abs().max()) > 0.1


def test_masks_cover_their_share_of_patches_with_the_mean_colour():
    pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = masked(pixels, 5, 0.75, 8, torch.Generator().manual_seed(1))
    same = (found == pixels).all(1)  # trial height width
    blocks = same.unflatten(1, (4, 8)).unflatten(3, (4, 8)).float().mean((2, 4))
    assert set(blocks.flatten().tolist()) == {0.0, 1.0}
    assert blocks.sum((1, 2)).tolist() == [4] * 5
    assert len({tuple(one.flatten().tolist()) for one in blocks}) > 1
    close(found[0][:, ~same[0]], pixels.mean((2, 3)).T.expand(3, int((~same[0]).sum())))


@pytest.fixture(scope="module")
def tiny():
    model = tiny_llava(8, 2)
    return veridical.LVLM(model), batch([prompt(model, 3, 5, 1), prompt(model, 6, 7, 2)])


TEXT = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
IMAGE = torch.randn(2, 17, 32, generator=torch.Generator().manual_seed(1))


def first(lvlm, inputs, *decoders):
    declared = [one for decoder in decoders for one in decoder.edits(lvlm, inputs)]
    return prefill(lvlm, inputs, declared).branches["main"]


def test_the_towers_states_have_one_more_entry_than_layers(tiny):
    lvlm, inputs = tiny
    found = tower_states(lvlm, inputs["pixel_values"])
    assert found.shape == (2, 3, 17, 32)
    hidden = lvlm.model.model.vision_tower(inputs["pixel_values"], output_hidden_states=True).hidden_states
    for entry in range(3):
        close(found[:, entry], hidden[entry], 1e-5)


def test_the_image_part_alone_changes_the_prompts_logits(tiny):
    lvlm, inputs = tiny
    plain = first(lvlm, inputs)
    alone = first(lvlm, inputs, VTI.from_directions(TEXT, IMAGE, alpha=0, alpha_image=2))
    assert float((alone - plain).abs().max()) > 1e-3
    assert torch.equal(first(lvlm, inputs, VTI.from_directions(None, IMAGE, alpha_image=0)), plain)
    assert torch.equal(first(lvlm, inputs, VTI.from_directions(None, IMAGE, alpha=3)), plain)
    assert VTI(alpha=0, alpha_image=0).is_neutral


def test_what_the_tower_does_is_undone_after_the_run(tiny):
    lvlm, inputs = tiny
    before = tower_states(lvlm, inputs["pixel_values"])
    first(lvlm, inputs, VTI.from_directions(None, IMAGE, alpha_image=2))
    assert torch.equal(tower_states(lvlm, inputs["pixel_values"]), before)
    assert not any(layer.mlp._forward_hooks for layer in lvlm.vision_layers)


def test_a_gate_leaves_the_tower_plain_unless_it_may_change_the_prompts_pass(tiny):
    vti = VTI.from_directions(None, IMAGE, alpha_image=2)
    shut, open_ = (Gate(vti, "entropy", "-inf", prefill=prefill) for prefill in (False, True))
    assert torch.equal(first(*tiny, shut), first(*tiny))
    assert torch.equal(first(*tiny, open_), first(*tiny, vti))


def test_images_that_were_encoded_before_the_run_are_an_error_and_not_a_plain_image(tiny):
    lvlm, inputs = tiny
    text = lvlm.image_free(inputs)
    with pytest.raises(RuntimeError, match="edits of the vision tower were not carried out before the first token"):
        veridical.generate(lvlm, text, [VTI.from_directions(None, IMAGE, alpha_image=2)], max_new_tokens=1)


def test_images_that_are_no_entries_of_pixel_values_are_refused(tiny):
    lvlm, inputs = tiny
    tiles = {**inputs, "pixel_values": inputs["pixel_values"][:, None]}
    with pytest.raises(ValueError, match=r"need pixel_values of \(image, colour, height, width\)"):
        prefill(lvlm, tiles, [ResidualEdit([0], lambda x, call: x, at="vision_mlp")])


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        (VTI(), "vti needs directions that were fitted on the model.*`veridical fit vti"),
        (VTI.from_directions(TEXT[:3]), r"directions of the text have the shape \(3, 64\), .* 8 layers of 64"),
        (VTI.from_directions(None, IMAGE[:, :5], alpha_image=1), r"\(5, 32\), and this image has \(17, 32\)"),
    ],
)
def test_what_does_not_fit_the_model_is_one_sentence(tiny, decoder, message):
    with pytest.raises(ValueError, match=message):
        first(*tiny, decoder)


# ---------------------------------------------------------------------- fitting on the embedded model


IMAGES = [scene("train", index).image for index in range(3)]
PAIRS = [("A dog.", "A dog and a horse."), ("A cat beside a car.", "A cat."), ("Two cups.", "Two spoons.")]


@pytest.fixture(scope="module")
def lvlm():
    return veridical.load("embedded")


def test_the_text_part_is_of_the_last_tokens_states(lvlm, tmp_path):
    """Against plain passes of transformers without the end token, one caption each."""
    found = VTI.fit(lvlm, PAIRS, IMAGES, Demonstrations(batch_size=2))
    states = []
    for texts in zip(*PAIRS, strict=True):
        some = []
        for image, text in zip(IMAGES, texts, strict=True):
            row = lvlm.prepare([image], ["Describe this image in detail."])
            words = lvlm.processor.tokenizer(" " + text, add_special_tokens=False, return_tensors="pt")["input_ids"]
            row = {**row, "input_ids": torch.cat([row["input_ids"], words], 1)}
            row["attention_mask"] = torch.ones_like(row["input_ids"])
            with torch.no_grad():
                hidden = lvlm.model.model(**row, output_hidden_states=True, use_cache=False).hidden_states
            some.append(torch.stack([h[0, -1] for h in hidden[:-1]]))
        states.append(torch.stack(some))
    mean = (states[0] - states[1]).mean(0)
    close(found.weights.tensors["text"][:-1], mean[1:], 1e-3)
    assert found.weights.tensors["text_components"].shape == (1, 8, 192)
    again = VTI.from_pretrained(found.save_pretrained(tmp_path), alpha=0.9)
    assert torch.equal(again.fitted(lvlm).tensors["text"], found.weights.tensors["text"])
    with pytest.raises(ValueError, match="1 principal directions were fitted, and components=2"):
        list(VTI(weights=found.weights, components=2).edits(lvlm, {}))


def test_the_image_part_is_masked_minus_whole(lvlm):
    how = Demonstrations(image=True, trials=3, mask=0.5, batch_size=2)
    found = VTI.fit(lvlm, PAIRS, IMAGES, how, alpha_image=0.9)
    pixels = [lvlm.prepare([image], ["x"])["pixel_values"] for image in IMAGES]
    draw, patch = torch.Generator().manual_seed(0), lvlm.model.config.vision_config.patch_size
    expected = 0
    for one in pixels:
        parts = [masked(one, count, 0.5, patch, draw) for count in (2, 1)]
        states = torch.cat([tower_states(lvlm, part) for part in parts])
        expected = expected + (states.mean(0) - tower_states(lvlm, one)[0]) / 3
    close(found.weights.tensors["image"], expected[1:], 1e-4)
    (inputs,) = [lvlm.prepare(IMAGES[:1], ["What is this?"])]
    both, text = first(lvlm, inputs, found), first(lvlm, inputs, VTI(weights=found.weights))
    assert float((both - text).abs().max()) > 1e-4


def test_fewer_than_two_pairs_are_refused(lvlm):
    with pytest.raises(ValueError, match="two or more: 1 pairs for 1 images"):
        VTI.fit(lvlm, PAIRS[:1], IMAGES[:1])
