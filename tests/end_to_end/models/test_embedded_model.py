"""The embedded LVLM is what its model card says: a small sample, measured again."""

import re
from pathlib import Path

import pytest
import torch

import veridical
from veridical.flows.training.embedded.examination import examine
from veridical.models import EMBEDDED

IMAGES = 60


@pytest.fixture(scope="module")
def figures():
    return examine(veridical.load("embedded"), IMAGES)


@pytest.fixture(scope="module")
def card() -> dict[str, tuple[float, float, float]]:
    """Label -> (value, low, high), read from the model card's table."""
    text = (EMBEDDED / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+?) \| ([\d.]+) \| ([\d.]+) – ([\d.]+) \| \d+ \|$", text, re.M)
    return {label: (float(value), float(low), float(high)) for label, value, low, high in rows}


def test_it_finds_most_objects(figures):
    assert figures["recall"].value >= 0.70


def test_it_hallucinates_as_large_models_do(figures):
    assert 0.08 <= figures["chair_i"].value <= 0.32


def test_it_hallucinates_more_in_the_second_half_of_a_caption(figures):
    assert figures["chair_i_second_half"].value > figures["chair_i_first_half"].value


def test_it_seldom_names_a_category_twice(figures):
    assert figures["repetition"].value <= 0.08


def test_it_answers_questions_and_the_adversarial_ones_worse(figures):
    assert figures["pope_random"].value >= 0.84
    assert figures["pope_adversarial"].value <= figures["pope_random"].value - 0.02


def test_with_shuffled_images_its_answers_are_near_chance(figures):
    assert figures["pope_shuffled"].value <= 0.62


def test_the_card_agrees_with_a_small_sample(figures, card):
    """The sample's interval and the card's overlap: 95 % each, so that a card of another model would not pass."""
    labels = {
        "object recall": "recall",
        "CHAIR_i": "chair_i",
        "POPE accuracy, random": "pope_random",
        "POPE accuracy, adversarial": "pope_adversarial",
    }
    assert set(labels) <= set(card)
    for label, name in labels.items():
        value, low, high = card[label]
        assert figures[name].low <= high, label
        assert figures[name].high >= low, label
        assert low <= value <= high


def test_it_is_a_plain_llava_checkpoint_small_enough_to_ship():
    size = sum(path.stat().st_size for path in Path(EMBEDDED).iterdir())
    assert size <= 16 * 2**20
    lvlm = veridical.load("embedded")
    assert type(lvlm.model).__name__ == "LlavaForConditionalGeneration"
    assert not [path for path in Path(EMBEDDED).iterdir() if path.suffix in (".bin", ".pt", ".pkl")]


def test_changed_pixels_change_the_logits():
    lvlm = veridical.load("embedded")
    from veridical.datasets.world import scene

    first, second = scene("test", 0).image, scene("test", 1).image
    inputs = lvlm.prepare([first, second], ["Please describe this image in detail."] * 2)
    with torch.no_grad():
        logits = lvlm.model(**inputs).logits[:, -1]
    assert (logits[0] - logits[1]).abs().max() > 0.1
