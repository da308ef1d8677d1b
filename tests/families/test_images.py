"""Images found in and blacked out of what every family's own processor returns."""

import numpy as np
import pytest
import torch
from PIL import Image

import veridical
from veridical.decoders.agla import AGLA
from veridical.decoders.agla_view import MatchedView, around_question
from veridical.pipelines.inputs.pixel_values import Colours, NoImages, images_of
from veridical.pipelines.matching.base import Match

from .models.tiny_families import FAMILIES
from .models.tiny_processors import MISSING, processor
from .setting import setting

pytestmark = pytest.mark.filterwarnings("ignore::veridical.pipelines.generate.NeverActed")

QUESTIONS = ["What is in the image?", "Is it a dog?"]
# Width over height, chosen so that tiled families cut the first in several tiles, each its own way.
SIZES = [(128, 64), (40, 40)]


def image(width, height, seed, dark=False):
    """Smooth and bright, so that resizing keeps it; `dark`: its right half is black."""
    draw = np.random.RandomState(seed)
    coarse = Image.fromarray(draw.randint(60, 256, (4, 6, 3)).astype(np.uint8))
    array = np.array(coarse.resize((width, height), Image.Resampling.BICUBIC)).clip(40)
    if dark:
        array[:, width // 2 :] = 0
    return Image.fromarray(array)


@pytest.fixture(params=FAMILIES, scope="module")
def lvlm(request):
    if request.param in MISSING:
        pytest.skip(MISSING[request.param])
    return veridical.LVLM(setting(request.param).model, processor(request.param), name=request.param)


@pytest.fixture(scope="module")
def inputs(lvlm):
    return lvlm.prepare([image(*size, seed) for seed, size in enumerate(SIZES)], QUESTIONS)


def left_half(seen):
    """What stays: the left half of every image."""
    masks = [torch.ones(one.shape[-2:], dtype=torch.bool) for one in seen.whole]
    for mask in masks:
        mask[:, mask.shape[1] // 2 :] = False
    return masks


def test_every_row_has_its_whole_image_in_rgb(lvlm, inputs):
    seen = images_of(lvlm, inputs)
    assert len(seen.whole) == 2
    for found, (seed, size) in zip(seen.whole, enumerate(SIZES), strict=True):
        real = (found.flatten(1) > 0).any(0)  # an image smaller than its tile is followed by padding
        expected = np.asarray(image(*size, seed), np.float64).mean((0, 1))
        centre_cropped = lvlm.model.config.model_type == "llava" and size[0] != size[1]
        tolerance = 40 if centre_cropped else 12
        assert found.dtype == torch.uint8
        assert np.abs(found.flatten(1)[:, real].double().mean(1).numpy() - expected).max() < tolerance


def test_a_mask_that_keeps_everything_changes_nothing(lvlm, inputs):
    seen = images_of(lvlm, inputs)
    kept = seen.black_out([torch.ones(one.shape[-2:], dtype=torch.bool) for one in seen.whole])
    assert torch.equal(kept, inputs["pixel_values"])


def test_blacking_out_half_is_what_the_processor_makes_of_an_image_whose_half_is_black(lvlm, inputs):
    """In all tiles and patches. But for columns at the border, which resizing blends: 8 % of the values at most."""
    seen = images_of(lvlm, inputs)
    found = seen.black_out(left_half(seen))
    dark = [image(*size, seed, dark=True) for seed, size in enumerate(SIZES)]
    expected = lvlm.prepare(dark, QUESTIONS)["pixel_values"]
    plain = inputs["pixel_values"]
    off = ((found - expected).abs() > 0.02).double().mean()
    assert found.shape == expected.shape
    assert ((plain - expected).abs() > 0.02).double().mean() > 3 * 0.08
    assert off < 0.08


def test_agla_with_a_matcher_runs_and_sees_the_bare_questions(lvlm, inputs, monkeypatch):
    requests = []

    class Left:
        id = "left"

        def match(self, seen, prompts):
            requests.extend(prompts)
            return [Match(torch.tensor([[1.0, 0.0]]).expand(2, 2), 1.0) for _ in prompts]

    monkeypatch.setattr("veridical.decoders.agla_view.matched_view", lambda lvlm, name: MatchedView(lvlm, Left()))
    generation = veridical.generate(lvlm, inputs, [AGLA(beta=0)], max_new_tokens=2, return_logits=True, do_sample=False)
    plain = veridical.generate(lvlm, inputs, [AGLA(view=lambda inputs: inputs["pixel_values"], beta=0)],
                               max_new_tokens=2, return_logits=True, do_sample=False)  # fmt: skip
    assert requests == [question.lower() for question in QUESTIONS]
    assert ((generation.logits[:, 0] - plain.logits[:, 0]).abs().amax(1) > 1e-3).all()
    assert around_question(lvlm)[0] == "" or "question" not in around_question(lvlm)[0].lower()


# ---------------------------------------------------------------------- what cannot be done


def test_several_images_in_a_prompt_are_refused_and_so_is_a_model_without_processor(lvlm, inputs):
    one = {name: value[:1] if len(value) == 2 and value.dim() == 2 else value for name, value in inputs.items()}
    if "image_grid_thw" in inputs:
        one["image_grid_thw"] = inputs["image_grid_thw"]
    if inputs["pixel_values"].dim() == 4 and lvlm.model.config.model_type != "internvl":
        one["input_ids"] = torch.cat([inputs["input_ids"][:1]] * 3)
    with pytest.raises(NoImages, match="image"):
        images_of(lvlm, one)
    with pytest.raises(NoImages, match="has no image processor, whose mean and deviation"):
        Colours.of(veridical.LVLM(lvlm.model, name="bare"))


def test_a_video_is_refused():
    found = veridical.LVLM(setting("qwen2_vl").model, processor("qwen2_vl"), name="qwen2_vl")
    given = dict(found.prepare([image(64, 64, 0)], QUESTIONS[:1]))
    given["image_grid_thw"] = torch.tensor([[2, *given["image_grid_thw"][0, 1:].tolist()]])
    with pytest.raises(NoImages, match="a video"):
        images_of(found, given)
