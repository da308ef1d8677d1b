"""AGLA's sum, mask rule and relevance, in numbers from its specification."""

import math

import numpy as np
import pytest
import torch

from veridical.decoders.agla import AGLA, assemble
from veridical.decoders.agla_view import keep_index, keep_mask
from veridical.decoders.plausibility import cut
from veridical.decoders.view import prompts, takes_prompts
from veridical.pipelines.engine.declarations import Step
from veridical.pipelines.inputs.pixel_values import Colours
from veridical.pipelines.matching.blip import relevance

SEEN, LOCAL = torch.tensor([[2.0, 1.5, 1.2, 0.0]]), torch.tensor([[0.5, 2.0, 1.0, 5.0]])


def close(found, expected, tolerance=1e-6):
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(found.double().reshape(expected.shape), expected, rtol=tolerance, atol=tolerance)


def step(local, index=0):
    return Step(branches={"agla": local}, index=index)


# ---------------------------------------------------------------------- the sum


def test_the_worked_sum_and_its_tight_cut():
    z = AGLA().mix(SEEN, step(LOCAL))
    close(z, [3.0, 5.5, -math.inf, -math.inf])
    close(z.softmax(1), [0.075858, 0.924142, 0, 0])
    for line in (1.306852, 1.306854):  # 2 + ln 0.5 lies between them
        third = torch.tensor([[2.0, 1.5, line, 0.0]])
        assert bool(AGLA().mix(third, step(LOCAL)).isfinite()[0, 2]) == (line > 1.306853)


def test_with_the_cut_of_other_methods_nothing_would_go():
    z = AGLA(beta=0.1).mix(SEEN, step(LOCAL))
    close(z, [3.0, 5.5, 3.2, 10.0])
    close(z.softmax(1)[0, 3], 0.987036)


def test_alpha_zero_is_the_cut_alone():
    z = AGLA(alpha=0).mix(SEEN, step(LOCAL))
    close(z.softmax(1), [0.622459, 0.377541, 0, 0])
    assert int(AGLA(beta=1).mix(SEEN, step(LOCAL)).softmax(1).argmax()) == 0


def test_an_image_masked_nowhere_sharpens_and_keeps_the_choice():
    z = AGLA().mix(SEEN, step(SEEN))
    close(z.softmax(1), [0.817574, 0.182426, 0, 0])
    close(SEEN.softmax(1), [0.456372, 0.276804, 0.205061, 0.061763])


def test_logits_and_log_probabilities_give_the_same_distribution():
    logs = assemble(SEEN.log_softmax(1), LOCAL.log_softmax(1), 2.0)
    close(assemble(SEEN, LOCAL, 2.0).softmax(1), logs.softmax(1))


def test_official_mode_sees_the_masked_image_in_the_first_token_alone():
    """The released sampler's second cache is a copy of the first one's from then on: (1 + α)·l."""
    first, later = (AGLA.official().mix(SEEN, step(LOCAL, index)) for index in (0, 1))
    assert torch.equal(first, AGLA().mix(SEEN, step(LOCAL)))
    assert torch.equal(later, cut(3 * SEEN, SEEN, 0.5))
    assert torch.equal(AGLA().mix(SEEN, step(LOCAL, 1)), AGLA().mix(SEEN, step(LOCAL, 0)))


# ---------------------------------------------------------------------- what stays of the image


@pytest.mark.parametrize(
    ("similarity", "index", "kept"),
    [(1.0, 8, 9), (0.5, 12, 13), (0.4, 12, 13), (0.25, 14, 15), (0.0, 15, 16), (-0.2, 15, 16)],
)
def test_the_better_the_match_the_more_is_masked(similarity, index, kept):
    cam = torch.arange(16.0).view(4, 4)[:, [2, 0, 3, 1]]
    mask = keep_mask(cam, similarity)
    assert keep_index(similarity, 16) == index
    assert int(mask.sum()) == kept
    assert float(cam[mask].min()) == 16 - kept


@pytest.mark.parametrize(("similarity", "index"), [(0.4, 117964), (0.0, 147454)])
def test_the_index_on_an_image_of_384_by_384(similarity, index):
    """And one pixel more than the index stays: they count from 0."""
    assert keep_index(similarity, 384 * 384) == index
    cam = torch.randperm(384 * 384, generator=torch.Generator().manual_seed(0)).view(384, 384).float()
    assert int(keep_mask(cam, similarity).sum()) == index + 1


def test_masked_pixels_are_black_and_the_others_untouched():
    """Through normalisation and back, as the model sees them."""
    image = torch.from_numpy(np.random.default_rng(0).integers(1, 256, (3, 4, 4), dtype=np.uint8))
    mask = keep_mask(torch.arange(16.0).view(4, 4), 1.0)
    mean, std = torch.tensor([0.48, 0.45, 0.4]), torch.tensor([0.27, 0.26, 0.28])
    seen = (image / 255 - mean[:, None, None]) / std[:, None, None]
    dark = Colours(mean.double(), std.double()).darken(seen, mask)
    assert torch.equal(dark[:, mask], seen[:, mask])
    out = Colours(mean.double(), std.double()).rgb(dark)
    assert (out[:, ~mask] == 0).all()
    assert torch.equal(out[:, mask], image[:, mask])


def test_relevance_of_the_worked_example():
    """Two heads, tokens [ENC], a, b, [SEP], four patches. [SEP]'s gradients of 9 have no say."""
    same = [0.2] * 4
    attention = torch.tensor([
        [[0.1, 0.2, 0.3, 0.2], [0.3, 0.2, 0.2, 0.2], [0.2, 0.4, 0.1, 0.1], same],
        [same, [0.1, 0.5, 0.1, 0.1], [0.1, 0.1, 0.6, 0.1], same],
    ])  # fmt: skip
    gradient = torch.tensor([
        [[1.0] * 4, [1, -1, 2, 0], [0.5, 1, 0, -3], [9] * 4],
        [[1.0] * 4, [2, 0.5, -1, 1], [-1, 0, 1, 1], [9] * 4],
    ])  # fmt: skip
    close(relevance(attention, gradient), [0.5, 0.5625, 1.0, 0.0])
    words = (attention * gradient.clamp(min=0)).mean(0)
    close(words[1], [0.25, 0.125, 0.20, 0.05])
    close(words[2], [0.05, 0.20, 0.30, 0.05])
    gradient[:, [0, 3]] = 1e6
    close(relevance(attention, gradient), [0.5, 0.5625, 1.0, 0.0])


# ---------------------------------------------------------------------- the view


class WithoutImage:
    processor = None

    def image_mask(self, ids):
        return ids == 3


INPUTS = {
    "input_ids": torch.tensor([[1, 3, 5]]),
    "attention_mask": torch.ones(1, 3, dtype=torch.long),
    "pixel_values": torch.ones(1, 3, 4, 4),
}


def test_without_a_view_and_a_processor_decoding_says_that_a_matcher_has_nothing_to_look_at():
    with pytest.raises(ValueError, match=r"AGLA's matchers read RGB images .* give AGLA\(view=…\)"):
        list(AGLA().edits(WithoutImage(), INPUTS))


def test_a_prompt_without_an_image_is_refused():
    text = {name: value for name, value in INPUTS.items() if name != "pixel_values"}
    with pytest.raises(ValueError, match="no image to mask: inputs lack pixel_values; found input_ids, attention_ma"):
        list(AGLA(view=lambda inputs: None).edits(WithoutImage(), text))


@pytest.mark.parametrize(("chain", "wanted"), [
    ("agla", True), ("agla:alpha=0,beta=0", False),
    ("gate:decoder=agla", True), ("gate:decoder='agla:alpha=0,beta=0'", False), ("gate:decoder=vcd", False),
    ("gate:decoder=agla,threshold=inf", False), ("gate:decoder=agla,threshold=-inf", True),
    ("reask:decoder=agla", True), ("reask", False), ("reask:decoder=agla,threshold=inf", False),
    ("reask:decoder='gate:decoder=agla'", True),
])  # fmt: skip
def test_the_matcher_is_fetched_before_anything_is_answered_by_whatever_holds_the_method(monkeypatch, chain, wanted):
    from veridical.decoders import agla_view
    from veridical.pipelines.chain import make_chain

    requests = []
    monkeypatch.setattr(agla_view, "matched_view", lambda lvlm, matcher: requests.append((lvlm, matcher)))
    (built,) = make_chain(chain)
    lvlm = WithoutImage()
    built.fetch(lvlm)
    assert requests == ([(lvlm, None)] if wanted else [])


def test_a_view_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"shape \(1, 3, 2, 2\); the image's are \(1, 3, 4, 4\)"):
        list(AGLA(view=lambda inputs: inputs["pixel_values"][..., ::2, ::2]).edits(WithoutImage(), INPUTS))


def test_a_view_may_take_the_prompts_too():
    seen = []

    def view(inputs, texts):
        seen.append(texts)
        return 0 * inputs["pixel_values"]

    branch, _ = AGLA(view=view).edits(WithoutImage(), INPUTS)
    assert seen == [[""]]
    assert float(branch.inputs["pixel_values"].abs().sum()) == 0
    assert takes_prompts(view)
    assert takes_prompts(lambda *given: None)
    assert not takes_prompts(lambda inputs, *, scale=1: None)


def test_prompts_are_the_rows_text_without_image_and_padding():
    lvlm = pytest.importorskip("veridical").load("embedded", device="cpu")
    from veridical.datasets.world import scene

    inputs = lvlm.prepare([scene("test", 0).image] * 2, ["Is there a dog in the image?", "What is this?"])
    short, long = sorted(prompts(lvlm, inputs), key=len)
    assert "What is this?" in short
    assert "Is there a dog in the image?" in long
    assert "<" not in short + long


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": -1}, "alpha=-1 is below 0"),
        ({"beta": -0.1}, "beta=-0.1 is outside 0 to 1"),
        ({"mode": "old"}, "mode='old' is none of 'paper', 'official'"),
        ({"matcher": "clip"}, "matcher='clip' names no matcher; possible: \"embedded\", \"open_clip:<folder"),
        ({"matcher": "blip:"}, "matcher='blip:' names no matcher"),
        ({"matcher": "embedded", "view": abs}, "view and matcher='embedded' both say what is masked"),
        ({"view": "left_half"}, "view='left_half' cannot be called"),
    ],
)
def test_values_outside_their_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        AGLA(**options)
