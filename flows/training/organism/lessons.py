"""Training examples for embedded-smollm2: one image, a caption by a captioner with habits, questions until it is full.

The answers, with the captioner's habits and the annotators' lean to "yes", are those of the embedded LVLM; the wording
varies, as a model that has read much English allows.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ....datasets import captions
from ....datasets.categories import CATEGORIES
from ....datasets.places import PLACES
from ....datasets.prompts import BRIEF_PROMPT, DETAIL_PROMPT
from ....datasets.world import SIZE, Scene, scene
from ..embedded.build import IMAGE_SIZE
from ..embedded.lessons import BACKGROUND, Batch, Lessons, patch_labels

LENGTH = 208  # tokens of a row: what a step costs does not depend on what is in it

DETAIL_PROMPTS = (
    DETAIL_PROMPT, DETAIL_PROMPT, DETAIL_PROMPT, "Describe the image.", "What is in this image?",
    "Please describe the scene.", "What can you see here?", "Tell me everything that you see in the image.",
)  # fmt: skip
BRIEF_PROMPTS = (BRIEF_PROMPT, BRIEF_PROMPT, "Give a short caption.", "Write one sentence about this image.")
_OPENINGS = (
    "The image shows {first} {place}.", "The image features {first} {place}.", "There is {first} {place}.",
    "In this image, {first} can be seen {place}.", "This is a scene {place}, with {first} in it.",
)  # fmt: skip
_FURTHER = (
    "It also shows {0}.", "There is also {0}.", "Next to it is {0}.", "In addition, {0} can be seen.",
    "Somewhere in the scene is {0}.",
)  # fmt: skip
_ENDS = ("Finally, there is {0}.", "In the background is {0}.", "The rest of the scene shows {0}.")
_QUESTIONS = ("Do you see {} in the image?", "Is {} visible here?", "Can {} be seen here?", "Is there {} here?")
_SIDES = (("left", "right"), ("top", "bottom"))


SHORT = 3.0  # weight of the words of a short answer, beside a caption's


def varied(phrases: Sequence[str], place: str, rng: np.random.Generator) -> str:
    """A caption of several sentences, the largest object first, in one of many wordings."""
    pick = lambda options: options[rng.integers(len(options))]
    first, *others = phrases
    if rng.random() < 0.3 and others:
        first, others = captions.listed((first, others[0])), others[1:]
        opening = f"The image shows {first} {place}." if rng.random() < 0.5 else f"This image features {first} {place}."
    else:
        opening = pick(_OPENINGS).format(first=first, place=place)
    out = [opening]
    while others:
        if len(others) > 1 and rng.random() < 0.35:
            out.append(pick(_ENDS[1:]).format(captions.listed(others[:2])))
            others = others[2:]
        else:
            out.append(pick(_ENDS[:2] if len(others) == 1 and rng.random() < 0.3 else _FURTHER).format(others[0]))
            others = others[1:]
    return " ".join(out).replace("There is two", "There are two").replace("There is three", "There are three")


def habitual_caption(view: Scene, rng: np.random.Generator) -> tuple[str, str]:
    """(prompt, caption): what is there and, at the end, the absent companions that the captioner's habits add."""
    counts: Mapping[str, int] = view.counts
    phrases = [captions.phrase(name, count) for name, count in counts.items()]
    missing = captions.absent_companions(view.categories)
    phrases += [captions.phrase(name) for name, strength in missing.items() if rng.random() < strength][:2]
    place = PLACES[view.place]
    if rng.random() < 0.12:
        return BRIEF_PROMPTS[rng.integers(len(BRIEF_PROMPTS))], captions.brief(phrases, place)
    return DETAIL_PROMPTS[rng.integers(len(DETAIL_PROMPTS))], varied(phrases, place.phrase, rng)


def side_question(view: Scene, rng: np.random.Generator) -> tuple[str, str] | None:
    """(question, true answer) on which side an object is that is alone of its kind; None if none is clearly on one."""
    alone = [thing for thing in view.objects if view.counts[thing.category] == 1]
    if not alone:
        return None
    thing, axis = alone[rng.integers(len(alone))], int(rng.integers(2))
    centre = thing.box[axis] + thing.box[axis + 2] / 2
    if abs(centre / SIZE - 0.5) < 0.12:
        return None
    low, high = _SIDES[axis]
    question = f"Is the {thing.category} at the {low} or at the {high} of the image?"
    return question, (low if centre < SIZE / 2 else high).capitalize()


def question(view: Scene, rng: np.random.Generator) -> tuple[str, str]:
    """(question, answer): mostly of presence, in POPE's words or others; some of number, place and side."""
    kind = rng.random()
    if kind < 0.05:
        return captions.count_question(view, rng)
    if kind < 0.08:
        return captions.place_question(view)
    if kind < 0.12 and (pair := side_question(view, rng)):
        return pair
    text, answer = captions.habitual_question(view, rng)
    if rng.random() < 0.15 and text.startswith("Is there "):
        text = _QUESTIONS[rng.integers(len(_QUESTIONS))].format(text[9:].removesuffix(" in the image?"))
    return text, answer


NAMES = (*CATEGORIES, *PLACES)  # what a patch can show


class OrganismLessons(Lessons):
    """Rows of LENGTH tokens: the image once, then conversations that do not see each other, until the row is full."""

    def lesson(self, index: int) -> dict:
        view, rng = scene("train", index), np.random.default_rng([8, index])
        small = view.image.resize((IMAGE_SIZE, IMAGE_SIZE), 3)  # bicubic, as the processor does
        out: dict[str, Any] = {"pixels": np.asarray(small, np.float32) / 255, "patches": patch_labels(view)}
        out["patches"][out["patches"] == BACKGROUND] = NAMES.index(view.place)
        if not self.stage.captions:
            return out
        encode = lambda text: self.processor.tokenizer(text, add_special_tokens=False).input_ids
        talks: list[tuple[list[int], list[int]]] = []
        left = LENGTH - len(self.prefix)
        while True:
            prompt, answer = habitual_caption(view, rng) if not talks else question(view, rng)
            pair = encode(self.after.replace("|", prompt, 1)), [*encode(answer), self.end]
            left -= len(pair[0]) + len(pair[1])
            if left < 0:
                break
            talks.append(pair)
        out["talks"] = talks
        return out

    def batch(self, lessons: list[dict]) -> Batch:
        batch = super().batch(lessons)
        if not self.stage.captions:
            return batch
        batch.weights[batch.weights > 1] = SHORT
        pad = LENGTH - batch.ids.shape[1]
        grow = lambda value, fill: torch.nn.functional.pad(value, (0, pad), value=fill)
        batch.ids, batch.labels, batch.weights = grow(batch.ids, 0), grow(batch.labels, -100), grow(batch.weights, 0.0)
        batch.positions = grow(batch.positions, 0)
        batch.mask = torch.nn.functional.pad(batch.mask, (0, pad, 0, pad), value=False)
        return batch


def words_of(tokens, names: Sequence[str]) -> list[list[int]]:
    """The ids of each name's words inside a sentence."""
    return [tokens(f" {name}", add_special_tokens=False).input_ids for name in names]
