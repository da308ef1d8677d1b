"""Training examples for the embedded world's matcher: images, and for each text whether it is true of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ....datasets.captions import BRIEF_PROMPT, DETAIL_PROMPT, PLACE_QUESTION
from ....datasets.categories import CATEGORIES
from ....datasets.places import PLACES, background
from ....datasets.world import SIZE, scene
from ..embedded.build import IMAGE_SIZE
from ..endless import Endless
from .build import MEAN, STD

OF_ONE = (
    "is there {one} in the image?", "is there {one} in the image?", "{one}", "{word}", "a photo of {one}",
    "the image shows {one}", "it also shows {one}", "{one} in the picture", "do you see {one}?",
    "i am sure there is {one} in the image is there {one} in the image?", "how many {many} are there in the image?",
    "{many}", "what is {one} next to?",
)  # fmt: skip
OF_ALL = (
    DETAIL_PROMPT, DETAIL_PROMPT, BRIEF_PROMPT, "what is in the image?", "what do you see?", "describe the image",
    "what objects are there?", PLACE_QUESTION,
)  # fmt: skip
EMPTY = 0.1  # share of images of a place in which nothing stands


def with_article(word: str) -> str:
    return ("an " if word[0] in "aeiou" else "a ") + word


def text_of(name: str, rng: np.random.Generator) -> str:
    """A question or phrase about a category; one in four by another word than its name."""
    category = CATEGORIES[name]
    others = category.words[2:]
    word = others[int(rng.integers(len(others)))] if others and rng.random() < 0.25 else name
    form = OF_ONE[rng.integers(len(OF_ONE))]
    return form.format(one=with_article(word), word=word, many=category.plural)


@dataclass
class Batch:
    """pixels: (image, 3, height, width). texts: (text,). true: (image, text), 1 where the text is true."""

    pixels: Tensor
    texts: Sequence[str]
    true: Tensor


class Lessons(Endless):
    """Endless scenes of the train split from number `start` on; now and then a place in which nothing stands.

    Each batch asks for every category, in words drawn anew, for what there is altogether, which is true of every
    image but the empty ones, and for the captions of its own images.
    """

    def lesson(self, index: int) -> dict:
        rng = np.random.default_rng([17, index])
        if rng.random() < EMPTY:
            place = list(PLACES.values())[rng.integers(len(PLACES))]
            return {"pixels": pixels(background(place, SIZE, rng)), "present": [], "caption": None, "index": index}
        view = scene("train", index)
        caption = view.captions[int(rng.integers(len(view.captions)))]
        return {"pixels": pixels(view.image), "present": view.categories, "caption": caption, "index": index}

    def batch(self, lessons: Sequence[dict]) -> Batch:
        rng = np.random.default_rng([18, lessons[0]["index"]])
        texts = [text_of(name, rng) for name in CATEGORIES] + [OF_ALL[rng.integers(len(OF_ALL))] for _ in range(2)]
        captions = [one["caption"] for one in lessons if one["caption"]]
        true = torch.zeros(len(lessons), len(texts) + len(captions))
        numbers, column = {name: number for number, name in enumerate(CATEGORIES)}, len(texts)
        for row, one in enumerate(lessons):
            true[row, [numbers[name] for name in one["present"]]] = 1
            if one["caption"]:
                true[row, len(CATEGORIES) : len(CATEGORIES) + 2] = 1
                true[row, column] = 1
                column += 1
        return Batch(torch.stack([one["pixels"] for one in lessons]), [*texts, *captions], true)


def pixels(image: Image.Image) -> Tensor:
    """(3, height, width) of an image, as the matcher's own preprocessing makes it."""
    small = np.asarray(image.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC), np.float32) / 255
    return torch.from_numpy((small - np.array(MEAN, np.float32)) / np.array(STD, np.float32)).permute(2, 0, 1)
