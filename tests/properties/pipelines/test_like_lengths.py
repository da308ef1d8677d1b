"""Prompts of like length share a batch: less is padded, and answers and their order stay what they are."""

import pytest

import veridical
from veridical.datasets.examples import Example
from veridical.datasets.world import scene
from veridical.flows.evaluation import conversation
from veridical.pipelines.inputs import lengths

SHORT, LONG = "Is there a dog?", "Please describe this image in detail, with all that is in it."


@pytest.fixture(scope="module")
def lvlm():
    return veridical.load("embedded", device="cpu")


@pytest.fixture
def padded(lvlm):
    """Gives the padded positions of every prompt's pass."""
    found = []

    def count(module, args, kwargs):
        mask = kwargs.get("attention_mask")
        if kwargs["input_ids"].shape[1] > 1:
            found.append(0 if mask is None else int((mask == 0).sum()))

    hook = lvlm.model.register_forward_pre_hook(count, with_kwargs=True)
    yield found
    hook.remove()


def test_answers_are_the_same_in_the_same_order_and_less_is_padded(lvlm, padded):
    """Short and long questions in turns, four at a time."""
    images = [scene("test", index).image for index in range(8)]
    questions = [SHORT, LONG] * 4
    found = lvlm.answer(images, questions, batch_size=4, max_new_tokens=6)
    ours, began = sum(padded), len(padded)
    expected = []
    for first in (0, 4):
        part = slice(first, first + 4)
        expected += lvlm.answer(images[part], questions[part], batch_size=4, max_new_tokens=6)
    assert [one.text for one in found] == [one.text for one in expected]
    assert [one.settings["question"] for one in found] == questions
    assert ours == 0 < sum(padded[began:]), "batches in the order of the images pad every short question"


def test_images_keep_their_own_seeds(lvlm):
    images, questions = [scene("test", index).image for index in range(4)], [SHORT, LONG, SHORT, LONG]
    options = {"max_new_tokens": 6, "do_sample": True, "temperature": 2.0}
    found = lvlm.answer(images, questions, batch_size=2, seed=[5, 6, 7, 8], **options)
    for place, answer in enumerate(found):
        (alone,) = lvlm.answer(images[place], questions[place], seed=5 + place, **options)
        assert answer.text == alone.text


def test_evaluations_pad_less_and_questions_about_one_image_stay_together(lvlm):
    """Six questions about each of 12 images, whose lengths differ between images and a little within, 12 at a time."""
    more = ["", " Look at all of it.", " Look at all of it, and at what stands behind it."]
    asks = lambda image, number: SHORT + more[image % 3] + " Now." * (number % 2)
    examples = [
        Example(f"{image}-{number}", f"world:test/{image}", image, asks(image, number), "yes", frozenset())
        for image in range(12) for number in range(6)
    ]  # fmt: skip
    sizes = conversation.prompt_lengths(lvlm, examples, None)
    found = list(conversation.batches(examples, 12, sizes))
    assert sorted(place for part in found for place in part) == list(range(len(examples)))
    for part in found:
        assert len({examples[place].image for place in part}) == 2, "an image is encoded once in its batch"
    in_order = [range(first, first + 12) for first in range(0, len(examples), 12)]
    assert 2 * padding(sizes, found) < padding(sizes, in_order)


def padding(sizes, parts):
    return sum(max(sizes[place] for place in part) * len(part) - sum(sizes[place] for place in part) for part in parts)


def test_batches_do_not_reach_beyond_their_window():
    found = lengths.batches(range(40), range(40), size=2, window=4)
    assert [sorted(p for part in found[first : first + 4] for p in part) for first in range(0, 20, 4)] == [
        list(range(start, start + 8)) for start in range(0, 40, 8)
    ]
    assert found[0] == [7, 6]


def test_images_of_one_size_come_together(tmp_path):
    """From the headers of their files, where the processor cannot say how many tokens an image has."""
    from PIL import Image

    paths = []
    for place, side in enumerate((20, 40, 20, 40)):
        paths.append(tmp_path / f"{place}.png")
        Image.new("RGB", (side, side)).save(paths[-1])
    paths.append(tmp_path / "missing.png")
    found = lengths.lengths(None, paths, ["abc"] * 5)
    assert found == [403, 1603, 403, 1603, 3]
    assert lengths.batches(found, paths, 2) == [[1, 3], [0, 2], [4]]
