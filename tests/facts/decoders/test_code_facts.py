"""CODE's distance, contrast and splice, in numbers from its specification (six decimals)."""

import math

import pytest
import torch

import veridical
from veridical.datasets.world import scene
from veridical.decoders import description as own
from veridical.decoders.code import CODE, contrasted, distance
from veridical.decoders.rewritten import image_runs, rebuilt, spliced, unpadded
from veridical.pipelines.engine.declarations import Step
from veridical.testing.tiny import batch, prompt, tiny_llava

from ...contract.table import SomeWords

EXAMPLE = torch.tensor([[2, 1.5, 1.2, -1]]), torch.tensor([[2.5, 0.5, 1, -4]])


def close(found, expected, tolerance=1e-6):
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(found.double().reshape(expected.shape), expected, rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module")
def embedded():
    return veridical.load("embedded", device="cpu")


@pytest.fixture(scope="module")
def tiny():
    return veridical.LVLM(tiny_llava(8, 2))


# ---------------------------------------------------------------------- distance, contrast, cut


@pytest.mark.parametrize(
    ("p", "q", "expected"),
    [
        ((0.5, 0.3, 0.2), (0.2, 0.3, 0.5), {0.2: 0.585714, 0.5: 0.441103, 0.7: 0.361572, 1: 0.264958, 2: 0.087030}),
        ((0.7, 0.3), (0.5, 0.5), {0.2: 0.786412, 0.7: 0.405046, 1: 0.263034}),
        ((0.5, 0.5), (0.5 + 2**-11, 0.5 - 2**-11), {0.2: 0.284085, 0.7: 0.006922, 1: 0.000704}),
    ],
)
def test_the_distance_by_its_exponent(p, q, expected):
    p, q = torch.tensor([p]).double(), torch.tensor([q]).double()
    for power, value in expected.items():
        close(distance(p, q, power), [value])
        close(distance(q, p, power), [value])


@pytest.mark.parametrize("power", [0.2, 0.7, 1.0, 2.0])
def test_disjoint_distributions_are_one_apart_and_equal_ones_nothing(power):
    p, q = torch.tensor([[0.5, 0.5, 0, 0]]), torch.tensor([[0, 0, 0.25, 0.75]])
    close(distance(torch.tensor([[1.0, 0]]), torch.tensor([[0.0, 1]]), power), [1])
    close(distance(p, p, power), [0])
    assert float(distance(p, q, power)) <= 1


def test_an_exponent_of_zero_is_a_distance_of_one_and_leaves_the_best_token():
    p = torch.tensor([[0.5, 0.3, 0.2]])
    close(distance(p, p, 0), [1])
    close(contrasted(*EXAMPLE, 0), [2, -math.inf, -math.inf, -math.inf])


@pytest.mark.parametrize(
    ("power", "far", "z"),
    [
        (0.7, 0.395592, (1.697796, 2.104408, 1.320882, -math.inf)),
        (0.2, 0.772334, (1.886167, -math.inf, -math.inf, -math.inf)),
        (1.0, 0.263829, (1.631914, 2.236171, 1.347234, -math.inf)),
        (2.0, 0.067710, (1.533855, 2.432290, 1.386458, -math.inf)),
    ],
)
def test_contrast_and_cut_follow_the_distance(power, far, z):
    close(distance(*(one.softmax(1) for one in EXAMPLE), power), [far])
    close(contrasted(*EXAMPLE, power), z)


def test_the_default_exponents_choice():
    mixed = CODE().mix(EXAMPLE[0], Step(branches={"code": EXAMPLE[1]}))
    close(mixed.softmax(1), [0.313706, 0.471099, 0.215195, 0])


def test_equal_branches_leave_the_logits_and_cut_nothing():
    close(contrasted(EXAMPLE[0], EXAMPLE[0], 0.7), EXAMPLE[0][0])


def test_each_row_has_its_own_distance():
    pair = [torch.cat([one, two]) for one, two in zip(EXAMPLE, reversed(EXAMPLE), strict=True)]
    close(contrasted(*pair, 0.7)[:1], contrasted(*EXAMPLE, 0.7))
    close(contrasted(*pair, 0.7)[1:], contrasted(*reversed(EXAMPLE), 0.7))


def test_the_distance_is_at_most_one_and_the_best_token_always_stays():
    """In float32 a sum of 101 rounded terms exceeds 1 without the clamp."""
    logits = torch.randn(64, 101, generator=torch.Generator().manual_seed(0))
    z = contrasted(logits, logits.flip(1), 0.0)
    assert torch.equal(z.argmax(1), logits.argmax(1))
    assert bool((z.isfinite().sum(1) == 1).all())


def test_half_precision_logits_are_compared_in_float32():
    one, other = torch.zeros(1, 2, dtype=torch.float16), torch.tensor([[2**-9, 0]]).half()
    expected = distance(one.double().softmax(1), other.double().softmax(1), 0.2)
    assert 0.1 < float(expected) < 0.5
    close(contrasted(one, other, 0.2), -(1 - expected) * other.double(), 1e-3)
    assert contrasted(one, other, 0.2).dtype == torch.float16


# ---------------------------------------------------------------------- the description in the image's place


def put(row, texts, inside=()):
    runs = image_runs(row, 4, inside)
    return tuple(spliced(row, runs, texts * len(runs) if len(texts) == 1 else texts))


def test_the_whole_run_of_placeholders_is_replaced():
    assert put((1, 9, 4, 4, 4, 7), [(50, 51)]) == (1, 9, 50, 51, 7)
    assert put((1, 4, 4, 9, 4, 7), [(50,)]) == (1, 50, 9, 50, 7)
    assert put((1, 9, 4, 4, 4, 7), [()]) == (1, 9, 7)
    assert put((1, 4, 4, 9, 4, 7), [(50,), (60, 61)]) == (1, 50, 9, 60, 61, 7)
    assert put((1, 7), [(50,)]) == (1, 7)
    assert put((4, 4), [(50,)]) == (50,)


def test_separators_between_the_tiles_of_one_image_go_with_it():
    assert put((1, 8, 4, 4, 9, 4, 7), [(50,)], inside={8}) == (1, 8, 50, 7)  # a tile's name stands in front of it
    assert put((1, 4, 4, 8, 4, 4, 9), [(50,)], inside={8}) == (1, 50, 9)  # a row's end behind it
    assert put((1, 8, 4, 6, 4, 9, 4, 7), [(50,)], inside={8}) == (1, 8, 50, 9, 50, 7)


def test_a_description_of_two_tiles_and_the_whole_in_idefics3s_own_prompt():
    from ...families.models.tiny_processors import processor
    from ...families.setting import setting

    lvlm = veridical.LVLM(setting("idefics3").model, processor("idefics3"))
    inputs = lvlm.prepare([scene("test", 0).image.resize((64, 32))], ["Is it red?"])
    assert len(image_runs(unpadded(inputs)[0], lvlm.image_token)) > 1
    words = lvlm.processor.tokenizer("~^", add_special_tokens=False).input_ids
    branch = CODE(description=lambda inputs: [words]).branch(lvlm, inputs)
    text = lvlm.processor.tokenizer.decode(branch["input_ids"][0])
    start = "user: <fake_token_around_image><row_1_col_1>"
    assert text == start + "~^<fake_token_around_image>Is it red? assistant:"


def test_rows_of_any_length_become_left_padded_ones_of_text(tiny):
    inputs = batch([prompt(tiny.model, 3, 5, 1), prompt(tiny.model, 6, 7, 2)])
    inputs |= {"mm_token_type_ids": tiny.image_mask(inputs["input_ids"]).long()}
    found = rebuilt(tiny, inputs, [[1, 20], [1, 20, 21, 22]], images=False)
    assert {name: value.tolist() for name, value in found.items()} == {
        "input_ids": [[0, 0, 1, 20], [1, 20, 21, 22]], "attention_mask": [[0, 0, 1, 1], [1, 1, 1, 1]],
        "mm_token_type_ids": [[0] * 4] * 2,
    }  # fmt: skip
    rows = [[*row, 20][row.index(1):] for row in unpadded(inputs)]
    again = rebuilt(tiny, inputs, rows, images=True)
    assert torch.equal(again["pixel_values"], inputs["pixel_values"])
    assert torch.equal(again["mm_token_type_ids"], tiny.image_mask(again["input_ids"]).long())


def test_the_text_branch_has_the_description_and_no_image(tiny):
    inputs = batch([prompt(tiny.model, 3, 5, 1), prompt(tiny.model, 6, 7, 2)])
    found = CODE(description=SomeWords()).branch(tiny, inputs)
    assert "pixel_values" not in found
    words = [one.tolist() for one in SomeWords()(inputs)]
    for row, (was, now) in enumerate(zip(unpadded(inputs), unpadded(found), strict=True)):
        assert now == spliced(was, image_runs(was, 3), [words[row]])
        assert len(now) == len(was) - 16 + len(words[row])


# ---------------------------------------------------------------------- the model's own description


IMAGES = [scene("test", index).image for index in range(3)]
QUESTIONS = ["Is there a dog in the image?", "What is this?", "Is there a car in the image?"]


def test_the_description_is_the_models_own_answer_to_the_papers_request(embedded):
    inputs = embedded.prepare(IMAGES, QUESTIONS, system="Be brief.")
    found = own.own_descriptions(embedded, inputs, 24)
    texts = [embedded.processor.tokenizer.decode(ids).strip() for ids in found]
    questions = embedded.answer(IMAGES, [own.REQUEST] * 3, max_new_tokens=24, system="Be brief.")
    assert texts == [answer.text for answer in questions]
    assert len(set(texts)) == 3
    special = set(embedded.processor.tokenizer.all_special_ids)
    assert not special & {token for ids in found for token in ids}


def test_the_request_stands_where_the_question_stood(embedded):
    inputs = embedded.prepare(IMAGES, QUESTIONS)
    found, expected = own.requests(embedded, inputs), embedded.prepare(IMAGES, [own.REQUEST] * 3)
    assert unpadded(found) == unpadded(expected)
    assert torch.equal(found["pixel_values"], expected["pixel_values"])


def test_an_image_is_described_once_whatever_is_asked_of_it(embedded, monkeypatch):
    rows = []
    described = own._described

    def counted(lvlm, inputs, tokens):
        rows.append(len(inputs["input_ids"]))
        return described(lvlm, inputs, tokens)

    monkeypatch.setattr(own, "_described", counted)
    own._KNOWN.pop(embedded.model, None)
    first = own.own_descriptions(embedded, embedded.prepare([IMAGES[0], IMAGES[1], IMAGES[0]], QUESTIONS), 9)
    second = own.own_descriptions(embedded, embedded.prepare([IMAGES[2], IMAGES[1], IMAGES[0]], QUESTIONS[::-1]), 9)
    assert rows == [2, 1]
    assert first == [second[2], second[1], second[2]]
    own.own_descriptions(embedded, embedded.prepare(IMAGES[:1], QUESTIONS[:1]), 8)
    assert rows == [2, 1, 1], "another length is another description"


def test_a_model_whose_weights_have_changed_describes_anew():
    from ...families.models.tiny_processors import processor
    from ...families.setting import setting

    lvlm = veridical.LVLM(setting("llava").family.build(), processor("llava"))
    inputs = lvlm.prepare(IMAGES[:1], QUESTIONS[:1])
    before = own.own_descriptions(lvlm, inputs, 6)
    with torch.no_grad():
        lvlm.model.lm_head.weight.neg_()
    assert own.own_descriptions(lvlm, inputs, 6) != before


# ---------------------------------------------------------------------- settings and errors


@pytest.mark.parametrize(
    ("description", "message"),
    [
        (lambda inputs: [torch.tensor([5])], r"description gave 1 entries for 2 samples"),
        (lambda inputs: "text", r"description gave str 'text' for 2 samples"),
        (lambda inputs: [torch.tensor([5]), torch.tensor([[5]])], r"description gave \(1, 1\) int64 for sample 1"),
        (lambda inputs: [torch.tensor([5]), torch.tensor([0.5])], r"description gave \(1,\) float32 for sample 1"),
        (lambda inputs: [[5], [128]], r"description gave token 128 for sample 1; possible are 0 to 127"),
        (lambda inputs: [[3], [5]], r"description gave token 3 for sample 0.*not the image's placeholder 3"),
        (lambda inputs: [[[5], [6]], [7]], r"description gave 2 texts for the 1 images of sample 0"),
        (None, r"no processor that could ask for a description of the image: give description=…"),
    ],
)
def test_a_description_that_cannot_be_used_is_refused(tiny, description, message):
    inputs = batch([prompt(tiny.model, 3, 5, 1), prompt(tiny.model, 6, 7, 2)])
    with pytest.raises(ValueError, match=message):
        veridical.generate(tiny, inputs, [CODE(description=description)], max_new_tokens=1)


def test_inputs_without_an_image_have_nothing_to_describe(embedded):
    inputs = embedded.prepare(IMAGES[:1], QUESTIONS[:1])
    del inputs["pixel_values"]
    with pytest.raises(ValueError, match="there is no image to describe: inputs lack pixel_values; found"):
        veridical.generate(embedded, inputs, ["code"], max_new_tokens=1)


def test_values_outside_their_range_are_refused():
    for options, message in [
        ({"power": -1}, "code: power=-1 is below 0"), ({"max_new_tokens": -1}, "max_new_tokens=-1 is below 0"),
        ({"description": "a dog"}, "description='a dog' cannot be called"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            CODE(**options)


def test_the_defaults_are_the_released_command_lines():
    assert CODE() == CODE.official() == CODE(power=0.7, description=None, max_new_tokens=512)


def test_a_branch_of_text_follows_the_main_rows_step_by_step(tiny):
    inputs, seen = prompt(tiny.model, 3, 5, 1), []
    words = CODE(description=lambda inputs: [[20, 21]])

    def watch(self, logits, step):
        seen.append((list(step.branches), step.index))
        return CODE.mix(self, logits, step)

    class Watched(CODE):
        mix = watch

    out = veridical.generate(tiny, inputs, [Watched(**vars(words))], max_new_tokens=3, do_sample=False)
    assert [index for _, index in seen] == [0, 1, 2]
    assert seen[0][0] == ["main", "watched"]
    assert out.ids.shape == (1, 3)
