"""ICD's disturbed prompt and contrast."""

import math

import pytest
import torch

import veridical
from veridical.decoders.icd import ICD
from veridical.decoders.prefix import insert, question_starts
from veridical.pipelines.engine.declarations import Step


@pytest.fixture(scope="module")
def embedded():
    return veridical.load("embedded", device="cpu")


class Tensors:
    """A model that takes tensors only; 3 is the image."""

    name, processor, image_token = "tensors", None, 3

    class model:
        @staticmethod
        def get_input_embeddings():
            return torch.nn.Embedding(50, 2)

    def image_mask(self, ids):
        return ids == 3


INPUTS = {
    "input_ids": torch.tensor([[0, 0, 1, 3, 3, 7, 8], [1, 3, 3, 4, 5, 6, 7]]),
    "attention_mask": torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1]]),
    "mm_token_type_ids": torch.tensor([[0, 0, 0, 1, 1, 0, 0], [0, 1, 1, 0, 0, 0, 0]]),
    "pixel_values": torch.ones(2, 3, 4, 4),
}


def test_the_disturbance_stands_behind_the_image_and_everything_grows_along():
    out = insert(INPUTS, question_starts(Tensors(), INPUTS), [40, 41])
    assert out["input_ids"].tolist() == [[0, 0, 1, 3, 3, 40, 41, 7, 8], [1, 3, 3, 40, 41, 4, 5, 6, 7]]
    assert out["attention_mask"].tolist() == [[0, 0, 1, 1, 1, 1, 1, 1, 1], [1] * 9]
    assert out["mm_token_type_ids"].tolist() == [[0, 0, 0, 1, 1, 0, 0, 0, 0], [0, 1, 1, 0, 0, 0, 0, 0, 0]]
    assert out["pixel_values"] is INPUTS["pixel_values"]


def test_padding_behind_the_image_stays_in_front_of_the_text():
    """InstructBLIP puts the image before the padding."""
    inputs = {
        "input_ids": torch.tensor([[3, 3, 0, 0, 1, 7]]),
        "attention_mask": torch.tensor([[1, 1, 0, 0, 1, 1]]),
    }
    assert question_starts(Tensors(), inputs) == [4]


def test_with_a_processor_the_sentence_stands_right_before_the_question(embedded):
    from veridical.datasets.world import scene

    image = scene("test", 0).image
    inputs = embedded.prepare([image] * 2, ["Is there a dog in the image?", "What is this?"])
    branch, _ = ICD().edits(embedded, inputs)
    texts = [
        embedded.processor.tokenizer.decode(ids[ids != embedded.image_token], skip_special_tokens=True)
        for ids in branch.inputs["input_ids"]
    ]
    assert "\nYou are a confused object detector. Is there a dog in the image?" in texts[0]
    assert "\nYou are a confused object detector. What is this?" in texts[1]
    grown = branch.inputs["input_ids"].shape[1] - inputs["input_ids"].shape[1]
    assert (branch.inputs["attention_mask"].sum(1) - inputs["attention_mask"].sum(1)).tolist() == [grown, grown]
    assert torch.equal(
        embedded.image_mask(branch.inputs["input_ids"]).sum(1), embedded.image_mask(inputs["input_ids"]).sum(1)
    )


def test_without_a_processor_token_ids_are_asked_for():
    with pytest.raises(ValueError, match=r"tensors has no processor .* give prefix_ids=\(…\)"):
        list(ICD().edits(Tensors(), INPUTS))


def test_ids_that_are_no_words_are_refused():
    with pytest.raises(ValueError, match=r"prefix_ids \[50, 3\] are no words of this model: 0 to 49"):
        list(ICD(prefix_ids=(50, 3, 9)).edits(Tensors(), INPUTS))


def test_the_contrast_and_its_cut():
    step = Step(branches={"icd": torch.tensor([[2.5, 0.5, 1.0, -4.0]])})
    z = ICD(alpha=1.0).mix(torch.tensor([[2.0, 1.5, 0.0, -1.0]]), step)
    assert z.tolist() == [[1.5, 2.5, -1.0, -math.inf]]


def test_the_released_disturbance_is_another_sentence():
    assert ICD.official().prefix.startswith("You are a confused objects detector to provide a fuzzy")
    assert ICD.official().alpha == ICD().alpha == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": -1}, "alpha=-1 is below 0"),
        ({"beta": 2}, "beta=2 is outside 0 to 1"),
        ({"prefix": " "}, "prefix is empty"),
        ({"prefix": 3}, "prefix=3 is no text"),
        ({"prefix_ids": ()}, "prefix_ids is empty"),
        ({"prefix_ids": 5}, "prefix_ids=5 is no list of whole numbers"),
        ({"prefix_ids": (5, "a")}, r"prefix_ids=\(5, 'a'\) are not all whole numbers"),
    ],
)
def test_values_outside_their_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ICD(**options)


def test_ids_given_as_a_list_hash_and_print():
    method = ICD(prefix_ids=[1, 2])
    assert hash(method) == hash(ICD(prefix_ids=(1, 2)))
    assert eval(repr(method)) == method
