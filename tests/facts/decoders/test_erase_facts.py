"""The procedure of ProjectAway: which objects are doubted, and what is captioned again."""

from dataclasses import replace

import pytest

import veridical
from veridical.datasets.world import scene
from veridical.decoders.procedures.erase import Erase, doubted
from veridical.decoders.project_away import ProjectAway
from veridical.metrics.chair import Chair
from veridical.pipelines.results import Answer

TEXT = "Two dogs, a stop sign and a dog."
TOKENS = ["Two", " do", "gs", ",", " a", " stop", " sign", " and", " a", " dog", "."]
CONFIDENT = [0.0, 0.25, 0.5, 0, 0, 0.875, 0.75, 0, 0, 0.25, 0]  # risks


def objects(threshold, risks=CONFIDENT):
    return doubted(Answer(TEXT, TOKENS, {"logit_lens": risks}), Chair(), "logit_lens", threshold)


def test_a_mention_is_as_sure_as_its_least_sure_token_and_an_object_as_its_surest_mention():
    """dog: max(min(.75, .5), .75) = .75; stop sign: min(.125, .25) = .125."""
    assert objects(0.25) == ("stop sign",)
    assert objects(0.125) == ()
    assert objects(0.75) == ("stop sign",)
    assert objects(0.76) == ("dogs", "stop sign", "dog")


def test_what_is_erased_are_the_words_of_the_caption_each_once():
    answer = Answer("A puppy and a puppy.", ["A", " puppy", " and", " a", " puppy", "."], {"logit_lens": [1] * 6})
    assert doubted(answer, Chair(), "logit_lens", 0.5) == ("puppy",)


def test_an_object_whose_words_are_in_no_token_is_not_doubted():
    assert doubted(Answer(TEXT, [], {"logit_lens": []}), Chair(), "logit_lens", 0.9) == ()


def test_an_answer_that_failed_has_no_objects():
    assert doubted(Answer("", error="no image"), Chair(), "logit_lens", 0.9) == ()


OPTIONS = {"max_new_tokens": 16}


@pytest.fixture(scope="module")
def lvlm():
    return veridical.load("embedded")


@pytest.fixture(scope="module")
def images():
    return [scene("validation", index).image for index in range(3)]


@pytest.fixture(scope="module")
def plain(lvlm, images):
    return lvlm.caption(images, detectors=["logit_lens"], **OPTIONS)


@pytest.fixture(scope="module")
def threshold(plain):
    """Between two images' least sure objects, so that some captions are made again and some are not."""
    levels = (level / 200 for level in range(1, 400))
    doubts = lambda level: sum(bool(doubted(one, Chair(), "logit_lens", level)) for one in plain)
    return next(level for level in levels if doubts(level) == 1)


def test_captions_with_a_doubted_object_are_those_of_project_away_and_the_others_stay(lvlm, images, plain, threshold):
    found = lvlm.caption(images, [Erase(threshold=threshold)], **OPTIONS)
    for image, before, after in zip(images, plain, found, strict=True):
        words = doubted(before, Chair(), "logit_lens", threshold)
        away = ProjectAway(objects=words)
        (expected,) = lvlm.caption([image], [away], **OPTIONS) if words else [before]
        assert after.text == expected.text
        assert after.risk == {}
        assert after.acted["erase"]["acted"] == bool(words)
        assert after.acted["erase"]["erased"] == len(words)
        assert after.acted["erase"]["flipped"] == (after.text != before.text)
    assert sorted(one.acted["erase"]["acted"] for one in found) == [0, 0, 1]


def test_its_layers_and_strength_are_those_of_project_away(lvlm, images, plain):
    """At a threshold above 1 every object is doubted."""
    strong = {"alpha": 20.0, "layer": 0, "text_layer": -1}
    found = lvlm.caption(images[:1], [Erase(threshold=2, **strong)], **OPTIONS)
    words = doubted(plain[0], Chair(), "logit_lens", 2)
    (expected,) = lvlm.caption(images[:1], [ProjectAway(objects=words, **strong)], **OPTIONS)
    assert found[0].text == expected.text != plain[0].text
    assert found[0].acted["erase"]["flipped"] == 1


def test_an_image_has_the_caption_that_it_gets_alone(lvlm, images):
    chain, options = [Erase(threshold=2), "vcd"], {"max_new_tokens": 8}
    together = lvlm.caption(images[:2], chain, **options)
    alone = [lvlm.caption([image], chain, **options)[0] for image in images[:2]]
    assert [one.text for one in together] == [one.text for one in alone]


def test_a_threshold_of_zero_is_the_plain_caption(lvlm, images, plain):
    (found,) = lvlm.caption(images[:1], [Erase(threshold=0)], **OPTIONS)
    assert found.text == plain[0].text
    assert Erase(threshold=0).is_neutral


def test_the_second_request_may_be_another(lvlm, images, plain):
    request = "Is there a dog in the image?"
    (found,) = lvlm.caption(images[:1], [Erase(threshold=2, again=request)], **OPTIONS)
    words = doubted(plain[0], Chair(), "logit_lens", 2)
    (expected,) = lvlm.answer(images[:1], request, [ProjectAway(objects=words)], **OPTIONS)
    assert found.text == expected.text != plain[0].text


def test_what_the_run_reads_stays_readable(lvlm, images):
    (found,) = lvlm.caption(images[:1], [Erase(threshold=2)], ["entropy"], max_new_tokens=8)
    assert list(found.risk) == ["entropy"]
    assert len(found.risk["entropy"]) == len(found.tokens)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": -1}, "threshold=-1 is below 0"),
        ({"again": " "}, "again=' ' is no request"),
        ({"by": "nobody"}, 'no detector "nobody"'),
    ],
)
def test_values_outside_their_range_are_refused(options, message):
    with pytest.raises((ValueError, KeyError), match=message):
        Erase(**options)


def test_a_missing_synonym_file_is_known_before_the_first_caption(lvlm, images):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        lvlm.caption(images[:1], [Erase(synonyms="nowhere.txt")], **OPTIONS)


def test_two_models_have_the_papers_values_when_it_is_named():
    fitted = Erase().for_model("Salesforce/instructblip-vicuna-7b")
    assert fitted == replace(Erase(), threshold=0.1, layer=1, text_layer=1)
    assert Erase().for_model("llava-hf/llava-1.5-7b-hf") == replace(Erase(), alpha=3.5, layer=19, text_layer=20)
