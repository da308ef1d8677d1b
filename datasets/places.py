"""The embedded world's places: what stands there, what usually stands together, and how the background is drawn."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Place:
    """A kind of scene. `pool` names its categories, the frequent ones first; `phrase` says where things are."""

    name: str
    phrase: str
    pool: tuple[str, ...]
    paint: Callable[[ImageDraw.ImageDraw, int, np.random.Generator], None]


# What tends to stand beside a thing. The companion is present with its trigger more often than chance would have it,
# and the people who wrote the training captions often name it when it is not there. The number is the habit's strength.
COMPANIONS: Mapping[str, tuple[str, float]] = {
    "fork": ("knife", 0.85),
    "laptop": ("mouse", 0.85),
    "keyboard": ("mouse", 0.65),
    "bed": ("teddy bear", 0.65),
    "couch": ("tv", 0.85),
    "car": ("person", 0.65),
    "bus": ("car", 0.85),
    "truck": ("car", 0.4),
    "bicycle": ("person", 0.85),
    "cow": ("sheep", 0.85),
    "horse": ("cow", 0.4),
    "elephant": ("giraffe", 0.85),
    "zebra": ("giraffe", 0.65),
    "kite": ("person", 0.85),
    "boat": ("person", 0.65),
    "toilet": ("toothbrush", 0.85),
    "skis": ("person", 0.85),
    "pizza": ("bottle", 0.65),
    "bowl": ("spoon", 0.85),
    "chair": ("potted plant", 0.4),
    "dog": ("person", 0.4),
    "book": ("cup", 0.4),
    "umbrella": ("handbag", 0.65),
    "traffic light": ("car", 0.65),
    "tennis racket": ("sports ball", 0.85),
    "cake": ("cup", 0.4),
}


def _indoors(wall: Color, floor: Color, extra: Callable | None = None) -> Callable:
    def paint(draw: ImageDraw.ImageDraw, size: int, rng: np.random.Generator) -> None:
        line = int(size * rng.uniform(0.55, 0.72))
        draw.rectangle((0, 0, size, line), fill=_vary(wall, rng))
        draw.rectangle((0, line, size, size), fill=_vary(floor, rng))
        if extra is not None:
            extra(draw, size, line, rng)

    return paint


def _outdoors(sky: Color, ground: Color, extra: Callable | None = None) -> Callable:
    def paint(draw: ImageDraw.ImageDraw, size: int, rng: np.random.Generator) -> None:
        line = int(size * rng.uniform(0.35, 0.55))
        top, bottom = np.array(_vary(sky, rng)), np.minimum(np.array(sky) + 40, 255)
        for y in range(0, line, 4):
            share = y / line
            draw.rectangle((0, y, size, y + 4), fill=tuple(int(v) for v in top * (1 - share) + bottom * share))
        draw.rectangle((0, line, size, size), fill=_vary(ground, rng))
        if extra is not None:
            extra(draw, size, line, rng)

    return paint


def _vary(color: Color, rng: np.random.Generator, spread: float = 12) -> Color:
    r, g, b = (int(np.clip(v + d, 0, 255)) for v, d in zip(color, rng.normal(0, spread, 3), strict=True))
    return r, g, b


def _tiles(step: int, color: Color) -> Callable:
    def extra(draw, size, line, rng):
        for at in range(0, size, step):
            draw.line((at, 0, at, line), fill=color)
            if at < line:
                draw.line((0, at, size, at), fill=color)

    return extra


def _window(draw, size, line, rng):
    x, w = int(rng.uniform(0.05, 0.6) * size), int(size * 0.3)
    top, bottom, frame = int(line * 0.15), int(line * 0.65), (250, 250, 250)
    draw.rectangle((x, top, x + w, bottom), fill=(190, 220, 240), outline=frame, width=3)
    draw.line((x + w // 2, top, x + w // 2, bottom), fill=frame, width=2)


def _shelves(draw, size, line, rng):
    for y in (0.2, 0.45):
        draw.rectangle((0, int(line * y), size, int(line * y) + 3), fill=(150, 130, 110))


def _stripes(draw, size, line, rng):
    for at in range(0, size, 18):
        draw.rectangle((at, 0, at + 8, line), fill=(205, 185, 215))


def _road(draw, size, line, rng):
    for at in range(int(rng.integers(-20, 0)), size, 40):
        height = int(rng.uniform(0.3, 0.9) * line)
        draw.rectangle((at, line - height, at + 36, line), fill=_vary((140, 125, 120), rng))
        for x in range(at + 5, at + 30, 11):
            draw.rectangle((x, line - height + 6, x + 5, line - height + 12), fill=(220, 215, 180))
    middle = (line + size) // 2
    for at in range(0, size, 30):
        draw.rectangle((at, middle, at + 16, middle + 3), fill=(235, 235, 220))


def _fence(draw, size, line, rng):
    for at in range(0, size, 16):
        draw.rectangle((at, line - 12, at + 3, line + 6), fill=(150, 110, 70))
    draw.rectangle((0, line - 6, size, line - 4), fill=(150, 110, 70))


def _acacias(draw, size, line, rng):
    for _ in range(3):
        x = int(rng.uniform(0, size))
        draw.rectangle((x - 1, line - 22, x + 2, line), fill=(110, 85, 55))
        draw.ellipse((x - 20, line - 32, x + 20, line - 18), fill=(130, 140, 70))


def _trees(draw, size, line, rng):
    for _ in range(5):
        x, r = int(rng.uniform(0, size)), int(rng.uniform(10, 20))
        draw.rectangle((x - 2, line - 10, x + 2, line + 4), fill=(105, 80, 55))
        draw.ellipse((x - r, line - 10 - 2 * r, x + r, line - 8), fill=_vary((60, 130, 60), rng))


def _waves(draw, size, line, rng):
    for y in range(line + 6, size, 14):
        for x in range(int(rng.integers(-16, 0)), size, 26):
            draw.arc((x, y, x + 22, y + 8), 0, 180, fill=(190, 220, 240))


def _mountains(draw, size, line, rng):
    for x in range(-20, size, 60):
        peak = int(line * rng.uniform(0.2, 0.6))
        draw.polygon(((x, line), (x + 45, peak), (x + 90, line)), fill=_vary((160, 170, 190), rng))


def _place(name: str, phrase: str, pool: str, paint: Callable) -> Place:
    return Place(name, phrase, tuple(part.strip() for part in pool.split(",")), paint)


PLACES: Mapping[str, Place] = {
    place.name: place
    for place in (
        _place("street", "on a street",
               "person, car, bus, truck, bicycle, motorcycle, traffic light, stop sign, dog, handbag, backpack, "
               "umbrella, train",
               _outdoors((150, 180, 215), (120, 120, 125), _road)),
        _place("kitchen", "in a kitchen",
               "fork, knife, bowl, spoon, bottle, cup, pizza, banana, apple, orange, wine glass, broccoli, carrot, "
               "sandwich, cake, hot dog, donut, chair",
               _indoors((235, 225, 200), (180, 140, 100), _tiles(16, (215, 205, 180)))),
        _place("living room", "in a living room",
               "couch, tv, chair, person, cat, dog, book, potted plant, vase, clock, teddy bear, cell phone, cup, "
               "laptop",
               _indoors((215, 190, 160), (140, 100, 75), _window)),
        _place("office", "in an office",
               "laptop, mouse, keyboard, person, book, cup, chair, cell phone, potted plant, clock, tie, scissors",
               _indoors((200, 208, 218), (110, 115, 125), _shelves)),
        _place("farm", "on a farm", "cow, sheep, horse, dog, person, bird, truck, cat",
               _outdoors((150, 200, 235), (125, 175, 85), _fence)),
        _place("safari", "on a safari", "elephant, giraffe, zebra, bear, bird, person, backpack",
               _outdoors((235, 215, 165), (205, 175, 105), _acacias)),
        _place("park", "in a park",
               "person, dog, kite, bicycle, frisbee, tennis racket, sports ball, bird, umbrella, skateboard, backpack, "
               "handbag",
               _outdoors((155, 205, 240), (105, 180, 95), _trees)),
        _place("harbour", "at a harbour", "boat, person, bird, airplane, umbrella, suitcase, handbag, dog",
               _outdoors((175, 210, 240), (85, 140, 190), _waves)),
        _place("bedroom", "in a bedroom",
               "bed, teddy bear, book, clock, laptop, cell phone, cat, chair, person, suitcase, cup",
               _indoors((222, 204, 228), (175, 150, 135), _stripes)),
        _place("bathroom", "in a bathroom", "toilet, toothbrush, cup, bottle, scissors, potted plant, clock, person",
               _indoors((195, 225, 230), (170, 185, 190), _tiles(10, (175, 210, 215)))),
        _place("snow", "in the snow", "person, skis, dog, backpack, bird, car, bear",
               _outdoors((190, 205, 225), (240, 244, 250), _mountains)),
    )
}  # fmt: skip


def background(place: Place, size: int, rng: np.random.Generator) -> Image.Image:
    """A background of `place`, size × size, with light and grain of its own."""
    image = Image.new("RGB", (size, size))
    place.paint(ImageDraw.Draw(image), size, rng)
    light = Image.fromarray((rng.normal(0, 10, (5, 5)) + rng.normal(0, 8)).astype(np.float32))
    shade = np.asarray(light.resize((size, size), Image.Resampling.BICUBIC))
    grain = rng.normal(0, 4, (size // 2, size // 2)).repeat(2, 0).repeat(2, 1)
    lit = np.asarray(image, np.float32) + (shade + grain)[:, :, None]
    return Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8))
