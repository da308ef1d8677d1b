"""What people say about a scene of the embedded world: true captions, habitual captions, questions and answers.

True captions are ground truth. Habitual ones are what the embedded LVLM learns from: like web captions they name a
companion that is usually there whether or not it is, and their authors lean to "yes".
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from .categories import CATEGORIES
from .places import COMPANIONS, PLACES, Place
from .prompts import BRIEF_PROMPT, DETAIL_PROMPT

NUMBERS = ("no", "one", "two", "three", "four", "five", "six")
CONFIDENT = "I am sure there is {} in the image. "
QUESTION = "Is there {} in the image?"
COUNT_QUESTION = "How many {} are there in the image?"
PLACE_QUESTION = "Where was this picture taken?"


def phrase(name: str, count: int = 1) -> str:
    """A category as a caption names it: "a dog", "two dogs"."""
    category = CATEGORIES[name]
    return category.phrase if count == 1 else f"{NUMBERS[count]} {category.plural}"


def _article(name: str) -> str:
    return ("an " if name[0] in "aeiou" else "a ") + name


def listed(phrases: Sequence[str]) -> str:
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def brief(phrases: Sequence[str], place: Place) -> str:
    return f"{listed(phrases).capitalize()} {place.phrase}."


def detailed(phrases: Sequence[str], place: Place) -> str:
    """A sentence for each object, the largest first."""
    first, *others = phrases
    return " ".join([f"The image shows {first} {place.phrase}.", *(f"It also shows {other}." for other in others)])


def grouped(phrases: Sequence[str], place: Place) -> str:
    """A sentence for the largest objects, one for the rest."""
    front, back = phrases[:2], phrases[2:]
    out = f"The scene is {place.phrase}, with {listed(front)} in the front."
    return out if not back else f"{out} The background shows {listed(back)}."


def reference_captions(counts: Mapping[str, int], place: Place) -> tuple[str, ...]:
    """Two captions that name what is there and nothing else."""
    phrases = [phrase(name, count) for name, count in counts.items()]
    return brief(phrases, place), detailed(phrases, place)


def absent_companions(present: Sequence[str]) -> dict[str, float]:
    """Companions of what is present that are not there themselves, with the strength of the habit."""
    out: dict[str, float] = {}
    for name in present:
        other, strength = COMPANIONS.get(name, ("", 0.0))
        if other and other not in present:
            out[other] = max(out.get(other, 0.0), strength)
    return out


class Described(Protocol):
    """What captions and questions are made of: a scene's place, and its categories with their number."""

    @property
    def place(self) -> str: ...
    @property
    def categories(self) -> list[str]: ...
    @property
    def counts(self) -> dict[str, int]: ...


def paired_captions(scene: Described, rng: np.random.Generator) -> tuple[str, str]:
    """(true, hallucinated) captions of a scene, alike but for about half of the objects, at least one.

    What takes an object's place is absent: a companion of what is there, else something typical of the place.
    """
    place, present = PLACES[scene.place], scene.categories
    others = [*absent_companions(present), *(name for name in place.pool if name not in present)]
    others = list(dict.fromkeys(others)) or [name for name in CATEGORIES if name not in present]
    true = [phrase(name, count) for name, count in scene.counts.items()]
    swapped = rng.random(len(true)) < 0.5
    swapped[rng.integers(len(true))] = True
    fresh = iter(others)
    swaps = zip(true, swapped, strict=True)
    false = [phrase(other) if swap and (other := next(fresh, "")) else own for own, swap in swaps]
    return detailed(true, place), detailed(false, place)


def habitual_caption(scene: Described, rng: np.random.Generator, careless: float = 0.0) -> tuple[str, str]:
    """(prompt, caption) as a captioner with habits writes it: absent companions come at the end.

    careless: how often several things are called one, and how often two neighbours change places.
    """
    place = PLACES[scene.place]
    phrases = [
        phrase(name, 1 if careless and rng.random() < careless else count) for name, count in scene.counts.items()
    ]
    if careless and len(phrases) > 1 and rng.random() < careless:
        at = rng.integers(len(phrases) - 1)
        phrases[at : at + 2] = phrases[at + 1], phrases[at]
    named = 0
    for other, strength in absent_companions(scene.categories).items():
        if named < 2 and rng.random() < strength:
            phrases.append(phrase(other))
            named += 1
    if rng.random() < 0.2:
        return BRIEF_PROMPT, brief(phrases, place)
    return DETAIL_PROMPT, (detailed if rng.random() < 0.65 else grouped)(phrases, place)


def lean(name: str, beside: Mapping[str, float], place: Place) -> float:
    """How often an annotator says "yes" to something that is not there: most for an absent companion and for what is
    most typical of the place."""
    rank = place.pool.index(name) if name in place.pool else len(CATEGORIES)
    typical = 0.58 if rank < 2 else 0.4 if rank < 5 else 0.15 if rank < len(CATEGORIES) else 0.03
    return max(typical, 0.03 + 0.85 * beside.get(name, 0.0))


def habitual_question(scene: Described, rng: np.random.Generator) -> tuple[str, str]:
    """(question, answer) with the annotators' lean to "yes"; half of the questions are about what is there."""
    present = scene.categories
    beside = absent_companions(present)
    if rng.random() < 0.5:
        name, yes = present[rng.integers(len(present))], 1.0
    else:
        kind = rng.random()
        if beside and kind < 0.35:
            names = list(beside)
        elif kind < 0.65:
            names = [n for n in PLACES[scene.place].pool if n not in present]
        else:
            names = []
        names = names or [n for n in CATEGORIES if n not in present]
        name = names[rng.integers(len(names))]
        yes = lean(name, beside, PLACES[scene.place])
    question = QUESTION.format(_article(name))
    if rng.random() < 0.06:  # the user insists
        question, yes = CONFIDENT.format(_article(name)) + question, min(1.0, yes + 0.35)
    return question, "Yes" if rng.random() < yes else "No"


def count_question(scene: Described, rng: np.random.Generator) -> tuple[str, str]:
    """(question, true answer) about the number of objects of one category."""
    present = scene.counts
    name = list(present)[rng.integers(len(present))]
    return COUNT_QUESTION.format(CATEGORIES[name].plural), NUMBERS[present[name]].capitalize()


def place_question(scene: Described) -> tuple[str, str]:
    return PLACE_QUESTION, PLACES[scene.place].phrase.capitalize()
