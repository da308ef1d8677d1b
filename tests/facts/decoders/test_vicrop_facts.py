"""ViCrop: where the window is cut, by numbers that can be checked by hand; then the maps on the shipped model."""

import pytest
import torch
from PIL import Image

import veridical
from veridical.datasets.world import scene
from veridical.decoders.procedures import vicrop
from veridical.decoders.procedures.crop import best_crop, edges, pooled, relative, tiles, weighted
from veridical.decoders.procedures.vicrop import ViCrop, default_layer
from veridical.pipelines.inputs import prompts
from veridical.pipelines.model.gradients import attention_gradient, pixel_gradient
from veridical.pipelines.procedures import Call

RATIOS = ViCrop().ratios
QUESTION = "Is there a dog in the image?"


def patch(rows, columns, size=24):
    importance = torch.zeros(size, size)
    importance[rows, columns] = 1
    return importance


# -- the window ----------------------------------------------------------------------------------------------------
def test_the_worked_window():
    """Ones at rows 4–7, columns 16–19: 6 × 6 cells at (14, 2) stand out by 2/36, more than any larger window."""
    importance = patch(slice(4, 8), slice(16, 20))
    crop = best_crop(importance, (1344, 1344), 336, RATIOS)
    assert crop.box == (784, 112, 1120, 448)
    assert crop.sharpness == pytest.approx(0.055556, abs=1e-6)


@pytest.mark.parametrize(("ratio", "sharpness"), [(1.0, 0.055556), (1.2, 0.040816), (2.0, 0.009259)])
def test_the_sharpness_of_single_sizes(ratio, sharpness):
    """ρ = 1.2: 7 × 7 cells, (16 − 14)/49. ρ = 2: 12 × 12 at the edge, (16 − 44/3)/144, three neighbours."""
    crop = best_crop(patch(slice(4, 8), slice(16, 20)), (1344, 1344), 336, (ratio,))
    assert crop.sharpness == pytest.approx(sharpness, abs=1e-6)


def test_a_lone_peak_stands_out_nowhere():
    crop = best_crop(patch(10, 10), (672, 672), 336, RATIOS)
    assert crop.sharpness == 0
    assert crop.box == (0, 0, 336, 336)


def test_an_image_no_larger_than_the_crop_is_taken_whole():
    crop = best_crop(torch.rand(24, 24), (300, 300), 336, RATIOS)
    assert crop.whole
    assert crop.box == (0, 0, 300, 300)


def test_equal_maps_tie_everywhere():
    same = torch.rand(24, 24) * 1e-3
    importance = relative(same, same)
    assert torch.equal(importance, torch.ones(24, 24))
    crop = best_crop(importance, (1344, 1344), 336, RATIOS)
    assert (crop.box, crop.sharpness) == ((0, 0, 336, 336), 0)


def test_nothing_over_nothing_is_one_and_never_infinite():
    assert relative(torch.tensor([0.0, 1e-3]), torch.tensor([0.0, 0.0])).isfinite().all()


@pytest.mark.parametrize("size", [(1344, 1344), (640, 480), (480, 640), (400, 2000), (9000, 337)])
def test_the_crop_is_inside_and_square_where_it_fits(size):
    for seed in range(5):
        importance = torch.rand(24, 24, generator=torch.Generator().manual_seed(seed))
        left, top, right, bottom = best_crop(importance, size, 336, RATIOS).box
        assert 0 <= left < right <= size[0]
        assert 0 <= top < bottom <= size[1]
        if right - left < size[0] and bottom - top < size[1]:
            assert right - left == bottom - top
            nearest = min(RATIOS, key=lambda ratio: abs(ratio * 336 - right + left))
            assert (right - left) / 336 == pytest.approx(nearest, abs=2e-3)


def test_a_factor_on_the_map_leaves_the_box_and_scales_the_sharpness():
    importance = torch.rand(24, 24, generator=torch.Generator().manual_seed(0)).double()
    one, seven = (best_crop(c * importance, (1344, 1000), 336, RATIOS) for c in (1, 7))
    assert one.box == seven.box
    assert seven.sharpness == pytest.approx(7 * one.sharpness)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((2000, 1000), (1, 2)), ((1025, 1025), (2, 2)), ((1024, 1024), (1, 1)), ((500, 2000), (2, 1))],
)
def test_tiles_of_a_large_image(size, expected):
    """The last one has no column in the released code."""
    assert tiles(size, 1024) == expected


# -- maps ----------------------------------------------------------------------------------------------------------
def test_gradients_below_zero_count_for_nothing():
    attention = torch.tensor([[0.2, 0.3], [0.4, 0.1]])
    gradient = torch.tensor([[1.0, -1.0], [0.5, 2.0]])
    assert torch.allclose(weighted(attention, gradient), torch.tensor([0.2, 0.1]))
    assert (weighted(attention, torch.zeros(2, 2)) == 0).all()


def test_edges_are_where_the_image_changes():
    image = torch.zeros(3, 24, 24)
    image[:, :, 12:] = 1
    for kernel in (3, 7):
        found = edges(image, kernel)
        assert not found[:, :6].any()
        assert not found[:, 18:].any()
    assert edges(image, 3)[:, 11:13].all()
    assert not edges(torch.ones(3, 24, 24), 3).any()


def test_pooling_takes_the_means_of_patches():
    values = torch.arange(16.0).reshape(4, 4)
    assert pooled(values, (2, 2)).tolist() == [[2.5, 4.5], [10.5, 12.5]]


def test_the_layer_is_that_of_the_paper_in_proportion():
    assert [default_layer(count) for count in (32, 8, 2, 1)] == [14, 4, 1, 0]


# -- on the shipped model ------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def lvlm():
    return veridical.load("embedded", device="cpu")


@pytest.fixture(scope="module")
def images():
    return [scene("test", index).image for index in range(2)]


@pytest.fixture(scope="module")
def call(lvlm):
    return Call(lvlm, [], [], None, {"do_sample": False, "max_new_tokens": 6})


@pytest.mark.parametrize("importance", vicrop.MAPS)
def test_a_map_has_a_number_for_every_image_token(call, images, importance):
    found = ViCrop(importance=importance).map_of(call, images[0], QUESTION)
    assert found.shape == (8, 8)
    assert (found >= 0).all()
    assert found.std() > 0


def test_the_general_question_measured_against_itself_stands_out_nowhere(call, images, lvlm):
    method = ViCrop()
    found = method.map_of(call, images[0], method.generic)
    torch.testing.assert_close(found, torch.ones(8, 8), rtol=1e-4, atol=0)


def test_the_suffix_for_short_answers_stands_in_both_prompts_or_in_neither(call, images, monkeypatch):
    """As released, in both: "… Answer the question using a single word or phrase."."""
    requests = []
    inputs = type(call).inputs

    def noted(self, shown, texts):
        requests.extend(texts)
        return inputs(self, shown, texts)

    monkeypatch.setattr(type(call), "inputs", noted)
    short = "Answer the question using a single word or phrase."
    framed = prompts.framed(QUESTION, "@vicrop")
    ViCrop().map_of(call, images[0], framed)
    ViCrop().map_of(call, images[0], QUESTION)
    general = "Write a general description of the image."
    assert requests == [f"{QUESTION} {short}", f"{general} {short}", QUESTION, general]
    assert ViCrop().generic_for(f"{QUESTION}\n{short}") == f"{general}\n{short}"
    assert ViCrop(suffix="").generic_for(framed) == general


def test_the_suffix_alone_raises_no_part_of_the_map(call, images):
    """With the general question in the prompt for short answers both prompts are one and the ratio is 1."""
    method = ViCrop()
    found = method.map_of(call, images[0], f"{method.generic} {method.suffix}")
    torch.testing.assert_close(found, torch.ones(8, 8), rtol=1e-4, atol=0)


def test_attention_of_the_map_is_the_models_own(call, images, lvlm):
    """Against transformers' output_attentions on an eager copy, layer by layer."""
    eager = veridical.load("embedded", device="cpu", attention="eager")
    inputs = call.inputs(images[:1], [QUESTION])
    with torch.no_grad():
        theirs = eager.model(**inputs, output_attentions=True).attentions
    for layer in (0, 4, 7):
        ours = attention_gradient(lvlm, inputs, layer)[0]
        torch.testing.assert_close(ours, theirs[layer][0, :, -1], rtol=0, atol=1e-5)


def test_the_gradient_by_attention_is_the_change_that_a_little_more_attention_makes(call, images):
    """Three entries, a hundredth more and less. Float64, but for norms, which are taken in float32 even there: 1e-4."""
    from veridical.pipelines.engine.declarations import AttentionEdit
    from veridical.pipelines.engine.run import prefill

    double = veridical.load("embedded", device="cpu", dtype=torch.float64)
    inputs = call.inputs(images[:1], [QUESTION])
    slope = attention_gradient(double, inputs, 4)[1]

    def surest(step, head, key):
        def add(probabilities, _):
            probabilities[:, head, -1, key] += step
            return probabilities

        return float(prefill(double, inputs, [AttentionEdit([4], add)]).branches["main"].log_softmax(-1).amax())

    for head, key in ((0, 3), (2, 20), (5, 60)):
        measured = (surest(1e-2, head, key) - surest(-1e-2, head, key)) / 2e-2
        assert float(slope[head, key]) == pytest.approx(measured, rel=1e-4)


def test_gradients_leave_nothing_behind(lvlm, call, images):
    inputs = call.inputs(images[:1], [QUESTION])
    attention_gradient(lvlm, inputs, 3)
    pixel_gradient(lvlm, inputs)
    assert all(weight.grad is None for weight in lvlm.model.parameters())
    assert not any(layer.self_attn.config._attn_implementation == "veridical" for layer in lvlm.layers)


def test_answers_do_not_depend_on_the_batch_and_say_where_was_cut(lvlm, images):
    together = lvlm.answer(images, QUESTION, decoders=["vicrop", "vcd"], detectors=["entropy"])
    alone = lvlm.answer(images[1], QUESTION, decoders=["vicrop", "vcd"])[0]
    assert alone.text == together[1].text
    assert alone.acted["vicrop"] == pytest.approx(together[1].acted["vicrop"], abs=1e-4)
    report = together[0].acted["vicrop"]
    assert (report["steps"], report["acted"]) == (1, 1)
    assert 96 <= report["right"] - report["left"] <= 192
    assert together[0].acted["vcd"]["acted"] > 0
    assert len(together[0].risk["entropy"]) == len(together[0].tokens)
    assert together[0].settings["decoders"][0] == repr(ViCrop())


def test_the_answer_is_that_to_the_image_and_the_crop(lvlm, call, images):
    method = ViCrop()
    crop = method.crop(call, images[0], QUESTION)
    inputs = call.inputs([[images[0], images[0].crop(crop.box)]], [QUESTION])
    assert lvlm.image_mask(inputs["input_ids"]).sum() == 2 * 64
    expected = call.generate(inputs, [0]).text[0]
    assert lvlm.answer(images[0], QUESTION, decoders=[method], max_new_tokens=6)[0].text == expected


def test_without_a_crop_the_answer_is_the_plain_one_and_the_code_shows_the_image_twice(lvlm, call, images):
    plain = lvlm.caption(images[0], max_new_tokens=12)[0]
    ours = lvlm.caption(images[0], decoders=[ViCrop(side=300)], max_new_tokens=12)[0]
    assert ours.text == plain.text
    assert ours.acted["vicrop"]["acted"] == 0
    theirs = lvlm.caption(images[0], decoders=[ViCrop(side=300, mode="official")], max_new_tokens=12)[0]
    twice = call.generate(call.inputs([[images[0]] * 2], ["Please describe this image in detail."]), [0],
                          max_new_tokens=12).text[0]  # fmt: skip
    assert theirs.text == twice


def test_an_oblong_image_is_mapped_whole_and_by_the_code_in_its_middle(lvlm):
    wide = Image.new("RGB", (400, 200))
    assert ViCrop().whole(lvlm, wide).size == (400, 400)
    assert ViCrop.official().whole(lvlm, wide).size == (400, 200)
    square = Image.new("RGB", (192, 192))
    assert ViCrop().whole(lvlm, square) is square


def test_tiles_give_a_map_of_all_of_them_side_by_side(call):
    wide = Image.new("RGB", (200, 100), "red")
    assert ViCrop(tile=100).map(call, wide, QUESTION).shape == (8, 16)


def test_an_image_that_cannot_be_read_is_a_row_of_its_own(lvlm, images):
    good, bad = lvlm.answer([images[0], "nowhere.png"], QUESTION, decoders=["vicrop"], errors="row")
    assert good.error is None
    assert "nowhere.png does not exist" in bad.error


# -- settings ------------------------------------------------------------------------------------------------------
def test_the_defaults_are_the_papers_and_official_is_the_released_code():
    assert ViCrop().ratios == (1.0, 1.2, 1.4, 1.6, 1.8, 2.0)
    assert ViCrop().generic == "Write a general description of the image."
    assert (vicrop.MEDIAN["paper"], vicrop.MEDIAN["official"]) == (3, 7)
    assert ViCrop.official() == ViCrop(mode="official")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"importance": "sam"}, "importance='sam' is none of 'rel_att'"),
        ({"layer": -1}, "layer=-1 is below 0"),
        ({"side": 0}, "side=0 is below 1"),
        ({"ratios": ()}, "ratios is empty"),
        ({"ratios": (1.0, 0)}, "ratios=0 is below 0.01"),
        ({"generic": " "}, "generic is empty"),
        ({"mode": "code"}, "mode='code' is none of"),
    ],
)
def test_values_outside_their_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ViCrop(**options)


def test_a_layer_that_the_model_lacks_is_refused(lvlm, images):
    with pytest.raises(ValueError, match="layer 8, but this model's layers are 0 to 7"):
        lvlm.answer(images[0], QUESTION, decoders=[ViCrop(layer=8)])
