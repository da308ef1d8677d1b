"""CHAIR's ground truth from whatever is at hand: a COCO folder, single annotation files, or ready-made sets."""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .captions_file import image_id
from .chair import Chair
from .chair_truth import Truth, ground_truth, sets_in
from .chair_words import category_of

FILE = re.compile(r"(instances|captions)_(.+)\.json")
LAYOUTS = (
    "a folder with instances_<split>.json and captions_<split>.json (or with annotations/), such files, or a JSON file "
    "of ready-made sets"
)


def read_truth(paths: Sequence[str | Path], chair: Chair, images: Collection[int | str]) -> Truth:
    """Image id -> set of categories, of those of the images that the files know.

    Of a COCO folder the splits are read one after another, val first, until all images are found; a folder that has
    2014's files is read from these alone, as CHAIR does. Whether a single file holds instances, captions or
    ready-made sets is found out from its content.

    Args:
        paths: a folder, a file, or several of both; what they know is joined.
        chair: its vocabulary and its word family read names and reference captions, and choose the ready-made sets.
        images: ids that are wanted. Reading the captions of all of COCO would take many minutes.

    Raises:
        FileNotFoundError: no such file, or no annotations in a folder.
        ValueError: no JSON (with the line), another layout, or categories that the vocabulary lacks.
    """
    wanted, truth = frozenset(images), Truth()
    for path in map(Path, paths):
        for part in _parts(path, chair, wanted, truth):
            for image, names in part.items():
                truth.setdefault(image, set()).update(names)
    return truth


def ids_by_name(paths: Sequence[str | Path]) -> dict[str, int]:
    """File name without folders -> image id, from the lists of images in annotation files."""
    found: dict[str, int] = {}
    for path in map(Path, paths):
        files = [files[0] for files in _splits(path)] if path.is_dir() else [path]
        for content in map(_load, files):
            images = content.get("images") if isinstance(content, Mapping) else None
            for row in images if isinstance(images, list) else ():
                if isinstance(row, Mapping) and isinstance(row.get("file_name"), str):
                    found[row["file_name"].rsplit("/", 1)[-1]] = row["id"]
    return found


def _parts(path: Path, chair: Chair, wanted: frozenset, truth: Truth) -> Iterator[Truth]:
    if path.is_file():
        yield _of_files([path], chair, wanted)
        return
    if not path.is_dir():
        raise FileNotFoundError(f"no ground truth at {path}; needed: {LAYOUTS}.")
    for files in _splits(path):
        if wanted - truth.keys():
            yield _of_files(files, chair, wanted)


def _splits(folder: Path) -> list[list[Path]]:
    """The annotation files of each split, val first."""
    found: dict[str, list[Path]] = {}
    for path in sorted([*folder.glob("*.json"), *folder.glob("annotations/*.json")]):
        name = FILE.fullmatch(path.name)
        if name and "unlabeled" not in name[2]:
            found.setdefault(name[2], []).append(path)
    if not found:
        raise FileNotFoundError(f"no annotations in {folder}; needed: {LAYOUTS}.")
    chosen = [split for split in found if split.endswith("2014")] or list(found)
    return [found[split] for split in sorted(chosen, key=lambda split: (not split.startswith("val"), split))]


def _of_files(files: Sequence[Path], chair: Chair, wanted: frozenset) -> Truth:
    instances: list[Mapping[str, Any]] = []
    captions: list[Mapping[str, Any]] = []
    for path in files:
        content = _load(path)
        if not isinstance(content, Mapping):
            raise ValueError(f"{path} holds a {type(content).__name__}; needed: {LAYOUTS}.")
        if "annotations" not in content:
            _check_names(path, content, chair)
            sets = sets_in(content, str(path), "wordnet" if chair.family == "exact" else chair.family)
            by_id = ((image_id(image), names) for image, names in sets.items())
            return {image: names for image, names in by_id if image in wanted}
        if "categories" in content:
            for category in content["categories"]:
                category_of(category["name"], chair.terms, str(path))
            instances.append(content)
        else:
            captions.append(content)
    known = {row["id"] for part in (*instances, *captions) for row in part.get("images", ())}
    known.update(row["image_id"] for part in (*instances, *captions) for row in part["annotations"])
    return ground_truth(instances or None, captions or None, chair, wanted & known) if wanted & known else {}


def _check_names(path: Path, content: Mapping[str, Any], chair: Chair) -> None:
    """Sets in the names of another vocabulary would make every mention a hallucination."""
    if "categories" in content:
        names = content["categories"]
    else:
        names = sorted({name for found in content.values() if isinstance(found, list) for name in found}, key=str)
    for name in names:
        category_of(str(name), dict(zip(chair.categories, chair.categories, strict=True)), str(path))


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: line {error.lineno} is not JSON ({error.msg}).") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text (byte {error.start}); needed: {LAYOUTS}.") from error
