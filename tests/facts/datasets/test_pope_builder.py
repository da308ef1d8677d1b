"""POPE questions from annotations: the facts of the specification and what can go wrong."""

import json
from collections import Counter

import pytest

from veridical.datasets.pope import build, companions, questions, ranked

SAMPLE = {"A": ["person", "dog", "car"], "B": ["person", "cat", "car"], "C": ["person", "dog", "cat"]}
NAMES = ("person", "dog", "cat", "car", "umbrella", "orange", "skis", "bus", "bed", "bird")


@pytest.fixture
def instances(tmp_path):
    """Thirty images; image i has i % 5 + 1 objects, some annotated twice."""
    annotations = [
        {"id": 0, "image_id": image, "category_id": (image + k * k) % 10, "bbox": [0, 0, 1, 1]}
        for image in range(30)
        for k in [*range(image % 5 + 1), 0]
    ]
    content = {
        "images": [{"id": image, "file_name": f"{image:03}.png"} for image in range(30)],
        "categories": [{"id": number, "name": name} for number, name in enumerate(NAMES)],
        "annotations": annotations,
    }
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    return path


def objects_of(path):
    content = json.loads(path.read_text())
    names = {category["id"]: category["name"] for category in content["categories"]}
    found = {image["file_name"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        name = names[annotation["category_id"]]
        if name not in found[f"{annotation['image_id']:03}.png"]:
            found[f"{annotation['image_id']:03}.png"].append(name)
    return found


def name_in(question):
    return question["text"].removeprefix("Is there ").removesuffix(" in the image?").split(" ", 1)[1]


def negatives(built, image):
    return [name_in(question) for question in built if question["image"] == image and question["label"] == "no"]


def test_objects_are_ranked_by_count_and_then_by_first_sight():
    assert ranked(name for names in SAMPLE.values() for name in names) == ["person", "dog", "car", "cat"]


def test_the_popular_negative_of_image_a_is_cat():
    assert negatives(questions(SAMPLE, "popular", per_image=1), "A") == ["cat"]


def test_companions_of_dog_are_person_car_cat():
    assert companions(SAMPLE, "dog") == ["person", "car", "cat"]
    assert companions(SAMPLE, "cat") == ["person", "car", "dog"]


def test_the_adversarial_negative_of_image_b_is_dog():
    assert negatives(questions({**SAMPLE, "B": ["cat", "person", "car"]}, "adversarial", per_image=1), "B") == ["dog"]


def test_the_adversarial_negative_follows_the_positive_where_the_popular_one_does_not():
    sample = {
        "1": ["fork", "knife"],
        "2": ["fork", "knife"],
        "3": ["fork", "cup"],
        **{f"person {i}": ["person", "car"] for i in range(5)},
    }
    assert negatives(questions(sample, "popular", per_image=1), "3") == ["person"]
    assert negatives(questions(sample, "adversarial", per_image=1), "3") == ["knife"]


def test_an_adversarial_negative_is_random_where_no_companion_is_left():
    sample = {"1": ["fork"], "2": ["dog"], "3": ["dog"]}
    assert negatives(questions(sample, "adversarial", per_image=1), "1") == ["dog"]


@pytest.mark.parametrize("strategy", ["random", "popular", "adversarial"])
def test_labels_alternate_and_ids_count_from_one(instances, strategy):
    built = build(instances, strategy)
    assert [question["label"] for question in built] == ["yes", "no"] * (len(built) // 2)
    assert [question["question_id"] for question in built] == list(range(1, len(built) + 1))
    assert {tuple(question) for question in built} == {("question_id", "image", "text", "label")}


@pytest.mark.parametrize("strategy", ["random", "popular", "adversarial"])
def test_every_label_is_true_and_no_object_is_asked_twice(instances, strategy):
    truth = objects_of(instances)
    built = build(instances, strategy)
    assert all((name_in(question) in truth[question["image"]]) == (question["label"] == "yes") for question in built)
    assert max(Counter((question["image"], question["text"]) for question in built).values()) == 1


def test_positives_are_the_first_objects_in_listed_order(instances):
    truth = objects_of(instances)
    for image in {question["image"] for question in build(instances)}:
        requests = [name_in(q) for q in build(instances) if q["image"] == image and q["label"] == "yes"]
        assert requests == truth[image][:3]


def test_splits_share_their_positives(instances):
    yes = [
        [question for question in build(instances, strategy) if question["label"] == "yes"]
        for strategy in ("random", "popular", "adversarial")
    ]
    assert yes[0] == yes[1] == yes[2]


def test_images_with_fewer_objects_are_left_out(instances):
    truth = objects_of(instances)
    assert {q["image"] for q in build(instances)} == {image for image, names in truth.items() if len(names) >= 3}
    assert {q["image"] for q in build(instances, per_image=2)} == {i for i, names in truth.items() if len(names) >= 2}


def test_the_article_goes_by_the_first_letter_and_other_letters_stay(instances):
    texts = {question["text"] for question in build(instances, per_image=1)}
    assert {"Is there an umbrella in the image?", "Is there an orange in the image?"} <= texts
    assert {"Is there a skis in the image?", "Is there a cat in the image?"} <= texts


def test_the_same_seed_builds_the_same_file(instances):
    assert build(instances, "random", seed=3) == build(instances, "random", seed=3)
    assert build(instances, "random", seed=3) != build(instances, "random", seed=4)
    assert build(instances, images=5, seed=3) != build(instances, images=5, seed=4)


def test_a_number_of_images_is_sampled_and_statistics_are_of_the_sample(instances):
    built = build(instances, "popular", images=6, seed=1)
    images = {question["image"] for question in built}
    assert len(images) == 6
    assert built == questions({image: names for image, names in objects_of(instances).items() if image in images})


def test_images_are_chosen_by_id_or_by_file_name_in_the_order_given(instances):
    built = build(instances, images=["013.png", 4, 8])
    assert list(dict.fromkeys(question["image"] for question in built)) == ["013.png", "004.png", "008.png"]


def test_objects_known_from_captions_are_never_negatives(instances):
    before = negatives(build(instances, "popular"), "002.png")
    after = negatives(build(instances, "popular", truth={2: {before[0]}}), "002.png")
    assert before[0] not in after


def test_loaded_annotations_serve_as_well_as_a_path(instances):
    assert build(json.loads(instances.read_text())) == build(instances)


def test_unknown_strategies_are_named():
    with pytest.raises(ValueError, match=r"no POPE strategy 'rare'\. Known: random, popular, adversarial"):
        questions(SAMPLE, "rare")


def test_an_image_that_leaves_no_negative_is_an_error_and_not_an_endless_loop():
    with pytest.raises(ValueError, match=r"image 'A' has 3 of the 4 objects.*leaves 1 for 3 negatives"):
        questions(SAMPLE, "random")


def test_no_image_with_enough_objects_is_an_error(instances):
    with pytest.raises(ValueError, match="none of 3 images has 4 objects"):
        questions(SAMPLE, per_image=4)
    with pytest.raises(ValueError, match="per_image=0 is below 1"):
        build(instances, per_image=0)


def test_images_that_the_file_lacks_are_named(instances):
    with pytest.raises(ValueError, match=r"1 of 2 images asked for are not in .*'999.png'"):
        build(instances, images=["999.png", 4])
    with pytest.raises(ValueError, match=r"images=1000, but \d+ of 30 images"):
        build(instances, images=1000)


def test_files_in_another_format_are_refused(tmp_path, instances):
    with pytest.raises(FileNotFoundError, match="no instances file at"):
        build(tmp_path / "absent.json")
    (tmp_path / "captions.json").write_text('{"images": [], "annotations": []}')
    with pytest.raises(ValueError, match="it has no categories"):
        build(tmp_path / "captions.json")
    (tmp_path / "torn.json").write_text('{"images": [],\n"annotations": [')
    with pytest.raises(ValueError, match="line 2 is not JSON"):
        build(tmp_path / "torn.json")
    content = json.loads(instances.read_text())
    content["annotations"][0]["category_id"] = 77
    with pytest.raises(ValueError, match="category_id 77"):
        build(content)
