"""AMBER's folder as examples, and AMBER's questions about the embedded world.

Wang et al., 2023, arXiv 2311.07397. Scored by `metrics.amber`.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from .captions import NUMBERS
from .examples import Example
from .image_paths import inside
from .seen import Seen, is_there, plural

PROMPT = "Describe this image."
IMAGES = ("", "image", "images", "AMBER")  # where the images may lie, in the folder or beside it
_ABSENT = 3  # absent objects of each scene
_BLOCK = 10  # ids of questions about one scene


def find_images(folder: Path, name: str) -> Path:
    """The folder that holds AMBER's images.

    Raises:
        FileNotFoundError: the image `name` is in none of the places; says which were looked at.
    """
    places = [base / part for base in (folder, folder.parent) for part in IMAGES]
    found = next((place for place in places if (place / name).is_file()), None)
    if found is None:
        raise FileNotFoundError(
            f"no {name} in {', '.join(map(str, dict.fromkeys(places)))}; AMBER's images are a download of their own, "
            "linked from its repository: unpack them into one of these."
        )
    return found


def from_folder(
    folder: Path, items: Mapping[int, Mapping[str, Any]], queries: Mapping[int, Mapping[str, Any]], limit: int,
    dimensions: Mapping[str, Sequence[str]],
) -> list[Example]:  # fmt: skip
    """Descriptions of the first `limit` images, then the questions about them.

    Args:
        items, queries: of `metrics.amber.Amber`. dimensions: type of a question -> what it counts for.
    """
    describing = [number for number, item in items.items() if item["type"] == "generative"][:limit]
    chosen = {queries[number]["image"] for number in describing}
    images = find_images(folder, queries[describing[0]]["image"])
    objects = {queries[number]["image"]: frozenset(items[number]["truth"]) for number in describing}
    found = []
    for number, item in items.items():
        query = queries[number]
        if query["image"] in chosen:
            is_question = item["type"] != "generative"
            found.append(_example(
                number, str(inside(images, query["image"])), query["image"], query["query"],
                item["truth"] if is_question else None, objects[query["image"]],
                dimensions[item["type"]] if is_question else ("descriptions",),
            ))  # fmt: skip
    return found


def of_images(
    images: Iterable[Seen], limit: int, dimensions: Mapping[str, Sequence[str]], vocabulary: Iterable[str]
) -> tuple[dict[str, Any], list[Example]]:
    """AMBER's files for images whose objects are known, as `metrics.amber.Amber` takes them, and what to ask.

    A description of each image, judged against its objects and the absent ones that one would expect; three questions
    about existence (always no, as in AMBER), and two about a number, one right and one off by one. Of states, actions
    and contacts nothing is known.

    Args:
        vocabulary: the categories that a description may name.
    """
    items: dict[int, dict[str, Any]] = {}
    queries: dict[int, dict[str, Any]] = {}
    described: list[Example] = []
    questions: list[Example] = []

    def add(number: int, seen: Seen, kind: str, query: str, truth: Any, expected: Sequence[str] | None = None) -> None:
        hallucinated = {} if expected is None else {"hallu": list(expected)}
        items[number] = {"id": number, "type": kind, "truth": truth, **hallucinated}
        queries[number] = {"id": number, "image": seen.name, "query": query}
        is_question = expected is None
        (questions if is_question else described).append(_example(
            number, seen.image, seen.image_id, query, truth if is_question else None, seen.objects,
            dimensions[kind] if is_question else ("descriptions",),
        ))  # fmt: skip

    for place, seen in enumerate(islice(images, limit), start=1):
        add(place, seen, "generative", PROMPT, sorted(seen.counts), seen.expected)
        number = 1_000_000 + place * _BLOCK
        for offset, name in enumerate(seen.expected[:_ABSENT]):
            add(number + offset, seen, "discriminative-hallucination", is_there(name), "no")
        names = [name for name, there in seen.counts.items() if 0 < there < len(NUMBERS)]
        if not names:
            continue
        name = names[seen.rng.integers(len(names))]
        there = seen.counts[name]
        fewer = there > 1 and (seen.rng.random() < 0.5 or there + 1 == len(NUMBERS))
        other = there - 1 if fewer else there + 1
        for offset, (claim, truth) in enumerate(((there, "yes"), (other, "no")), start=_ABSENT):
            add(number + offset, seen, "discriminative-attribute-number", are_there(name, claim), truth)
    data = {"items": items, "queries": queries, "relations": {name: [] for name in vocabulary}, "safe": frozenset()}
    return data, described + questions


def are_there(name: str, number: int) -> str:
    """
    >>> are_there("dog", 1), are_there("dog", 2)
    ('Is there one dog in the image?', 'Are there two dogs in the image?')
    """
    if number == 1:
        return f"Is there {NUMBERS[1]} {name} in the image?"
    return f"Are there {NUMBERS[number]} {plural(name)} in the image?"


def _example(
    number: int, image: str, image_id: str | int, question: str, label: str | None, objects: frozenset[str],
    splits: Sequence[str],
) -> Example:  # fmt: skip
    return Example(str(number), image, image_id, question, label, objects, tuple(splits), facts={"number": number})
