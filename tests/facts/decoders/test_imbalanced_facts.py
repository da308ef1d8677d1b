"""The two token sets of imbalanced attention, its boost and its guidance, in numbers from its specification."""

import math
from types import SimpleNamespace

import pytest
import torch

import veridical
from veridical.decoders.encoder_attention import class_attention, encoder_attention
from veridical.decoders.imbalanced import (
    Imbalanced,
    by_sample,
    local_tokens,
    summary_tokens,
)
from veridical.decoders.pai import PAI, boost, guide

ROW = torch.ones(1, 1, dtype=torch.bool)


def close(found, expected, tolerance=1e-6):
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(found.double().reshape(expected.shape), expected, rtol=tolerance, atol=tolerance)


# ---------------------------------------------------------------------- token sets


@pytest.mark.parametrize(
    ("late", "expected"),
    [([*range(1, 10), 30], [9]), ([1] * 9 + [9], [9]), ([1] * 10, []), ([9, *[1] * 9], [0])],
)
def test_summary_tokens_are_outliers_by_quartiles(late, expected):
    """1 to 9 and 30: quartiles 3.25 and 7.75, fence 14.5. Nine 1s and a 9: fence 1. A constant: none."""
    found = summary_tokens(torch.tensor([late], dtype=torch.float32))
    assert found[0].nonzero().flatten().tolist() == expected


@pytest.mark.parametrize(("last", "outliers"), [(14.5, 0), (14.51, 1)])
def test_the_fence_of_the_worked_scores(last, outliers):
    assert int(summary_tokens(torch.tensor([[*range(1, 10), last]], dtype=torch.float32)).sum()) == outliers


def test_a_score_on_the_fence_is_no_outlier():
    """Quartiles 1 and 3, fence 6."""
    assert not summary_tokens(torch.tensor([[0.0, 1.0, 2.0, 3.0, 6.0]])).any()
    assert summary_tokens(torch.tensor([[0.0, 1.0, 2.0, 3.0, 6.01]])).sum() == 1


def test_local_tokens_are_a_quarter_of_the_patches_less_the_summary_tokens():
    generator = torch.Generator().manual_seed(0)
    early, late = torch.rand(3, 576, generator=generator), torch.rand(3, 576, generator=generator)
    late[:, 5] = early[:, 5] = 50.0
    summary = summary_tokens(late)
    local = local_tokens(early, summary, 0.25)
    assert (local.sum(1) == 143).all()  # 144, and patch 5 is a summary token
    assert not (local & summary).any()
    assert not local_tokens(early, summary, 0.0).any()
    assert int(local_tokens(early, torch.zeros_like(summary), 1.0).sum()) == 3 * 576


def test_each_image_has_its_own_sets():
    late = torch.tensor([[1.0] * 9 + [9], [1.0] * 10])
    assert summary_tokens(late).sum(1).tolist() == [1, 0]


def test_sets_reach_their_samples_in_the_order_of_the_images():
    image = torch.tensor([[0, 1, 1, 0, 1, 1], [0, 0, 0, 1, 1, 0]], dtype=torch.bool)
    patches = torch.tensor([[True, False], [False, True], [True, True]])  # two images in the first prompt
    assert by_sample(patches, image).tolist() == [[True, False, False, True], [True, True, False, False]]


def test_prompts_without_one_token_per_patch_are_refused():
    image = torch.ones(1, 5, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"2 images of 2 patches and prompts of \[5\] image tokens"):
        by_sample(torch.ones(2, 2, dtype=torch.bool), image)


# ---------------------------------------------------------------------- boost and guidance


def test_the_worked_boost():
    scores = torch.tensor([2.0, -1.0, 0.5, 0.0]).view(1, 1, 1, 4)
    edit = Imbalanced(local=0.7, summary=0.4).edit
    call = SimpleNamespace(
        columns=lambda prompt: prompt,
        query=torch.zeros(1, 1, 1, 1),
        sequences=SimpleNamespace(
            image=torch.ones(1, 4, dtype=torch.bool),
            sample=torch.tensor([0]),
            at_queries=lambda prompt, new, queries: ROW,
        ),
    )
    on_local, on_summary = torch.tensor([[True, False, False, False]]), torch.tensor([[False, True, False, False]])
    z = edit(on_local, on_summary, scores, call)
    close(scores.softmax(-1), [0.710100, 0.035354, 0.158445, 0.096102])
    close(z, [3.4, -0.6, 0.5, 0.0])
    close(z.softmax(-1), [0.903577, 0.016550, 0.049718, 0.030155])


def test_empty_sets_leave_the_scores():
    scores = torch.randn(1, 2, 1, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(boost(scores, torch.zeros(1, 4), ROW), scores)


def test_guidance_of_equal_branches_leaves_what_it_keeps():
    logits = torch.tensor([[2.0, 1.0, -0.31]])
    for gamma in (1.0, 1.1, 3.0):
        assert guide(logits, logits, gamma, 0.1).tolist() == [[2.0, 1.0, -math.inf]]  # the line is 2 − 2.302585


def test_what_is_declared_follows_the_strengths():
    lvlm = SimpleNamespace(layers=range(4), image_free=lambda given: given)
    kinds = lambda decoder: [type(declared).__name__ for declared in decoder.edits(lvlm, {})]
    assert kinds(Imbalanced(local=0, summary=0)) == ["Branch", "LogitsEdit"]
    assert kinds(Imbalanced(local=0, summary=0, gamma=1)) == []


# ---------------------------------------------------------------------- the vision encoder


@pytest.fixture(scope="module")
def embedded():
    from veridical.datasets.world import scene

    lvlm = veridical.load("embedded", device="cpu")
    return lvlm, [scene("test", index).image for index in range(2)]


def test_class_attention_leaves_a_share_for_the_class_token_itself(embedded):
    lvlm, images = embedded
    early, late = class_attention(lvlm, lvlm.prepare(images, ["What is this?"] * 2))
    heads = lvlm.model.config.vision_config.num_attention_heads
    for scores in (early, late):
        assert scores.shape == (2, 64)
        assert (scores.sum(1) < heads).all()
        assert (scores >= 0).all()


def test_tokens_do_not_depend_on_the_question_or_on_the_other_image(embedded):
    lvlm, images = embedded
    one = class_attention(lvlm, lvlm.prepare(images, ["What is this?"] * 2))
    other = class_attention(lvlm, lvlm.prepare(images[:1], ["Is there a dog in the image?"]))
    for a, b in zip(one, other, strict=True):
        close(a[:1], b.double(), 1e-3)


def test_models_without_such_an_encoder_are_refused():
    lvlm = SimpleNamespace(model=torch.nn.Linear(2, 2), name="linear", layers=range(4), image_free=lambda given: given)
    with pytest.raises(ValueError, match=r"class token's attention in a CLIP vision encoder.* found no such encoder"):
        list(Imbalanced().edits(lvlm, {"input_ids": torch.ones(1, 1), "pixel_values": torch.ones(1, 3, 4, 4)}))


def test_nothing_is_claimed_that_is_not_known():
    assert "per-head" in Imbalanced.__doc__
    assert "could not be" in Imbalanced.__doc__


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"local": -1}, "local=-1 is below 0"),
        ({"summary": -1}, "summary=-1 is below 0"),
        ({"ratio": 1.5}, "ratio=1.5 is outside 0 to 1"),
        ({"gamma": 0.5}, "gamma=0.5 is below 1"),
        ({"skip_first": 1.5}, "skip_first=1.5 is no whole number"),
    ],
)
def test_values_outside_their_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Imbalanced(**options)


def test_spatial_tokens_are_those_that_the_first_layer_looks_at_most(embedded):
    """Against the encoder's own attention. The released score, over rows, is 1 for each of them."""
    lvlm, images = embedded
    inputs = lvlm.prepare(images, ["What is this?"] * 2)
    eager = veridical.load("embedded", device="cpu", attention="eager")
    tower = eager.model.model.vision_tower
    with torch.no_grad():
        weights = tower(inputs["pixel_values"], output_attentions=True).attentions[0]  # image head query key
    received = encoder_attention(lvlm, inputs)[2]
    close(received, weights.sum((1, 2))[:, 1:].double(), 1e-3)
    assert received.std(1).min() > 0.1
    close(weights.mean(1).sum(-1), torch.ones(2, 65).double(), 1e-5)


def test_spatial_tokens_join_the_local_ones(embedded):
    lvlm, images = embedded
    inputs = lvlm.prepare(images[:1], ["What is this?"])
    count = lambda decoder: int(next(iter(decoder.edits(lvlm, inputs))).apply.args[0].sum())
    assert count(Imbalanced(gamma=1, ratio=0, spatial=0)) == 0
    assert 0 < count(Imbalanced(gamma=1, ratio=0, spatial=0.25)) <= 16
    assert count(Imbalanced(gamma=1, spatial=0.25)) > count(Imbalanced(gamma=1))


def test_with_one_strength_for_all_patches_it_is_pai(embedded):
    lvlm, images = embedded
    inputs = lvlm.prepare(images, ["What is this?", "Is there a dog in the image?"])
    run = lambda decoder: veridical.generate(
        lvlm, inputs, [decoder], return_logits=True, max_new_tokens=3, do_sample=False
    ).logits
    all_of_them = Imbalanced(local=0.5, summary=0.5, ratio=1.0, gamma=1)
    torch.testing.assert_close(run(all_of_them), run(PAI(alpha=0.5, gamma=1)), rtol=0, atol=1e-4)


def test_only_the_newest_row_changes_and_not_in_the_first_two_layers(embedded):
    """Keys and values of a layer are those of the states below it, so that they are older rows' own."""
    lvlm, images = embedded
    inputs = lvlm.prepare(images[:1], ["What is this?"])

    def states(decoders):
        kept = []
        look = lambda module, given, output: kept.append(output if isinstance(output, torch.Tensor) else output[0])
        handles = [layer.register_forward_hook(look) for layer in lvlm.layers]
        try:
            veridical.generate(lvlm, inputs, decoders, max_new_tokens=1, do_sample=False)
        finally:
            for handle in handles:
                handle.remove()
        return kept

    plain, boosted = states([]), states([Imbalanced(gamma=1)])
    assert len(plain) == len(boosted) == len(lvlm.layers)
    for layer, (before, after) in enumerate(zip(plain, boosted, strict=True)):
        torch.testing.assert_close(after[:, :-1], before[:, :-1], rtol=1e-5, atol=1e-5)
        moved = float((after - before)[:, -1].abs().max())
        assert (moved > 1e-3) == (layer >= 2), layer
