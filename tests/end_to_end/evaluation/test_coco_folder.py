"""Examples of the embedded world and of COCO folders: the same type, the same truth, ids that differ."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from veridical.datasets.coco import coco_examples, coco_pope, find_coco, image_id, write_coco
from veridical.datasets.examples import merged, world_captions, world_pope
from veridical.datasets.pope import STRATEGIES
from veridical.datasets.world import SPLITS, scene
from veridical.metrics.chair import ground_truth

COUNT = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_coco("test", COUNT, tmp_path_factory.mktemp("world") / "coco")


def test_pycocotools_reads_boxes_masks_and_captions(folder):
    files = find_coco(folder)
    instances, captions = COCO(str(files.instances)), COCO(str(files.captions))
    assert len(instances.getImgIds()) == COUNT
    for index in (0, 7, COUNT - 1):
        view = scene("test", index)
        number = image_id(view)
        info = instances.loadImgs(number)[0]
        with Image.open(files.images / info["file_name"]) as image:
            assert np.array_equal(np.asarray(image), np.asarray(view.image))
            assert image.size == (info["width"], info["height"])
        found = instances.loadAnns(instances.getAnnIds(imgIds=number))
        assert len(found) == len(view.objects)
        for annotation, thing in zip(found, view.objects, strict=True):
            assert instances.loadCats(annotation["category_id"])[0]["name"] == thing.category
            mask = instances.annToMask(annotation)
            assert np.array_equal(mask.astype(bool), thing.mask)
            assert annotation["area"] == mask.sum()
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            left, top = columns[0], rows[0]
            assert annotation["bbox"] == [left, top, columns[-1] - left + 1, rows[-1] - top + 1]
            assert annotation["iscrowd"] == 0
        assert [a["caption"] for a in captions.loadAnns(captions.getAnnIds(imgIds=number))] == list(view.captions)


def test_categories_have_coco_ids(folder):
    content = json.loads(find_coco(folder).instances.read_text(encoding="utf-8"))
    ids = {category["name"]: category["id"] for category in content["categories"]}
    assert (ids["person"], ids["stop sign"], ids["toothbrush"], ids["dog"]) == (1, 13, 90, 18)


def test_ids_are_unique_within_and_between_splits(tmp_path):
    images, annotations = [], []
    for split in SPLITS:
        write_coco(split, 5, tmp_path)
        content = json.loads((tmp_path / f"instances_{split}.json").read_text(encoding="utf-8"))
        images += [image["id"] for image in content["images"]]
        annotations += [annotation["id"] for annotation in content["annotations"]]
    assert len(set(images)) == len(images) == 15
    assert len(set(annotations)) == len(annotations)
    with pytest.raises(ValueError, match="several splits"):
        find_coco(tmp_path / "empty" if (tmp_path / "empty").mkdir() else _two_held_out(tmp_path))
    assert find_coco(tmp_path, "train").split == "train"


def _two_held_out(folder):
    """It already has validation and test."""
    return folder


def test_writing_twice_gives_the_same_files(folder, tmp_path):
    again = write_coco("test", COUNT, tmp_path)
    for path in folder.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (again / path.relative_to(folder)).read_bytes()


def test_reference_captions_name_what_is_annotated_and_nothing_else(folder):
    files = find_coco(folder)
    annotated, named = ground_truth(files.instances), ground_truth(captions=files.captions)
    assert annotated == named


def test_the_folder_asks_what_the_world_asks(folder):
    of_files, of_world = coco_examples(folder), world_captions("test", COUNT)
    assert [e.objects for e in of_files] == [e.objects for e in of_world]
    assert all(np.array_equal(a.open().convert("RGB"), b.open()) for a, b in zip(of_files[:3], of_world, strict=False))
    assert of_files[0].path is not None
    assert of_world[0].path is None


def test_the_layout_of_the_download_is_read_too(folder, tmp_path):
    (tmp_path / "annotations").mkdir()
    for kind in ("instances", "captions"):
        content = (folder / f"{kind}_test.json").read_bytes()
        (tmp_path / "annotations" / f"{kind}_val2014.json").write_bytes(content)
    (folder / "test").rename(tmp_path / "val2014")
    try:
        found = coco_examples(tmp_path, 5)
        assert len(found) == 5
        assert all(example.path.is_file() for example in found)
        assert coco_pope(tmp_path, 5, "random", split="val2014")[0].path.parent.name == "val2014"
    finally:
        (tmp_path / "val2014").rename(folder / "test")


@pytest.mark.parametrize("source", ["world", "coco"])
def test_pope_asks_each_image_three_true_and_three_false_questions(folder, source):
    for strategy in STRATEGIES:
        requests = world_pope("test", 6, strategy) if source == "world" else coco_pope(folder, 6, strategy)
        assert len({example.id for example in requests}) == len(requests) == 36
        for image in {example.image_id for example in requests}:
            of_one = [example for example in requests if example.image_id == image]
            assert [example.label for example in of_one] == ["yes", "no"] * 3
            for example in of_one:
                name = example.question.removesuffix(" in the image?").split(" ", 3)[3]
                assert (name in example.objects) == (example.label == "yes")


def test_what_is_asked_of_an_image_does_not_depend_on_the_limit():
    for strategy in STRATEGIES:
        assert world_pope("test", 12, strategy)[: 6 * 5] == world_pope("test", 5, strategy)


def test_a_question_of_several_splits_is_kept_once():
    parts = [world_pope("test", 8, strategy) for strategy in STRATEGIES]
    once = merged(parts)
    assert len({example.id for example in once}) == len(once) < sum(map(len, parts))
    for strategy, part in zip(STRATEGIES, parts, strict=True):
        assert {e.id for e in once if strategy in e.splits} == {e.id for e in part}
    images = [example.image for example in once]
    assert images == sorted(images, key=list(dict.fromkeys(images)).index), "image by image"


def test_another_seed_draws_other_images(folder):
    drawn = [[example.id for example in coco_examples(folder, 10, seed)] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_below_one_is_refused(folder, limit):
    for make in (world_captions, world_pope):
        with pytest.raises(ValueError, match=r"below 1 \(number of images\)"):
            make("test", limit)
    with pytest.raises(ValueError, match="below 1"):
        coco_examples(folder, limit)


def test_a_folder_that_is_not_coco_says_what_is_missing(tmp_path):
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(FileNotFoundError, match=r"found photo\.jpg; needed: instances_<split>\.json"):
        find_coco(tmp_path)
    (tmp_path / "instances_val.json").write_text('{"images": []}', encoding="utf-8")
    with pytest.raises(FileNotFoundError, match="no images"):
        find_coco(tmp_path)
    (tmp_path / "val").mkdir()
    with pytest.raises(ValueError, match="has no annotations"):
        coco_examples(tmp_path)
