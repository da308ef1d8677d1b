"""MARINE's mixture and guided prompt, in numbers from its specification (six decimals)."""

import json

import pytest
import torch

import veridical
from veridical.datasets.world import scene
from veridical.decoders.marine import MARINE, guided_rows, mixture
from veridical.decoders.rewritten import unpadded
from veridical.pipelines.engine.declarations import Step
from veridical.pipelines.inputs.objects_file import fingerprint, objects_line, objects_of, read_objects
from veridical.testing.tiny import batch, prompt, tiny_llava

PLAIN, GUIDED = torch.tensor([[2.0, 1, 0]]), torch.tensor([[0.0, 2, 1]])
IMAGES = [scene("test", index).image for index in range(3)]


def close(found, expected, tolerance=1e-6):
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(found.double().reshape(expected.shape), expected, rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module")
def embedded():
    return veridical.load("embedded", device="cpu")


@pytest.fixture(scope="module")
def tiny():
    return veridical.LVLM(tiny_llava(8, 2))


# ---------------------------------------------------------------------- the mixture


def test_log_probabilities_are_mixed_and_normalised():
    close(PLAIN.log_softmax(1), [-0.407606, -1.407606, -2.407606])
    mixed = MARINE().mix(PLAIN, Step(branches={"marine": GUIDED}))
    close(mixed, [-1.631070, -0.531070, -1.531070])
    close(mixed.exp(), [0.195720, 0.587976, 0.216304])


@pytest.mark.parametrize(
    ("gamma", "expected"),
    [(0.3, (0.446886, 0.404359, 0.148755)), (1.5, (0.021599, 0.715268, 0.263132))],
)
def test_the_mixture_by_its_share(gamma, expected):
    close(mixture(PLAIN, GUIDED, gamma).exp(), expected)


def test_the_winner_changes_at_a_third():
    assert [int(mixture(PLAIN, GUIDED, gamma).argmax()) for gamma in (0.333, 0.334)] == [0, 1]


def test_it_is_no_mixture_of_probabilities_but_one_of_logits_up_to_a_constant():
    probabilities = 0.3 * PLAIN.softmax(1) + 0.7 * GUIDED.softmax(1)
    close(probabilities, [0.262594, 0.539087, 0.198319])
    assert float((mixture(PLAIN, GUIDED, 0.7).exp() - probabilities).abs().max()) > 0.04
    close(mixture(PLAIN, GUIDED, 0.7).exp(), (0.3 * PLAIN + 0.7 * GUIDED).softmax(1)[0])


def test_the_ends_are_the_plain_and_the_guided_prompt_and_equal_prompts_are_plain():
    close(mixture(PLAIN, GUIDED, 0), PLAIN.log_softmax(1)[0])
    close(mixture(PLAIN, GUIDED, 1), GUIDED.log_softmax(1)[0])
    for gamma in (0.3, 1.0, 2.5):
        close(mixture(PLAIN, PLAIN, gamma), PLAIN.log_softmax(1)[0])


@pytest.mark.parametrize("gamma", [0.0, 0.7, 1.0, 3.0])
def test_no_token_is_cut_and_a_token_that_was_cut_before_stays_cut(gamma):
    assert mixture(PLAIN, GUIDED, gamma).isfinite().all()
    before = torch.tensor([[2.0, -torch.inf, 0]])
    mixed = mixture(before, GUIDED, gamma)
    assert mixed.isneginf().tolist() == [[False, True, False]]
    assert not mixed.isnan().any()


# ---------------------------------------------------------------------- the guided prompt


def test_the_objects_stand_behind_the_question_and_in_front_of_the_templates_end(embedded):
    inputs = embedded.prepare(IMAGES, ["Is there a dog in the image?", "What is this?", "Is it a book?"])
    rows = guided_rows(embedded, inputs, [("dog", "tv"), (), ("book",)])
    requests = ["Is there a dog in the image? Focus on the visible objects in this image: dog, tv.", "What is this?",
             "Is it a book? Focus on the visible objects in this image: book."]  # fmt: skip
    assert rows == unpadded(embedded.prepare(IMAGES, requests))
    assert len({len(row) for row in rows}) == 3


def test_a_system_prompt_and_earlier_turns_stay(embedded):
    inputs = embedded.prepare(IMAGES[:1], [("What is this?", "A dog.", "Is it red?")], system="Be brief.")
    (row,) = guided_rows(embedded, inputs, [("dog",)])
    text = embedded.processor.tokenizer.decode([token for token in row if token != embedded.image_token])
    assert text.index("Be brief.") < text.index("A dog.") < text.index("Is it red? Focus on the visible objects")
    assert text.endswith(": dog. ASSISTANT:")


def test_the_guided_branch_has_the_images_and_their_kinds(embedded):
    inputs = embedded.prepare(IMAGES, ["Is it red?", "What is this?", "Is it a book?"])
    branch = MARINE(objects=(("dog", "tv"), (), ("cat",))).branch(embedded, inputs)
    assert torch.equal(branch["pixel_values"], inputs["pixel_values"])
    images = [embedded.image_mask(one["input_ids"]).sum(1) for one in (inputs, branch)]
    assert torch.equal(*images)
    assert branch["input_ids"].shape[1] > inputs["input_ids"].shape[1]
    assert torch.equal(branch["attention_mask"].sum(1), torch.tensor([len(row) for row in unpadded(branch)]))


def run(lvlm, inputs, decoders):
    return veridical.generate(lvlm, inputs, decoders, return_logits=True, max_new_tokens=3, do_sample=False)


def test_a_whole_share_is_the_guided_prompt_decoded_alone(embedded):
    requests = ["Is it red? Focus on the visible objects in this image: dog."] * 2
    guided = run(embedded, embedded.prepare(IMAGES[:2], requests), [])
    found = run(embedded, embedded.prepare(IMAGES[:2], ["Is it red?"] * 2), [MARINE(gamma=1, objects=("dog",))])
    assert torch.equal(found.ids, guided.ids)
    close(found.logits, guided.logits.log_softmax(-1), 1e-4)


@pytest.mark.filterwarnings("ignore::veridical.pipelines.generate.NeverActed")
@pytest.mark.parametrize("gamma", [0.7, 1.5])
def test_without_objects_it_is_plain_decoding(embedded, gamma):
    inputs = embedded.prepare(IMAGES[:2], ["Is it red?", "What is this?"])
    found = run(embedded, inputs, [MARINE(gamma=gamma, objects=((), ()))])
    plain = run(embedded, inputs, [])
    assert torch.equal(found.ids, plain.ids)
    close(found.logits, plain.logits.log_softmax(-1), 1e-4)


def test_objects_may_come_from_a_function_of_inputs_and_prompts(embedded):
    inputs = embedded.prepare(IMAGES[:2], ["Is there a dog?", "Is there a cat?"])
    requests = []

    def objects(inputs, prompts):
        requests.extend(prompts)
        return [["dog"], ["cat", "tv"]]

    one, other = (run(embedded, inputs, [MARINE(objects=given)]) for given in (objects, (("dog",), ("cat", "tv"))))
    assert torch.equal(one.logits, other.logits)
    assert ["dog" in prompt for prompt in requests] == [True, False]


# ---------------------------------------------------------------------- objects from a file


@pytest.fixture
def file(tmp_path):
    """Two images with their fingerprints, in the other order, and one by its path alone."""
    IMAGES[2].save(tmp_path / "third.png")
    lines = [objects_line("b.png", IMAGES[1], ["cat"]), objects_line("a.png", IMAGES[0], []),
             json.dumps({"image": "third.png", "objects": ["tv", "dog"]}), ""]  # fmt: skip
    (tmp_path / "objects.jsonl").write_text("\n".join(lines))
    return tmp_path / "objects.jsonl"


def test_a_file_names_the_objects_of_each_image_by_its_pixels(embedded, file):
    assert objects_of(file, embedded.prepare(IMAGES, ["?"] * 3)) == [(), ("cat",), ("tv", "dog")]
    assert objects_of(file, embedded.prepare(IMAGES[::-1], ["?"] * 3)) == [("tv", "dog"), ("cat",), ()]
    assert objects_of(file, embedded.prepare([[IMAGES[1], IMAGES[2]], [IMAGES[1]]], ["?", "?"])) == [
        ("cat", "tv", "dog"), ("cat",),
    ]  # fmt: skip
    assert len(read_objects(file)) == 3


def test_answers_by_a_file_are_those_by_its_names_whatever_the_batches(embedded, file):
    short = {"max_new_tokens": 4}
    named = embedded.answer(IMAGES, "Is there a dog?", [MARINE(objects=((), ("cat",), ("tv", "dog")))], **short)
    for options in ({}, {"batch_size": 1}, {"batch_size": 2}):
        found = embedded.answer(IMAGES, "Is there a dog?", f"marine:objects='{file}'", **short, **options)
        assert [answer.text for answer in found] == [answer.text for answer in named]
    logits = [run(embedded, embedded.prepare(IMAGES, ["Is it?"] * 3), [MARINE(objects=given)]).logits
              for given in (str(file), ((), ("cat",), ("tv", "dog")))]  # fmt: skip
    assert torch.equal(*logits)


def test_equal_pixels_are_one_image_and_another_shape_is_another():
    assert fingerprint(IMAGES[0]) == fingerprint(IMAGES[0].copy()) != fingerprint(IMAGES[1])
    assert fingerprint(IMAGES[0].resize((8, 2))) != fingerprint(IMAGES[0].resize((4, 4)))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("dog", r"line 1: 'dog' is not a line such as"),
        ('{"image": "a.png"}', r"line 1: .* is not a line such as"),
        ('{"image": "a.png", "objects": "dog"}', r"line 1: objects='dog' is no list of names"),
        ('{"image": "a.png", "objects": [""]}', r"line 1: objects=\[''\] is no list of names"),
        ('{"image": "gone.png", "objects": []}', r"line 1: .*gone.png does not exist"),
    ],
)
def test_a_line_that_is_no_such_line_is_named(tmp_path, line, message):
    (tmp_path / "objects.jsonl").write_text(line + "\n")
    with pytest.raises(ValueError, match=message):
        read_objects(tmp_path / "objects.jsonl")


def test_an_image_that_the_file_does_not_have_is_refused(embedded, file):
    with pytest.raises(ValueError, match="has no line for an image of 192×192 pixels, only for 3 others"):
        embedded.answer([scene("test", 7).image], "Is it?", [MARINE(objects=str(file))], max_new_tokens=1)


def test_rows_that_say_nothing_of_their_images_need_names(embedded, file):
    inputs = dict(embedded.prepare(IMAGES, ["?"] * 3))
    with pytest.raises(ValueError, match="these inputs do not say which images they are of"):
        veridical.generate(embedded, inputs, [MARINE(objects=str(file))], max_new_tokens=1)


# ---------------------------------------------------------------------- settings and errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"MARINE needs to know what is in the images: give objects=…"),
        ({"objects": ("dog",)}, r"no processor, which writes objects into a prompt: give guide=…"),
        ({"guide": lambda inputs: [[5]]}, r"guide gave 1 entries for 2 samples"),
        ({"guide": lambda inputs: [[5], [6]]}, r"guide gave 0 image tokens for sample 0, whose prompt has 16"),
        ({"guide": lambda inputs: [[500], [6]]}, r"guide gave token 500 for sample 0; possible are 0 to 127"),
    ],
)
def test_what_cannot_be_a_guided_prompt_is_refused(tiny, options, message):
    inputs = batch([prompt(tiny.model, 3, 5, 1), prompt(tiny.model, 6, 7, 2)])
    with pytest.raises(ValueError, match=message):
        veridical.generate(tiny, inputs, [MARINE(**options)], max_new_tokens=1)


def test_a_prompt_that_does_not_end_as_the_template_does_needs_a_guide(embedded):
    inputs = embedded.prepare(IMAGES[:1], ["Is it red?"])
    inputs["input_ids"][0, -1] = embedded.processor.tokenizer("dog").input_ids[-1]
    with pytest.raises(ValueError, match=r"sample 0 does not end as the chat template of .* does.*give guide=…"):
        veridical.generate(embedded, inputs, [MARINE(objects=("dog",))], max_new_tokens=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": -1}, "marine: gamma=-1 is below 0"),
        ({"objects": ()}, None),
        ({"objects": 5}, "objects=5 are no names of objects"),
        ({"objects": ("dog", ("cat",))}, "are no names of objects"),
        ({"objects": ""}, "objects='' are no names of objects"),
        ({"guide": "text"}, "guide='text' cannot be called"),
        ({"objects": ("dog",), "guide": print}, "objects and guide both say what the guided prompt is"),
    ],
    ids=str,
)
def test_values_outside_their_range_are_refused(options, message):
    if message is None:
        assert MARINE(**options).objects == ()
        return
    with pytest.raises(ValueError, match=message):
        MARINE(**options)


def test_the_defaults_are_the_papers_and_the_released_scripts():
    assert MARINE() == MARINE.official() == MARINE(gamma=0.7, objects=None, guide=None)
    assert MARINE(objects=[["dog"], []]) == MARINE(objects=(("dog",), ()))
