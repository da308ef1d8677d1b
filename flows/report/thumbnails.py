"""Small copies of images as data, all of them together within a number of bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from typing import Any

from PIL import Image, ImageOps

SIDE, SMALLEST, QUALITY = 384, 64, 80
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")  # none that starts another program
BYTES = 14_000_000  # of all images of a report as text, so that 1,000 examples stay below 30 MB

Opener = Callable[[], Image.Image]


def thumbnails(images: Mapping[str, Opener], most: int = BYTES) -> dict[str, dict[str, Any]]:
    """Name -> uri, a JPEG as a data URI, and width and height of the image itself.

    Images are at most 384 pixels wide or high, and smaller where they would not fit. One that cannot be opened has an
    empty uri and no size.
    """
    side = float(SIDE)
    while True:
        found = {name: thumbnail(opener, int(side)) for name, opener in images.items()}
        total = sum(len(one["uri"]) for one in found.values())
        if total <= most or side <= SMALLEST:
            return found
        side = max(SMALLEST, min(0.9, (most / total) ** 0.5 * 0.95) * min(side, SIDE))


def opened(path: str) -> Image.Image:
    """The image of a file, if it is of a format that is read by Pillow itself."""
    Image.init()
    return Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN])


def thumbnail(opener: Opener, side: int) -> dict[str, Any]:
    try:
        with opener() as image:
            width, height = image.size
            image.draft("RGB", (2 * side, 2 * side))  # of a large JPEG no more than is needed is decoded
            small = ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return {"uri": "", "width": 0, "height": 0}
    small.thumbnail((side, side))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=QUALITY)
    uri = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
    return {"uri": uri, "width": width, "height": height}
