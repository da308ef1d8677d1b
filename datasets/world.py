"""The embedded world: scenes drawn from emoji sprites, with exact ground truth in COCO's format.

A scene is a function of (split, index) alone. Three splits that share no scene: `train`, `validation`, `test`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from .captions import reference_captions
from .categories import CATEGORIES
from .places import COMPANIONS, PLACES, Place, background

SIZE = 192
SPLITS = {"train": 11, "validation": 22, "test": 33}
_SHEET = Path(__file__).parent / "sprites" / "sheet.png"
_CELL, _COLUMNS = 96, 10
_MOST_HIDDEN = 0.6  # an object of which more is covered is placed again


@dataclass(frozen=True)
class Thing:
    """An object in a scene.

    category: COCO's name. box: (x, y, width, height) of its visible part, pixels. area: visible pixels.
    visible: visible share of what was drawn, 0 to 1. mask: (SIZE, SIZE) bool, the visible pixels.
    """

    category: str
    box: tuple[int, int, int, int]
    area: int
    visible: float
    mask: np.ndarray


@dataclass(frozen=True)
class Scene:
    """One image of the embedded world and all that is true of it; objects by visible area, largest first."""

    split: str
    index: int
    place: str
    image: Image.Image
    objects: Sequence[Thing]
    captions: Sequence[str]

    @property
    def name(self) -> str:
        return f"{self.split}_{self.index:06d}.png"

    @property
    def categories(self) -> list[str]:
        """The distinct categories, largest total visible area first."""
        area: dict[str, int] = {}
        for thing in self.objects:
            area[thing.category] = area.get(thing.category, 0) + thing.area
        return sorted(area, key=lambda category: -area[category])

    @property
    def counts(self) -> dict[str, int]:
        """How many objects of each category, in the order of `categories`."""
        return {c: sum(thing.category == c for thing in self.objects) for c in self.categories}


@cache
def _sprites() -> dict[str, list[Image.Image]]:
    sheet, index, out = Image.open(_SHEET).convert("RGBA"), 0, {}
    for name, category in CATEGORIES.items():
        cells = []
        for _ in category.emoji:
            row, column = divmod(index, _COLUMNS)
            cell = sheet.crop((column * _CELL, row * _CELL, (column + 1) * _CELL, (row + 1) * _CELL))
            cells.append(cell.crop(cell.getbbox()))
            index += 1
        out[name] = cells
    return out


def _choose(place: Place, rng: np.random.Generator) -> list[str]:
    """What stands in the scene: typical things of the place, their companions, a repeat, now and then a stranger."""
    weights = 1 / np.arange(1, len(place.pool) + 1) ** 0.7
    weights /= weights.sum()
    names: list[str] = []
    for _ in range(rng.choice(6, p=[0.08, 0.17, 0.25, 0.23, 0.16, 0.11]) + 1):
        beside = [COMPANIONS[n][0] for n in names if n in COMPANIONS and COMPANIONS[n][0] not in names]
        draw = rng.random()
        if beside and draw < 0.3:
            names.append(beside[rng.integers(len(beside))])
        elif names and draw < 0.38:
            names.append(names[rng.integers(len(names))])
        elif draw < 0.44:
            names.append(list(CATEGORIES)[rng.integers(len(CATEGORIES))])
        else:
            names.append(place.pool[rng.choice(len(place.pool), p=weights)])
    return names


def _pose(sprite: Image.Image, size: int, rng: np.random.Generator) -> Image.Image:
    scale = size / max(sprite.size)
    width, height = max(4, round(sprite.width * scale)), max(4, round(sprite.height * scale))
    out = sprite.resize((width, height), Image.Resampling.BILINEAR)
    if rng.random() < 0.5:
        out = out.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rng.random() < 0.4:
        out = out.rotate(rng.uniform(-20, 20), expand=True, resample=Image.Resampling.BILINEAR)
    if rng.random() < 0.08:  # weak evidence: faint and out of focus
        out = out.filter(ImageFilter.GaussianBlur(size / 40))
        out.putalpha(out.getchannel("A").point(lambda a: int(a * 0.75)))
    return out


def _draw(names: Sequence[str], canvas: Image.Image, rng: np.random.Generator) -> list[Thing]:
    owner = np.full((SIZE, SIZE), -1, np.int16)
    drawn: list[int] = []
    shrink = 1.0 if len(names) < 4 else 0.85
    for number, name in enumerate(names):
        low, high = ((58, 92), (42, 58), (28, 42))[rng.choice(3, p=[0.5, 0.35, 0.15])]
        sprites = _sprites()[name]
        sprite = _pose(sprites[rng.integers(len(sprites))], int(rng.uniform(low, high) * shrink), rng)
        solid = np.asarray(sprite.getchannel("A")) > 100
        for _ in range(30):
            x = int(rng.integers(0, SIZE - sprite.width + 1))
            y = int(rng.integers(0, SIZE - sprite.height + 1))
            under = owner[y : y + sprite.height, x : x + sprite.width]
            hit = under[solid & (under >= 0)]
            covered = [(hit == other).sum() / drawn[other] for other in np.unique(hit)]
            if all(share < 0.25 for share in covered):
                break
        canvas.paste(sprite, (x, y), sprite)
        under[solid] = number
        drawn.append(max(int(solid.sum()), 1))
    things = []
    for number, name in enumerate(names):
        mask = owner == number
        area = int(mask.sum())
        if area < (1 - _MOST_HIDDEN) * drawn[number] or area < 60:
            continue
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        x, y = int(columns[0]), int(rows[0])
        box = (x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1)
        things.append(Thing(name, box, area, area / drawn[number], mask))
    return things


def generator(split: str, index: int, *stream: int) -> np.random.Generator:
    """The random numbers of scene number `index` of a split; another `stream` gives others.

    Raises:
        ValueError: an unknown split, or a negative index.
    """
    if split not in SPLITS:
        raise ValueError(f"no split {split!r} in the embedded world; possible: {', '.join(SPLITS)}")
    if index < 0:
        raise ValueError(f"index={index} of the embedded world is negative; scenes count from 0")
    return np.random.default_rng([SPLITS[split], index, *stream])


def scene(split: str, index: int) -> Scene:
    """Scene number `index` (0 or more) of a split; the same on every machine and in every run.

    Raises:
        ValueError: an unknown split, or a negative index.
    """
    rng = generator(split, index)
    place = list(PLACES.values())[rng.integers(len(PLACES))]
    for _ in range(20):
        canvas, names = background(place, SIZE, rng), _choose(place, rng)
        things = _draw(names, canvas, rng)
        if len(things) == len(names):  # nothing is in the image that the truth does not know
            break
    things.sort(key=lambda thing: -thing.area)
    view = Scene(split, index, place.name, canvas, tuple(things), ())
    return Scene(split, index, place.name, canvas, tuple(things), reference_captions(view.counts, place))


def is_scene(image: Image.Image) -> bool:
    """Whether an RGB image is drawn as scenes are: of their size, with a grain of 2 × 2 pixels all over.

    Neighbouring pixels differ less within the squares of the grain than across their borders: by less than 0.6 of it in
    a scene, and by as much in a photo of that size.
    """
    if image.size != (SIZE, SIZE):
        return False
    pixels = np.asarray(image.convert("RGB"), np.float32)
    steps = [np.minimum(np.abs(np.diff(a, axis=1)).mean(2), 10) for a in (pixels, pixels.transpose(1, 0, 2))]
    within, across = (sum(step[:, first::2].mean() for step in steps) / 2 for first in (0, 1))
    return bool(across > 1 and within < 0.75 * across)
