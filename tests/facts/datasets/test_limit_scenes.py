"""Controlled scenes differ in what their setting says and in nothing else, and their truth is exact."""

import numpy as np
import pytest

from veridical.datasets.examples import Example
from veridical.datasets.limits.questions import limit_examples
from veridical.datasets.limits.scenes import LEVELS, Setting, controlled, plan, setting, settings

SCENES = [("test", 0), ("test", 5), ("validation", 3)]


def pixels(split, index, wanted):
    return np.asarray(controlled(split, index, wanted).image, np.int16)


@pytest.mark.parametrize(("split", "index"), SCENES)
def test_nothing_differs_outside_of_what_is_varied(split, index):
    plain = controlled(split, index, Setting())
    mask = plain.objects[0].mask
    for factor, level in [("number", 4), ("distractors", 3)]:
        more = controlled(split, index, setting(factor, level))
        added = np.any([thing.mask for thing in more.objects if not (thing.mask & mask).any()], axis=0)
        changed = (np.asarray(more.image, np.int16) != np.asarray(plain.image, np.int16)).any(-1)
        assert not changed[mask].any()
        assert (changed & ~added).sum() < 0.35 * changed.sum()  # the soft edges of sprites
    small = controlled(split, index, Setting(size=12))
    changed = (np.asarray(small.image, np.int16) != np.asarray(plain.image, np.int16)).any(-1)
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    ends = {*rows[[0, -1]].tolist(), *columns[[0, -1]].tolist()}
    assert max(abs(end - 96) for end in ends) <= 26  # half of the larger one, and its soft edge


@pytest.mark.parametrize(("split", "index"), SCENES)
def test_the_share_that_is_covered_is_what_the_setting_says(split, index):
    for share in LEVELS["occlusion"]:
        (thing,) = controlled(split, index, Setting(occlusion=share)).objects
        assert thing.visible == pytest.approx(1 - share, abs=0.06)  # to the nearest column of pixels


@pytest.mark.parametrize(("split", "index"), SCENES)
def test_size_place_and_number_are_what_the_setting_says(split, index):
    for size in LEVELS["size"]:
        (thing,) = controlled(split, index, Setting(size=size)).objects
        assert abs(max(thing.box[2:]) - size) <= 3  # transparent borders of a sprite
    x, y, width, height = controlled(split, index, Setting(place=1.0)).objects[0].box
    assert min(x, y, 192 - x - width, 192 - y - height) <= 3
    for number in LEVELS["number"]:
        assert controlled(split, index, Setting(number=number)).counts == {plan(split, index).object: number}


def test_more_distractors_hold_the_fewer_and_never_the_object_nor_the_absent_one():
    for index in range(40):
        base = plan("test", index)
        names = [
            {thing.category for thing in controlled("test", index, Setting(distractors=n)).objects} for n in (1, 3, 5)
        ]
        assert [len(one) for one in names] == [2, 4, 6]
        assert names[0] < names[1] < names[2]
        assert base.absent not in names[2]
        assert base.object in names[0]


def test_every_setting_is_read_back_from_its_text_and_drawn_from_an_examples_address():
    assert len(settings()) == 23
    assert all(Setting.read(one.text) == one for one in settings())
    example = limit_examples("test", 1)[4]
    assert example.image == "world:test/0/size=12"
    assert (np.asarray(example.open()) == pixels("test", 0, Setting(size=12))).all()
    with pytest.raises(ValueError, match="no factor 'colour' in a controlled scene"):
        Example("a", "world:test/0/colour=2", "a", None, None, frozenset()).open()


def test_the_absent_object_is_in_no_setting_and_the_question_is_the_same_in_all():
    examples = [e for e in limit_examples("test", 3) if e.facts["kind"] == "absent"]
    for index in range(3):
        of = [e for e in examples if e.facts["scene"] == index]
        assert len(of) == 23
        assert len({e.question for e in of}) == 1
        assert all(plan("test", index).absent not in e.objects for e in of)


def test_the_foreign_background_is_of_a_place_where_the_object_is_never_found():
    for index in range(30):
        base = plan("test", index)
        assert base.object in base.typical.pool
        assert base.object not in base.foreign.pool


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="no split 'dev' in the embedded world"):
        limit_examples("dev", 1)
