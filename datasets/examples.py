"""Examples: one thing to ask about one image, and what is true of it. The same type for the embedded world and COCO."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import count, islice
from pathlib import Path
from typing import Any

from PIL import Image

from .limits.scenes import Setting, controlled
from .pope import questions
from .world import Scene, scene

WORLD = "world:"
POPE_SAMPLE = 500  # POPE's own number of images; which objects count as frequent is counted over as many


@dataclass(frozen=True)
class Example:
    """One question, or a request for a caption, about one image.

    Args:
        id: unique in its benchmark.
        image: path of a file, or "world:test/17" for a scene that is drawn when it is opened; "world:test/17/size=24"
            is a controlled one (`datasets.limits`).
        image_id: whose truth it is; several questions may share it.
        question: None where the benchmark has one prompt for all images.
        label: "yes" or "no"; None for captions.
        objects: the categories that are in the image.
        splits: parts of a benchmark in which this question is asked, such as POPE's three.
        after: id of the example whose question and answer come before this one in the same conversation.
        words: how many words of that answer are kept; None is all.
        facts: what else its benchmark knows of it, such as the number that is right; plain values.

    >>> world_captions("test", 1)[0].open().size
    (192, 192)
    """

    id: str
    image: str
    image_id: str | int
    question: str | None
    label: str | None
    objects: frozenset[str]
    splits: Sequence[str] = ()
    after: str = ""
    words: int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def path(self) -> Path | None:
        """Where the file is; None for a scene."""
        return None if self.image.startswith(WORLD) else Path(self.image)

    def open(self) -> Image.Image:
        """The image.

        Raises:
            OSError: a file that is missing or no image.
        """
        if self.path is not None:
            return Image.open(self.path)
        return drawn(self.image).image


def drawn(address: str) -> Scene:
    """The scene of an address: "world:test/17", or a controlled one, "world:test/17/size=24".

    Raises:
        ValueError: no such split, index or setting.
    """
    split, index, *setting = address.removeprefix(WORLD).split("/")
    return controlled(split, int(index), Setting.read(setting[0])) if setting else _scene(split, int(index))


def world_captions(split: str = "test", limit: int = POPE_SAMPLE) -> list[Example]:
    """A caption each for the first `limit` scenes of a split.

    Raises:
        ValueError: an unknown split, or a limit below 1.
    """
    _check_limit(limit)
    return [
        Example(s.name, f"{WORLD}{split}/{s.index}", s.name, None, None, frozenset(s.categories))
        for s in (scene(split, index) for index in range(limit))
    ]


def world_pope(
    split: str = "test", limit: int = POPE_SAMPLE, strategy: str = "popular", seed: int = 0, per_image: int = 3
) -> list[Example]:
    """POPE's questions about the first `limit` scenes with at least per_image categories, 2·per_image for each.

    How frequent an object is, is counted over the first 500 such scenes (or `limit`, if that is more), so that what is
    asked about a scene does not depend on a smaller limit.

    Raises:
        ValueError: an unknown split or strategy, or a limit below 1.
    """
    _check_limit(limit)
    sample = _scenes_with(split, max(limit, POPE_SAMPLE), per_image)
    rows = questions({name: categories for name, _, categories in sample}, strategy, per_image, seed)
    indices = {name: index for name, index, _ in sample[:limit]}
    truth = {name: frozenset(categories) for name, _, categories in sample}
    return [
        pope_example(q, f"{WORLD}{split}/{indices[q['image']]}", q["image"], truth[q["image"]], strategy)
        for q in rows
        if q["image"] in indices
    ]


def pope_example(row: dict, image: str, image_id: str | int, objects: frozenset[str], strategy: str) -> Example:
    """One of POPE's questions as an example; its id names image and question, and so is the same in every split."""
    text = row["text"]
    return Example(f"{row['image']}: {text}", image, image_id, text, row["label"], objects, (strategy,))


def merged(parts: Iterable[Iterable[Example]]) -> list[Example]:
    """The examples of several splits with each question once, image by image; `splits` says where it is asked."""
    found: dict[str, Example] = {}
    for part in parts:
        for example in part:
            known = found.get(example.id)
            found[example.id] = replace(known, splits=(*known.splits, *example.splits)) if known else example
    order = {image: place for place, image in enumerate(dict.fromkeys(e.image for e in found.values()))}
    return sorted(found.values(), key=lambda example: order[example.image])


def _check_limit(limit: int) -> None:
    if limit < 1:
        raise ValueError(f"limit={limit} is below 1 (number of images).")


@lru_cache(maxsize=64)
def _scene(split: str, index: int) -> Scene:
    return scene(split, index)


@lru_cache(maxsize=8)
def _scenes_with(split: str, number: int, categories: int) -> list[tuple[str, int, Sequence[str]]]:
    """(name, index, categories) of the first scenes that have enough categories."""
    scenes = (scene(split, index) for index in count())
    return list(islice(((s.name, s.index, s.categories) for s in scenes if len(s.categories) >= categories), number))
