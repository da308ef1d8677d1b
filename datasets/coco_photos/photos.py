"""54 photos of COCO that are all under CC BY 2.0: their ids, credits and boxes are here, the photos are fetched.

Photos: each by the photographer on Flickr whom its address names, CC BY 2.0 (licence 4 of COCO 2017). Boxes and
categories: COCO 2017 by the COCO Consortium, CC BY 4.0. Lin et al., ECCV 2014, arXiv 1405.0312.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .. import coco
from ..boxes import Box, boxes
from ..examples import Example

INDEX = Path(__file__).with_name("index.json")
LICENCE = "CC BY 2.0, http://creativecommons.org/licenses/by/2.0/"
SPLIT = "photos"
GRID = 8  # rows and columns of the grey fingerprint
ALIKE = 6.0  # mean difference of greys: resizing and JPEG make up to 0.5 here, two of these photos 23 and more


@dataclass(frozen=True)
class Photo:
    """A photo on disk with what is in it.

    id: COCO's. boxes: annotated objects, crowds left out, in pixels of this file. credit: the photo's page on Flickr,
    which names the photographer. licence: its name and address.
    """

    id: int
    path: Path
    boxes: tuple[Box, ...]
    credit: str
    licence: str = LICENCE

    @property
    def objects(self) -> frozenset[str]:
        """The annotated categories."""
        return frozenset(box.category for box in self.boxes)

    def open(self) -> Image.Image:
        return Image.open(self.path)


def photos(folder: str | Path | None = None) -> list[Photo]:
    """The photos in a folder, in the order of their ids.

    Args:
        folder: a COCO folder of them, as `veridical data photos` writes it; None is where that command writes.

    Raises:
        FileNotFoundError: nothing there; says how to fetch them.
    """
    place = Path(folder) if folder is not None else default_folder()
    try:
        files = coco.find_coco(place)
    except FileNotFoundError as missing:
        raise FileNotFoundError(
            f"no photos in {place}: `veridical data photos` fetches 54 photos of COCO under CC BY 2.0 (about 9 MB)."
        ) from missing
    credits, found = {one["id"]: one for one in index()["images"]}, []
    for image in sorted(coco.load_json(files.instances)["images"], key=lambda image: image["id"]):
        path, known = files.images / image["file_name"], credits.get(image["id"])
        if known is None or not path.is_file():
            continue
        example = Example(image["file_name"], str(path), image["id"], None, None, frozenset())
        found.append(Photo(image["id"], path, tuple(boxes(example, files.instances)), page(known["flickr_url"])))
    return found


def default_folder() -> Path:
    """Where `veridical data photos` writes: below VERIDICAL_CACHE, or the platform's folder for caches."""
    import platformdirs

    named = os.environ.get("VERIDICAL_CACHE")
    cache = named or platformdirs.user_cache_dir("veridical", appauthor=False)
    return Path(cache).expanduser() / SPLIT


@cache
def index() -> Mapping[str, Any]:
    """The shipped list: images (id, split of COCO, size there, address on Flickr, grey fingerprint) and boxes."""
    return json.loads(INDEX.read_text(encoding="utf-8"))


def page(flickr_url: str) -> str:
    """The page of a photo on Flickr from the address of its file.

    >>> page("http://farm3.staticflickr.com/2318/2068039201_b967c69504_z.jpg")
    'https://www.flickr.com/photo.gne?id=2068039201'
    """
    return f"https://www.flickr.com/photo.gne?id={flickr_url.rsplit('/', 1)[1].split('_')[0]}"


def instances() -> dict[str, Any]:
    """The shipped list as a COCO instances file of the photos in their size there."""
    images = [
        {key: one[key] for key in ("id", "file_name", "width", "height", "flickr_url")} | {"license": 4}
        for one in index()["images"]
    ]
    annotations = [
        {
            "id": number, "image_id": image, "category_id": category, "bbox": box, "area": round(box[2] * box[3], 1),
            "iscrowd": crowd,
        }
        for number, (image, category, box, crowd) in enumerate(index()["boxes"], start=1)
    ]  # fmt: skip
    licences = [{"id": 4, "name": "Attribution License", "url": LICENCE.split(", ")[1]}]
    return {
        "info": {"description": "54 photos of COCO 2017 under CC BY 2.0; annotations CC BY 4.0, COCO Consortium"},
        "licenses": licences, "images": images, "annotations": annotations, "categories": index()["categories"],
    }  # fmt: skip


def fingerprint(image: Image.Image) -> list[int]:
    """8 × 8 greys, 0 to 255, that survive resizing and JPEG."""
    return np.asarray(image.convert("L").resize((GRID, GRID), Image.Resampling.BOX), int).flatten().tolist()


def is_photo(image: Image.Image, known: Mapping[str, Any]) -> bool:
    """Whether an image is the listed photo, whatever its size and quality."""
    greys = [int(known["greys"][place : place + 2], 16) for place in range(0, 2 * GRID * GRID, 2)]
    return float(np.abs(np.subtract(fingerprint(image), greys)).mean()) < ALIKE
