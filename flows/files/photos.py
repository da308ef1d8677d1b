"""The 54 CC BY photos of `datasets.coco_photos`, fetched from COCO's server into a COCO folder, with their credits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from ...datasets.coco_photos import photos as coco_photos
from . import atomic
from .coco import HOST, LARGEST_IMAGE
from .downloads import DownloadFailed, Expected, download


def fetch(
    out: Path | None = None, host: str = HOST, advance: Callable[[int], None] = lambda count: None
) -> tuple[Path, int, int]:
    """Write photos/, instances_photos.json and CREDITS.md. Photos that are there stay.

    COCO publishes no SHA-256 of its images. A photo must have the annotated size in pixels, the MD5 that the server
    names, and the greys that the shipped list has of it (8 × 8), so that neither another photo nor a cut one passes.

    Args:
        out: the folder; None is where `veridical.datasets.photos()` looks. advance: called with 1 for every photo.

    Returns:
        The folder, how many were fetched, and how many were there.

    Raises:
        DownloadFailed: a photo that could not be fetched, or is not the listed one; the same command goes on.
    """
    folder = coco_photos.default_folder() if out is None else out
    images, fetched = folder / coco_photos.SPLIT, 0
    images.mkdir(parents=True, exist_ok=True)
    for one in coco_photos.index()["images"]:
        path = images / one["file_name"]
        if not path.is_file() or wrong(path, one):
            fresh = path.with_name(path.name + ".new")
            url = f"{host}/{one['split']}/{one['file_name']}"
            download(url, fresh, Expected(limit=LARGEST_IMAGE))
            if fault := wrong(fresh, one):
                fresh.unlink()
                raise DownloadFailed(f"{url} is not the listed photo: {fault}")
            fresh.replace(path)
            fetched += 1
        advance(1)
    atomic.write_text(folder / f"instances_{coco_photos.SPLIT}.json", json.dumps(coco_photos.instances()))
    atomic.write_text(folder / "CREDITS.md", credits())
    return folder, fetched, len(coco_photos.index()["images"]) - fetched


def wrong(path: Path, known: dict) -> str:
    """In what a file differs from the listed photo; "" if in nothing."""
    try:
        with Image.open(path) as image:
            size, alike = image.size, coco_photos.is_photo(image, known)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return f"it cannot be read ({error})"
    if size != (known["width"], known["height"]):
        return f"it has {size[0]}×{size[1]} pixels, not {known['width']}×{known['height']}"
    return "" if alike else "it shows something else"


def credits() -> str:
    """The page that CC BY asks for: every photo with its credit and licence."""
    lines = [
        f"- {one['file_name']}: {coco_photos.page(one['flickr_url'])}" for one in coco_photos.index()["images"]
    ]
    return (
        f"# Photos\n\nEach under {coco_photos.LICENCE}, by the photographer on Flickr whom its page names; unchanged "
        "from COCO 2017. Boxes: COCO Consortium, CC BY 4.0.\n\n" + "\n".join(lines) + "\n"
    )
