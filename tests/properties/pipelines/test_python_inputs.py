"""What is handed to the Python interface by mistake ends in an error that says what is possible."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

import veridical
from veridical.datasets.world import SPLITS, is_scene, scene
from veridical.pipelines.arguments import check_options
from veridical.pipelines.inputs.images import many_images
from veridical.pipelines.model.embedded import NotItsWorld
from veridical.pipelines.model.load import CannotLoad

ONE = {"max_new_tokens": 1}


@pytest.fixture(scope="module")
def lvlm():
    return veridical.load("embedded")


@pytest.fixture(scope="module")
def image():
    return scene("test", 0).image


@pytest.fixture(scope="module")
def photos(test_data):
    return sorted((test_data / "photos" / "mini").glob("*.jpg"))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"decoder": ["vcd"]}, TypeError, r"unknown argument 'decoder'\. Did you mean \"decoders\"\? Possible: "),
        ({"max_new_token": 3}, TypeError, r"unknown argument 'max_new_token'\. Did you mean \"max_new_tokens\"\?"),
        ({"prompt": None}, ValueError, r"prompt=None is no text; give a text, a paper's prompt such as \"@vista\""),
        ({"prompt": " "}, ValueError, r"prompt=' ' is no text"),
        ({"batch_size": 0}, ValueError, r"batch_size=0 is no whole number of at least 1"),
        ({"batch_size": "8"}, ValueError, r"batch_size='8' is no whole number of at least 1"),
        ({"seed": None}, ValueError, r"seed=None is no whole number .*; give one, or one for each"),
        ({"seed": "1"}, ValueError, r"seed='1' is no whole number"),
        ({"seed": [0.5]}, ValueError, r"seed=\[0\.5\] is no whole number and no list of whole numbers"),
        ({"seed": [1, 2]}, ValueError, r"2 seeds for 1 images"),
        ({"max_new_tokens": "5"}, ValueError, r"max_new_tokens='5' is no whole number of at least 1"),
        ({"max_new_tokens": 0}, ValueError, r"max_new_tokens=0 is no whole number of at least 1"),
        ({"num_beams": 1.5}, ValueError, r"num_beams=1.5 is no whole number of at least 1"),
        ({"top_p": 2.0}, ValueError, r"top_p=2.0 is not a share between 0 and 1"),
        ({"temperature": "hot"}, ValueError, r"temperature='hot' is not a number of at least 0"),
        ({"repetition_penalty": 0}, ValueError, r"repetition_penalty=0 is not a number above 0"),
        ({"do_sample": "no"}, ValueError, r"do_sample='no' is neither True nor False"),
    ],
)
def test_an_argument_that_cannot_be_is_named_with_what_can(lvlm, image, options, error, message):
    with pytest.raises(error, match=message):
        lvlm.caption(image, **options)


def test_every_option_that_generate_knows_is_taken():
    check_options({"max_new_tokens": 5, "top_p": 0.5, "top_k": None, "logits_processor": [], "stop_strings": ["."]})


@pytest.mark.parametrize("questions", [None, "", [""], [3], ["a", "b"], [("a", "")]])
def test_questions_that_are_none_are_refused(lvlm, image, questions):
    with pytest.raises(ValueError, match="question"):
        lvlm.answer(image, questions, **ONE)


@pytest.mark.parametrize("call", [veridical.generate, veridical.score])
def test_a_bare_model_is_refused_with_how_to_wrap_it(lvlm, call):
    more = () if call is veridical.generate else (torch.zeros(1, 1).long(), ["entropy"])
    with pytest.raises(TypeError, match=r"veridical\.\w+ takes an LVLM; found Llava\w+\. Wrap .*LVLM\(model, "):
        call(lvlm.model, {}, *more)


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        ("a dog", TypeError, "takes token ids of shape .*; found a text. For a text take answer_tokens"),
        (["a dog"], TypeError, "found a text"),
        ([1, 2], ValueError, r"found torch.int64 of shape \(2,\)"),
        ([[0.5]], ValueError, "found torch.float32"),
        ([[1], [2]], ValueError, "ids have 2 rows and the inputs 1"),
        ([[10**6]], ValueError, r"ids hold 1000000, which is no token: the vocabulary of embedded is 0 to \d+"),
        ([[-1]], ValueError, "ids hold -1, which is no token"),
    ],
)
def test_ids_that_are_no_tokens_are_refused(lvlm, image, ids, error, message):
    ids = ids if any(isinstance(one, str) for one in ids) else torch.tensor(ids)
    with pytest.raises(error, match=message):
        veridical.score(lvlm, lvlm.prepare(image, "What is this?"), ids, ["entropy"])


def test_one_image_and_one_question_are_prepared_as_they_are(lvlm, image, tmp_path):
    image.save(tmp_path / "a.png")
    one, listed = (lvlm.prepare(*both) for both in ((str(tmp_path / "a.png"), "hi"), ([image], ["hi"])))
    assert one.keys() == listed.keys()
    assert all(torch.equal(one[name], listed[name]) for name in one)


@pytest.mark.parametrize("name", [None, 3, ""])
def test_no_name_of_a_model_is_said_to_be_none(name):
    with pytest.raises(CannotLoad, match=r"names no model|no model is named"):
        veridical.load(name)


class Series:
    """As pandas' in that it is no list and iterates over its values."""

    def __init__(self, values):
        self.values = values

    def __iter__(self):
        return iter(self.values)


def test_generators_series_and_arrays_of_paths_are_many_images(tmp_path):
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    texts = [str(path) for path in paths]
    assert many_images(path for path in paths) == paths == many_images(Series(paths)) == many_images(tuple(paths))
    assert many_images(np.array(texts)) == texts
    pixels = np.zeros((4, 4, 3), np.uint8)
    single = (paths[0], texts[0], pixels, torch.zeros(4, 4), Image.new("RGB", (4, 4)))
    assert all(len(many_images(one)) == 1 for one in single)
    with pytest.raises(ValueError, match="images are a mapping with a, b; give its images alone"):
        many_images({"a": 1, "b": 2})


def test_a_generator_of_paths_is_captioned_in_its_order(lvlm, tmp_path):
    images = [scene("test", index).image for index in range(3)]
    for index, image in enumerate(images):
        image.save(tmp_path / f"{index}.png")
    paths = (tmp_path / f"{index}.png" for index in range(3))
    assert [a.tokens for a in lvlm.caption(paths, **ONE)] == [a.tokens for a in lvlm.caption(images, **ONE)]


# ---------------------------------------------------------------------- the embedded model and photos


@pytest.mark.parametrize("split", SPLITS)
def test_scenes_of_every_split_are_known_as_scenes(split):
    assert all(is_scene(scene(split, index).image) for index in range(150))


def test_photos_are_no_scenes_whatever_their_size(photos):
    images = [Image.open(path).convert("RGB") for path in photos]
    assert len(images) >= 50
    assert not any(is_scene(image) for image in images)
    assert not any(is_scene(image.resize((192, 192))) for image in images)
    assert not any(is_scene(image.crop((100, 100, 292, 292))) for image in images)


def test_the_embedded_model_warns_of_a_photo_once_and_names_what_to_load(lvlm, photos):
    for call in (
        lambda: lvlm.caption(photos[:3], batch_size=1, **ONE),
        lambda: lvlm.answer(photos[:2], "Is there a dog?", **ONE),
        lambda: lvlm.prepare(photos[:2], "Is there a dog?"),
    ):
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            call()
        (one,) = [w for w in found if w.category is NotItsWorld]
        assert "nothing but its own drawn scenes" in str(one.message)
        assert "llava-hf/llava-1.5-7b-hf" in str(one.message)


def test_the_embedded_model_says_nothing_of_its_scenes_nor_another_model_of_photos(lvlm, photos):
    other = veridical.LVLM(lvlm.model, lvlm.processor, name="other")
    lvlm.model.config.name_or_path, before = "other", lvlm.model.config.name_or_path
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", NotItsWorld)
            lvlm.caption([scene(split, 3).image for split in SPLITS], **ONE)
            other.caption(photos[0], **ONE)
    finally:
        lvlm.model.config.name_or_path = before
