"""What is in the images, for CHAIR: from COCO annotations and captions, or from ready-made sets."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from .chair_images import example
from .chair_parser import Chair
from .chair_words import category_of

Source = str | Path | Mapping[str, Any]
Truth = dict[int | str, set[str]]


def ground_truth(
    instances: Source | Sequence[Source] | None = None,
    captions: Source | Sequence[Source] | None = None,
    chair: Chair | None = None,
    images: Collection[int | str] | None = None,
) -> Truth:
    """Image id -> set of categories: those annotated, and those that a reference caption mentions.

    truth(image) = {category(a) : a an instance annotation} ∪ {objects that `chair.parse` finds in a reference caption}

    An image without either has the empty set: all that is said about it is hallucinated. CHAIR reads train2014 and
    val2014 together, and both the instances and the captions of each.

    Args:
        instances: COCO-format instances JSON, one path or several (a loaded JSON object is taken too).
        captions: COCO-format captions JSON, likewise. Without it the truth is the annotated categories alone.
        chair: whose vocabulary and word family read the names and captions; None is the embedded world's.
        images: ids to keep; None keeps all. The reference captions of 500 images take seconds, those of all of COCO
            many minutes.

    >>> world = {"images": [{"id": 7}, {"id": 8}], "categories": [{"id": 1, "name": "dog"}],
    ...          "annotations": [{"image_id": 7, "category_id": 1}]}
    >>> ground_truth(world)
    {7: {'dog'}, 8: set()}

    Raises:
        ValueError: neither instances nor captions; a file that is no JSON (with the line) or not in COCO's format; a
            category that the vocabulary lacks; ids in `images` that no file has.
        FileNotFoundError: no such file.
    """
    if instances is None and captions is None:
        raise ValueError("ground_truth needs instances=PATH, captions=PATH or both; found neither.")
    chair = Chair() if chair is None else chair
    truth: Truth = {}
    wanted = None if images is None else frozenset(images)
    for source in _sources(instances):
        content, where = _load(source, ("categories", "annotations"))
        names = {
            category["id"]: category_of(category["name"], chair.terms, where) for category in content["categories"]
        }
        for image, annotation in _of_images(content, wanted, truth):
            if annotation["category_id"] not in names:
                raise ValueError(
                    f"{where}: an annotation of image {image} has category_id {annotation['category_id']}, which is "
                    f"not among the file's {len(names)} categories."
                )
            truth[image].add(names[annotation["category_id"]])
    for source in _sources(captions):
        content, where = _load(source, ("annotations",))
        for image, annotation in _of_images(content, wanted, truth):
            if "caption" not in annotation:
                raise ValueError(f"{where}: an annotation of image {image} has no caption; is it the instances file?")
            truth[image].update(chair.parse(annotation["caption"]).objects)
    if wanted is not None and wanted - truth.keys():
        unknown = sorted(wanted - truth.keys(), key=str)
        raise ValueError(
            f"{len(unknown)} of {len(wanted)} images asked for are in none of the files, such as {unknown[0]!r}; "
            f"the files have {len(truth)} of them. Ids are {example(truth)}: numbers as in COCO, no file names."
        )
    return truth


def ready_made_truth(path: str | Path, family: str = "pattern") -> Truth:
    """Image id -> set of categories from a file of sets, so that COCO's annotations are not needed.

    Two layouts: {"categories": names, "pattern": {id: indices}, "wordnet_changes": {id: {"add": …, "del": …}}}, the
    sets of both families for COCO 2014; or plainly {id: names}, where `family` does not matter.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no JSON (with the line), another layout, or a family other than pattern and wordnet.
    """
    return sets_in(*_load(path, ()), family)


def sets_in(content: Mapping[str, Any], where: str, family: str = "pattern") -> Truth:
    """The sets of a loaded file; `where` is its name.

    Raises:
        ValueError: as `ready_made_truth`.
    """
    if "categories" not in content:
        if not content or not all(isinstance(names, list) for names in content.values()):
            raise ValueError(f"{where}: neither layout of ready-made sets; needed: {{image id: [category, …], …}}.")
        return {_number(image): set(names) for image, names in content.items()}
    if family not in ("pattern", "wordnet"):
        raise ValueError(f"family={family!r}: {where} holds the sets of 'pattern' and of 'wordnet'.")
    names = content["categories"]
    truth: Truth = {_number(image): {names[i] for i in found} for image, found in content["pattern"].items()}
    if family == "wordnet":
        for image, change in content["wordnet_changes"].items():
            found = truth.setdefault(_number(image), set())
            found.difference_update(names[i] for i in change["del"])
            found.update(names[i] for i in change["add"])
    return truth


def _sources(source: Source | Sequence[Source] | None) -> list[Source]:
    if source is None:
        return []
    return [source] if isinstance(source, (str, Path, Mapping)) else list(source)


def _of_images(content: Mapping, wanted: Collection | None, truth: Truth):
    """The annotations of the wanted images; each image of the file gets at least an empty set."""
    for image in content.get("images", ()):
        if wanted is None or image["id"] in wanted:
            truth.setdefault(image["id"], set())
    for annotation in content["annotations"]:
        image = annotation["image_id"]
        if wanted is None or image in wanted:
            truth.setdefault(image, set())
            yield image, annotation


def _load(source: Source, needed: Collection[str]) -> tuple[Mapping, str]:
    if isinstance(source, Mapping):
        content, where = source, "the annotations given"
    else:
        where = str(source)
        if not Path(source).is_file():
            raise FileNotFoundError(f"no file at {where}; needed: a JSON file with COCO's layout.")
        try:
            content = json.loads(Path(source).read_text(encoding="utf-8-sig"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: line {error.lineno} is not JSON ({error.msg}).") from error
    missing = [key for key in needed if not isinstance(content, Mapping) or key not in content]
    if missing or not isinstance(content, Mapping):
        found = sorted(content) if isinstance(content, Mapping) else f"a {type(content).__name__}"
        raise ValueError(
            f"{where} is not in COCO's format: found {found}, needed an object"
            + (f" with {' and '.join(missing)}." if missing else ".")
        )
    return content, where


def _number(image: str) -> int | str:
    return int(image) if image.isdecimal() else image
