"""Controlled scenes: one object whose size, place, occlusion, number, distractors or background alone are varied.

A scene is a function of (split, index, setting). All settings of one index share object, sprite, background, light and
grain (but for the foreign background, which has its own), and what is added in one setting stands where it stands in
every other, so that two settings differ in what their texts say and in nothing else. None of these images is among the
scenes of `datasets.world`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache

import numpy as np
from PIL import Image

from ..captions import absent_companions
from ..places import PLACES, Place, background
from ..world import SIZE, Scene, Thing, _sprites, generator

TYPICAL, FOREIGN = "typical", "foreign"
_STREAM = 77  # beside the split and the index, so that nothing is drawn as for other scenes
_CELL = SIZE // 4  # added objects stand in the outer cells of a grid, around the object in the middle
_OUTER = [(x, y) for x in range(4) for y in range(4) if x in (0, 3) or y in (0, 3)]


@dataclass(frozen=True)
class Setting:
    """What a controlled scene shows.

    Args:
        size: longest side of the object, pixels of 192.
        place: where the object stands: 0 is the middle of the image, 1 touches the border.
        occlusion: share of the object's pixels behind a grey panel; 0 has the panel beside it, None has no panel.
        number: objects of the kind.
        distractors: objects of other kinds.
        background: "typical" of the object, or "foreign": of a place where it is never found.

    >>> Setting(size=24).text, Setting().text, Setting.read("size=24")
    ('size=24', 'plain', Setting(size=24, place=0.0, occlusion=None, number=1, distractors=0, background='typical'))
    """

    size: int = 48
    place: float = 0.0
    occlusion: float | None = None
    number: int = 1
    distractors: int = 0
    background: str = TYPICAL

    @property
    def text(self) -> str:
        """What differs from the plain setting; "plain" where nothing does."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        shown = {name: value if isinstance(value, str) else f"{value:g}" for name, value in values.items()}
        return ",".join(f"{name}={value}" for name, value in shown.items()) or "plain"

    @classmethod
    def read(cls, text: str) -> Setting:
        """The setting of a text.

        Raises:
            ValueError: a factor that does not exist.
        """
        kinds = {"size": int, "place": float, "occlusion": float, "number": int, "distractors": int, "background": str}
        found = {}
        for part in text.split(",") if text != "plain" else ():
            name, _, value = part.partition("=")
            if name not in kinds:
                raise ValueError(f"no factor {name!r} in a controlled scene. Known: {', '.join(kinds)}.")
            found[name] = kinds[name](value)
        return cls(**found)  # type: ignore[arg-type]


# Factor -> its levels, the one that the others are compared with first.
LEVELS: Mapping[str, Sequence[int | float | str]] = {
    "size": (48, 12, 16, 24, 32, 72), "place": (0.0, 0.35, 0.7, 1.0), "occlusion": (0.0, 0.25, 0.5, 0.75, 0.9),
    "number": (1, 2, 3, 4, 6), "distractors": (0, 1, 2, 3, 5), "background": (TYPICAL, FOREIGN),
}  # fmt: skip


def setting(factor: str, level: int | float | str) -> Setting:
    """The plain setting with one factor at a level."""
    return replace(Setting(), **{factor: level})  # type: ignore[arg-type]


def settings() -> dict[Setting, list[tuple[str, int | float | str]]]:
    """Every setting once, with the factors and levels that it stands for; the plain one stands for most factors."""
    found: dict[Setting, list[tuple[str, int | float | str]]] = {}
    for factor, levels in LEVELS.items():
        for level in levels:
            found.setdefault(setting(factor, level), []).append((factor, level))
    return found


@dataclass(frozen=True)
class Plan:
    """What all settings of one index share.

    Args:
        object: the category that is varied. absent: a category that one would expect beside it, and that is nowhere.
        typical, foreign: places of the two backgrounds.
        sprite: of the object, as large as it is kept.
        towards: unit direction of `place`, whose larger part is ±1. side: of the panel.
        copies: cells of further objects of the kind. others: category, sprite and corner of each distractor.
    """

    object: str
    absent: str
    typical: Place
    foreign: Place
    sprite: Image.Image
    towards: tuple[float, float]
    side: int
    copies: Sequence[tuple[int, int]]
    others: Sequence[tuple[str, Image.Image, tuple[int, int]]]


@lru_cache(maxsize=256)
def plan(split: str, index: int) -> Plan:
    """The plan of controlled scene number `index` (0 or more) of a split.

    Raises:
        ValueError: an unknown split, or a negative index.
    """
    rng = generator(split, index, _STREAM)
    place = list(PLACES.values())[rng.integers(len(PLACES))]
    name = place.pool[rng.integers(len(place.pool))]
    companions = list(absent_companions([name]))
    absent = (companions or [other for other in place.pool if other != name])[0]
    strange = [other for other in PLACES.values() if name not in other.pool]
    foreign = strange[rng.integers(len(strange))]
    sprite = _sprite(name, rng)
    angle = rng.uniform(0, 2 * np.pi)
    x, y = float(np.cos(angle)), float(np.sin(angle))
    far = max(abs(x), abs(y))
    cells = [_OUTER[at] for at in rng.permutation(len(_OUTER))]
    names = [other for other in place.pool if other not in (name, absent)]
    chosen = [names[at] for at in rng.permutation(len(names))][: max(map(int, LEVELS["distractors"]))]
    others = []
    for other, (column, row) in zip(chosen, cells, strict=False):
        small = _scaled(_sprite(other, rng), int(rng.integers(34, 46)))
        slack = _CELL - small.width, _CELL - small.height
        corner = column * _CELL + int(rng.integers(slack[0] + 1)), row * _CELL + int(rng.integers(slack[1] + 1))
        others.append((other, small, corner))
    side = 1 if rng.random() < 0.5 else -1
    return Plan(name, absent, place, foreign, sprite, (x / far, y / far), side, cells, others)


def controlled(split: str, index: int, wanted: Setting) -> Scene:
    """Controlled scene number `index` of a split in a setting; the same on every machine and in every run.

    Raises:
        ValueError: as `plan`.
    """
    base = plan(split, index)
    place = base.foreign if wanted.background == FOREIGN else base.typical
    canvas = background(place, SIZE, generator(split, index, _STREAM, 1))
    owner = np.full((SIZE, SIZE), -1, np.int16)
    sprite = _scaled(base.sprite, wanted.size)
    corner = tuple(
        round(SIZE / 2 - side / 2 + wanted.place * way * (SIZE - side) / 2)
        for side, way in zip(sprite.size, base.towards, strict=True)
    )
    names, drawn = [base.object], [_paste(canvas, owner, sprite, corner, 0)]  # type: ignore[arg-type]
    for column, row in base.copies[: wanted.number - 1]:
        inside = column * _CELL + (_CELL - sprite.width) // 2, row * _CELL + (_CELL - sprite.height) // 2
        drawn.append(_paste(canvas, owner, sprite, inside, len(names)))
        names.append(base.object)
    for name, other, inside in base.others[: wanted.distractors]:
        drawn.append(_paste(canvas, owner, other, inside, len(names)))
        names.append(name)
    if wanted.occlusion is not None:
        _cover(canvas, owner, base.side, wanted.occlusion)
    things = [_thing(name, owner == number, drawn[number]) for number, name in enumerate(names)]
    things.sort(key=lambda thing: -thing.area)
    return Scene(split, index, place.name, canvas, tuple(things), ())


# -- helpers -------------------------------------------------------------------------------------------------------
def _sprite(name: str, rng: np.random.Generator) -> Image.Image:
    """One of a category's sprites, flipped or not; nothing else of its pose varies."""
    sprites = _sprites()[name]
    found = sprites[rng.integers(len(sprites))]
    return found.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else found


def _scaled(sprite: Image.Image, size: int) -> Image.Image:
    scale = size / max(sprite.size)
    sides = max(4, round(sprite.width * scale)), max(4, round(sprite.height * scale))
    return sprite.resize(sides, Image.Resampling.BILINEAR)


def _paste(canvas: Image.Image, owner: np.ndarray, sprite: Image.Image, corner: tuple[int, int], number: int) -> int:
    """Draw a sprite, mark its pixels as those of object `number`, and give how many they are."""
    x, y = corner
    solid = np.asarray(sprite.getchannel("A")) > 100
    canvas.paste(sprite, (x, y), sprite)
    owner[y : y + sprite.height, x : x + sprite.width][solid] = number
    return max(int(solid.sum()), 1)


def _cover(canvas: Image.Image, owner: np.ndarray, side: int, share: float) -> None:
    """Cover a share of object 0 with a panel that comes from one side, to the nearest column of pixels."""
    mask = owner == 0
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, right = int(columns[0]), int(columns[-1]) + 1
    counts = mask[:, left:right].sum(0)[::-side]  # by columns, from the panel's side
    hidden = np.concatenate([[0], np.cumsum(counts)]) / counts.sum()
    deep = int(np.abs(hidden - share).argmin())
    width, top, bottom = right - left + 8, max(int(rows[0]) - 8, 0), min(int(rows[-1]) + 9, SIZE)
    start = right - deep if side > 0 else left + deep - width
    start, end = max(start, 0), min(start + width, SIZE)
    grain = np.random.default_rng(0).normal(0, 4, (SIZE // 2, SIZE // 2)).repeat(2, 0).repeat(2, 1)
    pixels = np.clip(128 + grain[top:bottom, start:end, None].repeat(3, 2), 0, 255).astype(np.uint8)
    canvas.paste(Image.fromarray(pixels), (start, top))
    owner[top:bottom, start:end] = -1


def _thing(name: str, mask: np.ndarray, drawn: int) -> Thing:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = int(columns[0]), int(rows[0])
    box = (x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1)
    area = int(mask.sum())
    return Thing(name, box, area, area / drawn, mask)
