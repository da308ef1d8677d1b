"""Where annotated objects are in an image: the boxes of the embedded world and of COCO folders."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from . import coco
from .examples import WORLD, Example, drawn


class Box(NamedTuple):
    """An object's place in pixels of the image: left edge, top edge, width, height."""

    category: str
    x: float
    y: float
    width: float
    height: float


def boxes(example: Example, instances: Path | None = None) -> list[Box]:
    """The annotated objects of an example's image, without crowds; empty where nothing is known of it.

    Args:
        instances: COCO's file for an image of a COCO folder.

    >>> from .examples import world_captions
    >>> box = boxes(world_captions("test", 1)[0])[0]
    >>> box.width > 0 and box.height > 0
    True
    """
    if example.image.startswith(WORLD):
        return [Box(thing.category, *map(float, thing.box)) for thing in drawn(example.image).objects]
    return [] if instances is None else _by_image(instances).get(example.image_id, [])


@lru_cache(maxsize=2)
def _by_image(instances: Path) -> Mapping[Any, list[Box]]:
    content = coco.load_json(instances)
    names = {category["id"]: category["name"] for category in content["categories"]}
    out: dict[Any, list[Box]] = {}
    for annotation in content["annotations"]:
        if "bbox" in annotation and not annotation.get("iscrowd"):
            box = Box(names[annotation["category_id"]], *map(float, annotation["bbox"]))
            out.setdefault(annotation["image_id"], []).append(box)
    return out
