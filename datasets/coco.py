"""COCO folders: writes the embedded world as one, and reads any into examples.

Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014, arXiv 1405.0312.
"""

import json
import random
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from . import image_paths, pope
from .categories import CATEGORIES
from .examples import POPE_SAMPLE, Example, pope_example
from .world import SIZE, SPLITS, Scene, Thing, scene

_BLOCK = 10_000_000  # ids of a split start at its place times this, so that ids differ between splits too
FIRST = re.compile(r"first-([1-9]\d*)-sorted")  # the image list that many papers use: the smallest ids
Named = Callable[[Collection[int]], Mapping[int, Collection[str]]]
_WITH_FILES = "needed: instances_<split>.json in it or in its annotations/, and a folder <split>/ of images"


# -- writing -------------------------------------------------------------------------------------------------------
def write_coco(
    split: str, count: int, folder: str | Path, watch: Callable[[Iterable[int]], Iterable[int]] = iter
) -> Path:
    """Write the first `count` scenes of a split of the embedded world as COCO does; returns the folder.

    instances_<split>.json with boxes, areas and masks (compressed RLE), captions_<split>.json with two captions each,
    and the images as PNG in <split>/. Image ids are 10,000,000 times 1 (train), 2 (validation) or 3 (test) plus the
    scene's index; an annotation's id is ten times its image's plus 1, 2, … The files are the same on every machine.

    Args:
        watch: wraps the loop over the scenes, for a progress bar.

    Raises:
        ValueError: an unknown split, or a count below 1 or too large for the ids.
    """
    if not 1 <= count < _BLOCK:
        raise ValueError(f"count={count} is outside 1 to {_BLOCK - 1} (number of scenes).")
    if split not in SPLITS:
        raise ValueError(f"no split {split!r} in the embedded world; possible: {', '.join(SPLITS)}")
    folder = Path(folder)
    (folder / split).mkdir(parents=True, exist_ok=True)
    images: list[dict] = []
    annotations: list[dict] = []
    captions: list[dict] = []
    for index in watch(range(count)):
        view = scene(split, index)
        view.image.save(folder / split / view.name)
        image = image_id(view)
        images.append({"id": image, "file_name": view.name, "width": SIZE, "height": SIZE, "place": view.place})
        annotations += [_annotation(thing, image, k) for k, thing in enumerate(view.objects, 1)]
        captions += [{"id": image * 10 + k, "image_id": image, "caption": c} for k, c in enumerate(view.captions, 1)]
    about = {
        "info": {"description": f"veridical's embedded world, {split}: scenes 0 to {count - 1}", "version": "1"},
        "licenses": [],
        "images": images,
    }
    categories = [{"id": c.id, "name": c.name, "supercategory": c.supercategory} for c in CATEGORIES.values()]
    for kind, content in (
        ("instances", {**about, "categories": categories, "annotations": annotations}),
        ("captions", {**about, "annotations": captions}),
    ):
        (folder / f"{kind}_{split}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def image_id(view: Scene) -> int:
    """The number of a scene in COCO's files, another one for every scene of every split."""
    return (list(SPLITS).index(view.split) + 1) * _BLOCK + view.index


def _annotation(thing: Thing, image: int, number: int) -> dict[str, Any]:
    from pycocotools import mask

    shape = mask.encode(np.asfortranarray(thing.mask.astype(np.uint8)))
    return {
        "id": image * 10 + number,
        "image_id": image,
        "category_id": CATEGORIES[thing.category].id,
        "bbox": [float(side) for side in thing.box],
        "area": float(thing.area),
        "iscrowd": 0,
        "segmentation": {"size": list(shape["size"]), "counts": shape["counts"].decode("ascii")},
    }


# -- reading -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class CocoFiles:
    """Where the parts of one split lie. captions: None where there is no such file."""

    split: str
    instances: Path
    captions: Path | None
    images: Path

    def image(self, name: str) -> str:
        """The file of an image; raises as `image_paths.inside`."""
        return str(image_paths.inside(self.images, name))


def find_coco(folder: str | Path, split: str | None = None) -> CocoFiles:
    """The files of a split in a COCO folder: as downloaded (annotations/instances_val2014.json, val2014/) or as
    `write_coco` lays them out.

    Args:
        split: such as "val2014"; None takes the only one, or the only one whose name begins with "val" or "test".

    Raises:
        FileNotFoundError: no folder, no instances file, or no image folder; names the places that were searched.
        ValueError: several splits to choose from.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; {_WITH_FILES}.")
    found = {
        path.stem.removeprefix("instances_"): path
        for where in (folder, folder / "annotations")
        for path in sorted(where.glob("instances_*.json"))
    }
    if split is None:
        held_out = [name for name in found if name.startswith(("val", "test"))]
        names = list(found) if len(found) == 1 or not held_out else held_out
        if len(names) > 1:
            raise ValueError(f"{folder} has several splits: {', '.join(found)}; say which one, as split={names[0]!r}.")
        split = names[0] if names else None
    if split not in found:
        raise FileNotFoundError(
            f"no instances file{f' of split {split!r}' if split else ''} in {folder}; found "
            f"{', '.join(sorted(path.name for path in folder.iterdir())[:8]) or 'nothing'}; {_WITH_FILES}."
        )
    parts = (split, f"images/{split}")
    images = next((image_paths.linked(folder, part) for part in parts if (folder / part).is_dir()), None)
    if images is None:
        raise FileNotFoundError(f"no images for {found[split]}: looked for a folder {folder / split}.")
    captions = found[split].with_name(f"captions_{split}.json")
    return CocoFiles(split, found[split], captions if captions.is_file() else None, images)


def choose(
    content: Mapping[str, Any], limit: int | None = None, seed: int = 0,
    images: str | Collection[int | str] | None = None,
) -> list[int]:  # fmt: skip
    """Ids of the images that questions are about.

    Args:
        content: an instances file.
        limit: how many at most; None for all.
        seed: without a list of images, `limit` are drawn at random with it, in the order of their ids.
        images: a list instead: "first-500-sorted", the 500 smallest ids; or ids or file names, in the order given, of
            which `limit` keeps the first ones.

    Raises:
        ValueError: a limit below 1, an unknown list, or images that the file lacks.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit} is below 1 (number of images).")
    ids = [image["id"] for image in content["images"]]
    if images is None:
        return ids if limit is None else sorted(random.Random(seed).sample(sorted(ids), min(limit, len(ids))))
    if isinstance(images, str):
        named = FIRST.fullmatch(images)
        if named is None:
            raise ValueError(f"no image list {images!r}; possible: first-500-sorted, or another number, or a file.")
        if int(named[1]) > len(ids):
            raise ValueError(f"{images}: the annotations have only {len(ids)} images.")
        return sorted(ids)[: int(named[1])][:limit]
    by_name: dict[int | str, int] = {image["file_name"]: image["id"] for image in content["images"]}
    by_name |= {number: number for number in ids}
    unknown = [image for image in images if image not in by_name]
    if unknown:
        raise ValueError(
            f"{len(unknown)} of {len(images)} images of the list are not in the annotations, such as {unknown[0]!r}; "
            f"those have ids like {next(iter(ids), None)!r}."
        )
    return list(dict.fromkeys(by_name[image] for image in images))[:limit]


def coco_examples(
    folder: str | Path, limit: int | None = None, seed: int = 0, split: str | None = None,
    images: str | Collection[int | str] | None = None,
) -> list[Example]:  # fmt: skip
    """A caption each for images of a COCO folder; `objects` are the annotated categories.

    Args:
        limit, seed, images: as `choose`.

    Raises:
        FileNotFoundError, ValueError: as `find_coco` and `choose`; a file that is no COCO JSON.
    """
    files = find_coco(folder, split)
    content = load_json(files.instances)
    names = {image["id"]: image["file_name"] for image in content["images"]}
    objects = _objects(content)
    return [
        Example(names[image], files.image(names[image]), image, None, None, frozenset(objects.get(image, ())))
        for image in choose(content, limit, seed, images)
    ]


def coco_pope(
    folder: str | Path, limit: int | None = None, strategy: str = "popular", seed: int = 0, split: str | None = None,
    per_image: int = 3, images: str | Collection[int | str] | None = None, named: Named | None = None,
) -> list[Example]:  # fmt: skip
    """POPE's questions about images of a COCO folder, 2·per_image for each of `limit` images.

    As POPE does, 500 images (or `limit`, if that is more; or all there are) are drawn at random with `seed`, or are
    those of a list, and how frequent an object is, is counted over them; `limit` keeps the first ones drawn, or listed.

    Args:
        images: a list, as `choose`; those with fewer than per_image objects are left out.
        named: image ids -> objects that are there without an annotation, such as those that reference captions name.
            POPE's own labels count them. It is called with the images of the sample alone.

    Raises:
        FileNotFoundError, ValueError: as `coco_examples`, and as `pope.build`.
    """
    files = find_coco(folder, split)
    content = load_json(files.instances)
    objects = _objects(content)
    ids = {image["file_name"]: image["id"] for image in content["images"]}
    if images is not None:
        drawn = choose(content, None, seed, images)
    else:
        enough = sorted(image for image in ids.values() if len(objects.get(image, ())) >= per_image)
        drawn = random.Random(seed).sample(enough, min(len(enough), max(limit or len(enough), POPE_SAMPLE)))
    truth = named(drawn) if named else {}
    rows = pope.build(content, strategy, per_image, drawn if images is not None else sorted(drawn) or 0, seed, truth)
    questioned = {ids[q["image"]] for q in rows}
    kept = set([image for image in drawn if image in questioned][:limit])
    return [
        pope_example(
            q, files.image(q["image"]), image, frozenset({*objects.get(image, ()), *truth.get(image, ())}),
            strategy,
        )
        for q, image in [(q, ids[q["image"]]) for q in rows]
        if image in kept
    ]  # fmt: skip


def _objects(content: Mapping[str, Any]) -> dict[int, set[str]]:
    names = {category["id"]: category["name"] for category in content["categories"]}
    out: dict[int, set[str]] = {}
    for annotation in content["annotations"]:
        out.setdefault(annotation["image_id"], set()).add(names[annotation["category_id"]])
    return out


@lru_cache(maxsize=4)
def load_json(path: Path) -> Mapping[str, Any]:
    """A COCO file, read once.

    Raises:
        ValueError: no JSON (with the line), or not in COCO's format.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: line {error.lineno} is not JSON ({error.msg}).") from error
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply to be in COCO's format.") from error
    missing = [k for k in ("images", "annotations") if not isinstance(content, Mapping) or k not in content]
    if missing:
        raise ValueError(f"{path} is not in COCO's format: it has no {' and no '.join(missing)}.")
    return content
