"""What CHAIR takes as being in the images: ready-made sets, annotations and reference captions."""

import json

import pytest

from veridical.metrics.chair import Chair, ground_truth, ready_made_truth
from veridical.metrics.pope import read_questions

# The ready-made sets and POPE's labels


def test_all_nine_thousand_coco_pope_labels_agree_with_the_pattern_sets(test_data):
    truth = ready_made_truth(test_data / "chair_gt_objects_coco2014.json", "pattern")
    requests = [
        question
        for split in ("random", "popular", "adversarial")
        for question in read_questions(test_data / "pope" / f"coco_pope_{split}.json")
    ]
    assert len(requests) == 9000
    for question in requests:
        image = int(question["image"].removeprefix("COCO_val2014_").removesuffix(".jpg"))
        name = question["text"].removeprefix("Is there ").removesuffix(" in the image?").split(" ", 1)[1]
        assert (name in truth[image]) == (question["label"] == "yes")


def test_the_ready_made_sets_of_the_families_differ_in_1741_images(test_data):
    pattern = ready_made_truth(test_data / "chair_gt_objects_coco2014.json", "pattern")
    wordnet = ready_made_truth(test_data / "chair_gt_objects_coco2014.json", "wordnet")
    assert len(pattern) == len(wordnet) == 123_287
    assert sum(not names for names in pattern.values()) == 725
    assert sum(pattern[image] != wordnet[image] for image in pattern) == 1741
    assert sum("bus" in wordnet[image] - pattern[image] for image in pattern) == 461


def test_published_tables_pair_captions_and_truth_of_different_families(test_data, wordnet):
    path = test_data / "chair_gt_objects_coco2014.json"
    mixed, pure = ready_made_truth(path, "pattern"), ready_made_truth(path, "wordnet")
    image = next(image for image in mixed if "bus" in pure[image] - mixed[image])
    captions = {image: "A bus."}
    assert wordnet.score(captions, mixed).chair_i == 1
    assert wordnet.score(captions, pure).chair_i == 0


# Ground truth

CATEGORIES = [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]
INSTANCES = {
    "images": [{"id": 7}, {"id": 8}, {"id": 9}],
    "categories": CATEGORIES,
    "annotations": [
        {"image_id": 7, "category_id": 1},
        {"image_id": 7, "category_id": 1},
        {"image_id": 9, "category_id": 2},
    ],
}
CAPTIONS = {
    "images": [{"id": 7}, {"id": 8}, {"id": 9}],
    "annotations": [{"image_id": 7, "caption": "Two puppies near a horse."}, {"image_id": 9, "caption": "It sleeps."}],
}


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def test_truth_is_the_union_of_annotations_and_caption_words(tmp_path):
    instances, captions = write(tmp_path / "i.json", INSTANCES), write(tmp_path / "c.json", CAPTIONS)
    assert ground_truth(instances) == {7: {"dog"}, 8: set(), 9: {"cat"}}
    assert ground_truth(captions=captions) == {7: {"dog", "horse"}, 8: set(), 9: set()}
    assert ground_truth(instances, captions) == {7: {"dog", "horse"}, 8: set(), 9: {"cat"}}


def test_several_files_of_one_kind_are_joined(tmp_path):
    other = {**INSTANCES, "images": [{"id": 7}], "annotations": [{"image_id": 7, "category_id": 2}]}
    files = [write(tmp_path / "train.json", INSTANCES), str(write(tmp_path / "val.json", other))]
    assert ground_truth(files)[7] == {"dog", "cat"}


def test_truth_can_be_limited_to_images(tmp_path):
    assert ground_truth(INSTANCES, CAPTIONS, images=[9]) == {9: {"cat"}}
    with pytest.raises(ValueError, match=r"1 of 2 images asked for are in none of the files, such as 'x\.png'"):
        ground_truth(INSTANCES, images=[7, "x.png"])


def test_the_family_of_the_chair_reads_the_reference_captions(wordnet, pattern):
    captions = {"annotations": [{"image_id": 1, "caption": "A bus with skiing people."}]}
    assert ground_truth(captions=captions, chair=wordnet) == {1: {"bus", "skis", "person"}}
    assert ground_truth(captions=captions, chair=pattern) == {1: {"person"}}


def test_annotated_names_go_through_the_synonyms(wordnet):
    instances = {"categories": [{"id": 1, "name": "sofa"}], "annotations": [{"image_id": 1, "category_id": 1}]}
    assert ground_truth(instances, chair=wordnet) == {1: {"couch"}}


def test_unknown_categories_are_named_with_near_ones():
    instances = {**INSTANCES, "categories": [{"id": 1, "name": "dogg"}]}
    with pytest.raises(ValueError, match=r"'dogg' is no term of this vocabulary.*Did you mean 'dog'"):
        ground_truth(instances)
    with pytest.raises(ValueError, match="category_id 2, which is not among the file's 1 categories"):
        ground_truth({**INSTANCES, "categories": CATEGORIES[:1]})


def test_files_in_another_format_are_refused(tmp_path):
    with pytest.raises(ValueError, match="needs instances=PATH, captions=PATH or both"):
        ground_truth()
    with pytest.raises(FileNotFoundError, match="no file at"):
        ground_truth(tmp_path / "absent.json")
    with pytest.raises(ValueError, match=r"needed an object with categories"):
        ground_truth(CAPTIONS)
    with pytest.raises(ValueError, match="has no caption; is it the instances file"):
        ground_truth(captions=INSTANCES)
    (tmp_path / "torn.json").write_text('{"images": [],\n"annotations": [')
    with pytest.raises(ValueError, match="line 2 is not JSON"):
        ground_truth(tmp_path / "torn.json")
    with pytest.raises(ValueError, match="found a list"):
        ground_truth(write(tmp_path / "list.json", [1]))


def test_ready_made_sets_come_in_two_layouts(tmp_path):
    plain = write(tmp_path / "plain.json", {"7": ["dog"], "8": []})
    assert ready_made_truth(plain) == {7: {"dog"}, 8: set()}
    both = {"categories": ["dog", "cat"], "pattern": {"7": [0]}, "wordnet_changes": {"7": {"add": [1], "del": [0]}}}
    assert ready_made_truth(write(tmp_path / "both.json", both)) == {7: {"dog"}}
    assert ready_made_truth(tmp_path / "both.json", "wordnet") == {7: {"cat"}}
    with pytest.raises(ValueError, match="family='exact'"):
        ready_made_truth(tmp_path / "both.json", "exact")
    with pytest.raises(ValueError, match="neither layout"):
        ready_made_truth(write(tmp_path / "other.json", {"info": "x"}))


# Wrong input


@pytest.fixture
def chair():
    return Chair()


def test_image_ids_of_another_type_are_an_error_and_not_a_hallucination(chair):
    with pytest.raises(ValueError, match=r"image '7' is not in the ground truth.*ids there are like 7"):
        chair.score({"7": "A dog."}, {7: {"dog"}})


def test_an_image_without_truth_has_the_empty_set_and_is_logged(chair, caplog):
    r = chair.score({7: "A dog.", 8: "A dog."}, {7: {"dog"}})
    assert r.chair_s == 0.5
    assert "1 of 2 images are not in the ground truth" in caplog.text


def test_truth_in_other_words_than_the_categories_is_refused(chair):
    with pytest.raises(ValueError, match="the ground truth of image 7 names 'puppy', which is none of this"):
        chair.score({7: "A dog."}, {7: {"puppy"}})
