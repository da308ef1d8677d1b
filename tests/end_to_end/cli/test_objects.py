"""`veridical objects`: objects by the shipped matcher and by a detector of transformers, in a file for MARINE."""

import json

import pytest
import torch
import transformers as tf
from PIL import Image

from veridical.datasets.world import scene
from veridical.pipelines.inputs.objects_file import read_objects
from veridical.pipelines.matching.load import load_matcher
from veridical.pipelines.matching.objects import confirmed, load_finder

NAMES = "dog,cat,book,tv,clock,car"


@pytest.fixture
def images(tmp_path):
    paths = [tmp_path / f"{index}.png" for index in range(2)]
    for index, path in enumerate(paths):
        scene("test", index).image.save(path)
    return [str(path) for path in paths]


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """A folder of a tiny YOLOS with random weights, which finds something everywhere."""
    path = tmp_path_factory.mktemp("yolos")
    config = tf.YolosConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=[32, 32],
        patch_size=8, num_detection_tokens=6, id2label={0: "dog", 1: "tv", 2: "car"},
    )  # fmt: skip
    torch.manual_seed(0)
    tf.YolosForObjectDetection(config).save_pretrained(path)
    tf.YolosImageProcessor(size={"height": 32, "width": 32}).save_pretrained(path)
    return path


def test_the_shipped_matchers_objects_are_those_whose_cosine_is_enough(veridical, images, tmp_path):
    out = tmp_path / "objects.jsonl"
    shown = veridical("objects", *images, "--by", "embedded", "--names", NAMES, "--threshold", "-1", "--out", out)
    assert shown.exit_code == 0, shown.stdout
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["image"] for row in rows] == images
    assert [row["objects"] for row in rows] == [sorted(NAMES.split(","))] * 2
    known = read_objects(out)
    some = load_finder("embedded", NAMES.split(","), 0.2)([scene("test", index).image for index in range(2)])
    assert all(set(few) < set(all_) for few, all_ in zip(some, known.values(), strict=True))
    again = veridical("caption", images[0], "-d", f"marine:objects='{out}'", "--max-new-tokens", "3")
    assert again.exit_code == 0, again.stdout


def test_a_matcher_encodes_every_name_once_and_every_image_once(images, monkeypatch):
    matcher = load_matcher("embedded", "cpu")
    encoded = {"images": 0, "texts": 0}
    encode_image, encode_text = matcher.model.encode_image, matcher.model.encode_text

    def image(pixels, **options):
        encoded["images"] += len(pixels)
        return encode_image(pixels, **options)

    def text(tokens, **options):
        encoded["texts"] += len(tokens)
        return encode_text(tokens, **options)

    monkeypatch.setattr(matcher.model, "encode_image", image)
    monkeypatch.setattr(matcher.model, "encode_text", text)
    find = load_finder("embedded", NAMES.split(","), 0.2)
    for path in images:
        find([Image.open(path).convert("RGB")])
    assert encoded == {"images": len(images), "texts": len(NAMES.split(","))}


def test_a_detector_of_transformers_names_what_it_scores_high_enough(veridical, detector, images, tmp_path):
    out = tmp_path / "objects.jsonl"
    by = f"detector:{detector}"
    shown = veridical("objects", *images, "--by", by, "--threshold", "0.2", "--out", out)
    assert shown.exit_code == 0, shown.stdout
    found = list(read_objects(out).values())
    assert all(found)
    assert {name for names in found for name in names} <= {"dog", "tv", "car"}
    scenes = [scene("test", index).image for index in range(2)]
    assert load_finder(by, [], 0.999)(scenes) == [[], []]
    assert load_finder(by, ["clock"], 0.2)(scenes) == [[], []]


def test_what_several_name_is_what_all_of_them_name():
    assert confirmed([[["cat", "dog"], ["tv"]], [["dog"], ["car", "tv"]]]) == [["dog"], ["tv"]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--by", "embedded", "--threshold", "0"], "embedded is a matcher, which looks for given names"),
        (["--by", "detector:", "--threshold", "0"], '"detector:" names no model'),
        (["--by", "detr", "--threshold", "0"], "matcher='detr' names no matcher"),
        (["--by", "detector:/nowhere", "--threshold", "0"], "'/nowhere' is no object detector"),
        (["--by", "embedded", "--names", "a", "--threshold", "0", "--threshold", "1"], "--threshold is given 2 times"),
    ],
)
def test_wrong_options_end_in_a_sentence(veridical, images, tmp_path, options, message):
    shown = veridical("objects", *images, *options, "--out", tmp_path / "new.jsonl")
    assert shown.exit_code == 2
    assert message in " ".join((shown.stdout + shown.stderr).split())
    assert not (tmp_path / "new.jsonl").exists()


def test_an_image_that_cannot_be_read_is_left_out_and_counted(veridical, images, tmp_path):
    out = tmp_path / "objects.jsonl"
    given = ["--by", "embedded", "--names", "dog", "--threshold", "0", "--out", out]
    shown = veridical("objects", images[0], tmp_path / "gone.png", *given)
    assert shown.exit_code == 1
    assert len(out.read_text().splitlines()) == 1
    assert veridical("objects", images[0], *given).exit_code == 2, "the file exists"
