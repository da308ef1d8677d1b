"""Images and what is in them, which questions are built from: the same for the embedded world and for COCO folders."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path

import numpy as np

from . import coco
from .captions import QUESTION, _article, absent_companions
from .categories import CATEGORIES
from .examples import WORLD
from .places import PLACES
from .world import SPLITS, Scene, scene

EXPECTED = 5  # absent objects that one would expect, at most


@dataclass(frozen=True)
class Seen:
    """One image.

    Args:
        name: of the image. image, image_id: as in `Example`.
        counts: category -> how many, the largest or first annotated first.
        expected: absent categories that one would expect beside these, the likeliest first.
        rng: for what is asked about this image, the same whatever else is asked.
    """

    name: str
    image: str
    image_id: str | int
    counts: Mapping[str, int]
    expected: Sequence[str]
    rng: np.random.Generator

    @property
    def objects(self) -> frozenset[str]:
        return frozenset(self.counts)


def is_there(name: str) -> str:
    """The question whether there is one.

    >>> is_there("apple")
    'Is there an apple in the image?'
    """
    return QUESTION.format(_article(name))


def plural(name: str) -> str:
    """
    >>> plural("knife"), plural("bench"), plural("oven")
    ('knives', 'benches', 'ovens')
    """
    if name in CATEGORIES:
        return CATEGORIES[name].plural
    return name + ("es" if name.endswith(("s", "x", "ch", "sh")) else "s")


def from_world(split: str = "test", seed: int = 0, what: int = 0) -> Iterator[Seen]:
    """Every scene of a split, without end. what: number of a benchmark, so that each draws differently from one seed.

    Raises:
        ValueError: an unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f"no split {split!r} in the embedded world; possible: {', '.join(SPLITS)}")
    for index in count():
        view = _scene(split, index)
        yield Seen(
            view.name, f"{WORLD}{split}/{index}", view.name, view.counts, _expected(view),
            np.random.default_rng([SPLITS[split], index, seed, what]),
        )  # fmt: skip


def from_coco(
    folder: str | Path, limit: int | None = None, seed: int = 0, split: str | None = None,
    images: str | Collection[int | str] | None = None, what: int = 0,
) -> Iterator[Seen]:  # fmt: skip
    """The images of a COCO folder that `coco.choose` chooses; those without annotations are passed over.

    A category with a crowd in the image counts as there, and is not counted. Expected is what all annotations have
    most often beside the objects that are there.

    Raises:
        FileNotFoundError, ValueError: as `coco.coco_examples`.
    """
    files = coco.find_coco(folder, split)
    content = coco.load_json(files.instances)
    file_names = {image["id"]: image["file_name"] for image in content["images"]}
    counted, together = _annotated(files.instances)
    for image in coco.choose(content, limit, seed, images):
        counts = counted.get(image)
        if not counts:
            continue
        beside: Counter[str] = Counter()
        for name in counts:
            beside.update({other: n for other, n in together[name].items() if other not in counts})
        expected = [name for name, _ in sorted(beside.items(), key=lambda pair: (-pair[1], pair[0]))[:EXPECTED]]
        name = file_names[image]
        rng = np.random.default_rng([image, seed, what])
        yield Seen(name, files.image(name), image, counts, expected, rng)


def _expected(view: Scene) -> list[str]:
    """Absent companions first, then what is most typical of the place."""
    present = view.categories
    companions = absent_companions(present)
    habit = sorted(companions, key=lambda name: -companions[name])
    typical = [name for name in PLACES[view.place].pool if name not in present and name not in companions]
    return [*habit, *typical][:EXPECTED]


@lru_cache(maxsize=2048)
def _scene(split: str, index: int) -> Scene:
    return scene(split, index)


@lru_cache(maxsize=4)
def _annotated(instances: Path) -> tuple[dict[int, dict[str, int]], dict[str, Counter[str]]]:
    """(image -> category -> how many, 0 for a crowd; category -> category -> images that have both)."""
    content = coco.load_json(instances)
    names = {category["id"]: category["name"] for category in content["categories"]}
    counts: dict[int, dict[str, int]] = {}
    crowds: set[tuple[int, str]] = set()
    for annotation in content["annotations"]:
        name, of = names[annotation["category_id"]], counts.setdefault(annotation["image_id"], {})
        of[name] = of.get(name, 0) + 1
        if annotation.get("iscrowd"):
            crowds.add((annotation["image_id"], name))
    for image, name in crowds:
        counts[image][name] = 0
    together: dict[str, Counter[str]] = {}
    for of in counts.values():
        for name in of:
            together.setdefault(name, Counter()).update(other for other in of if other != name)
    return counts, together
