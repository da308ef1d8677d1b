"""Real photographs: fetched into a COCO folder, read with boxes and credits, cut and seen as models see them."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from veridical import datasets, plots
from veridical.datasets.boxes import boxes
from veridical.datasets.coco import coco_examples, coco_pope
from veridical.datasets.coco_photos import photos as coco_photos
from veridical.flows.files import photos as fetching
from veridical.flows.files.downloads import DownloadFailed
from veridical.pipelines.attention_maps import AttentionMaps
from veridical.pipelines.inputs.seen_area import seen_area


@pytest.fixture(scope="module")
def folder(test_data):
    return test_data / "photos"


@pytest.fixture
def few(monkeypatch):
    """The list with its first two photos alone."""
    whole = coco_photos.index()
    first = {**whole, "images": whole["images"][:2]}
    first["boxes"] = [box for box in whole["boxes"] if box[0] in {one["id"] for one in first["images"]}]
    monkeypatch.setattr(coco_photos, "index", lambda: first)
    return first["images"]


@pytest.fixture
def served(folder, few, tmp_path, serve):
    """COCO's server with the photos in their own size."""
    for one in few:
        path = tmp_path / "server" / one["split"] / one["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.open(folder / "mini" / one["file_name"]).resize((one["width"], one["height"])).save(path)
    return serve(tmp_path / "server")


# -- fetching ------------------------------------------------------------------------------------------------------
def test_photos_are_fetched_once_with_boxes_and_credits(served, few, tmp_path, veridical):
    out = tmp_path / "out"
    shown = veridical("data", "photos", "--out", out, "--from", served)
    assert shown.exit_code == 0, shown.output
    assert "2 photos fetched, 0 were there" in shown.stdout
    found = datasets.photos(out)
    assert [photo.id for photo in found] == [one["id"] for one in few]
    for photo in found:
        width, height = photo.open().size
        assert photo.boxes
        assert all(0 <= b.x <= b.x + b.width <= width + 1 and 0 <= b.y <= b.y + b.height <= height + 1
                   for b in photo.boxes)  # fmt: skip
        assert photo.credit in (out / "CREDITS.md").read_text()
    assert len(coco_examples(out)) == 2
    assert "0 photos fetched, 2 were there" in veridical("data", "photos", "--out", out, "--from", served).stdout


def test_another_photo_of_the_same_size_is_refused(served, few, tmp_path):
    path = tmp_path / "server" / few[1]["split"] / few[1]["file_name"]
    noise = np.random.default_rng(0).integers(0, 255, (few[1]["height"], few[1]["width"], 3), np.uint8)
    Image.fromarray(noise).save(path)
    with pytest.raises(DownloadFailed, match="is not the listed photo: it shows something else"):
        fetching.fetch(tmp_path / "out", served)
    Image.new("RGB", (9, 9)).save(path)
    with pytest.raises(DownloadFailed, match="it has 9×9 pixels, not"):
        fetching.fetch(tmp_path / "out", served)


def test_no_photos_are_a_sentence_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("VERIDICAL_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="`veridical data photos` fetches 54 photos"):
        datasets.photos()


def test_the_package_has_ids_and_credits_of_54_photos_and_no_photo():
    listed = coco_photos.instances()
    assert len(listed["images"]) == 54
    assert len(listed["annotations"]) == 510
    assert {image["license"] for image in listed["images"]} == {4}
    assert all(image["flickr_url"].startswith("http://farm") for image in listed["images"])
    assert not list(coco_photos.INDEX.parent.glob("*.jpg"))


# -- reading -------------------------------------------------------------------------------------------------------
def test_all_photos_of_the_sample_are_the_listed_ones(folder):
    found = datasets.photos(folder)
    assert len(found) == 54
    known = {one["id"]: one for one in coco_photos.index()["images"]}
    assert all(coco_photos.is_photo(photo.open(), known[photo.id]) for photo in found)
    assert sum(coco_photos.is_photo(found[0].open(), one) for one in known.values()) == 1


def test_boxes_of_the_sample_and_of_the_list_are_the_same_shares(folder):
    listed = coco_photos.instances()
    sizes = {image["id"]: (image["width"], image["height"]) for image in listed["images"]}
    shares = {}
    for one in listed["annotations"]:
        if not one["iscrowd"]:
            width, height = sizes[one["image_id"]]
            shares.setdefault(one["image_id"], []).append((one["bbox"][0] / width, one["bbox"][1] / height))
    for photo in datasets.photos(folder):
        width, height = photo.open().size
        mine = sorted((box.x / width, box.y / height) for box in photo.boxes)
        np.testing.assert_allclose(mine, sorted(shares.get(photo.id, [])) or mine, atol=0.004)


def test_crowds_have_no_box(folder):
    content = json.loads((folder / "annotations" / "instances_mini.json").read_text())
    single = sum(not one["iscrowd"] for one in content["annotations"])
    assert sum(len(photo.boxes) for photo in datasets.photos(folder)) == single < len(content["annotations"])


def test_examples_of_captions_and_questions_have_the_same_boxes(folder):
    instances = folder / "annotations" / "instances_mini.json"
    by_id = {photo.id: photo for photo in datasets.photos(folder)}
    for example in [*coco_examples(folder), *coco_pope(folder)]:
        assert tuple(boxes(example, instances)) == by_id[example.image_id].boxes


# -- what a model sees of an oblong photo --------------------------------------------------------------------------
def test_the_part_that_a_processor_cuts_out_is_what_its_pixels_show(folder):
    """CLIP's processor on real photos: its pixels are those of the stated part, resized to the same square."""
    from transformers import CLIPImageProcessor

    clip = CLIPImageProcessor(size={"shortest_edge": 112}, crop_size={"height": 112, "width": 112})
    holder = type("Processor", (), {"image_processor": clip})
    mean, std = np.array(clip.image_mean), np.array(clip.image_std)
    for photo in datasets.photos(folder)[:6]:
        image = photo.open().convert("RGB")
        pixels = np.asarray(clip(image, return_tensors="np")["pixel_values"][0]).transpose(1, 2, 0) * std + mean
        left, top, right, bottom = seen_area(holder, *image.size)
        assert (right - left) * image.width == pytest.approx((bottom - top) * image.height, rel=0.02)
        box = (left * image.width, top * image.height, right * image.width, bottom * image.height)
        cut = np.asarray(image.resize((112, 112), Image.Resampling.BICUBIC, box=box)) / 255
        whole = np.asarray(image.resize((112, 112), Image.Resampling.BICUBIC)) / 255
        off, all_of_it = np.abs(cut - pixels).mean(), np.abs(whole - pixels).mean()
        assert off < 0.06, "the processor's square begins at a whole pixel, up to half a one beside this"
        if min(image.size) / max(image.size) < 0.9:
            assert all_of_it > 2 * off, "the whole photo is something else"


def test_an_overlay_covers_that_part_of_a_real_photo(folder):
    import torch
    from matplotlib.figure import Figure

    image = next(photo for photo in datasets.photos(folder) if photo.open().width > 1.3 * photo.open().height).open()
    maps = AttentionMaps("A", ["A"], torch.rand(1, 1, 1, 16), torch.ones(1), (0,), [(4, 4)], area=(0.2, 0, 0.8, 1))
    ax = plots.attention_overlay(maps, image, 0, ax=Figure().subplots())
    assert ax.images[0].get_array().shape[:2] == image.size[::-1]
    left, right, bottom, top = ax.images[1].get_extent()
    assert (left, right) == pytest.approx((0.2 * image.width, 0.8 * image.width))
    assert (bottom, top) == (image.height, 0)


def test_the_page_to_try_shows_photos_where_they_are(folder, tmp_path, monkeypatch):
    from veridical.cli.demo.page import PHOTOS, SCENES, examples

    monkeypatch.setenv("VERIDICAL_CACHE", str(tmp_path))
    assert len(examples()) == len(SCENES)
    shutil.copytree(folder, tmp_path / "photos")
    assert len(examples()) == len(SCENES) + PHOTOS
