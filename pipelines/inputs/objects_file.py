"""Files that say which objects are in which image: a line of JSON each, and an image is known by its pixels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from .images import BadImage, passed_on, read_image
from .rows import Rows

MAX_BYTES = 1_000_000_000


def fingerprint(image: Image.Image) -> str:
    """32 hex digits of an RGB image's size and pixels: what an image is known by, whatever its file is called."""
    return hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()[:32]


def objects_of(path: str | Path, inputs: Mapping[str, Tensor]) -> list[tuple[str, ...]]:
    """The objects of every row's images by such a file, each named once.

    Raises:
        ValueError: a file that cannot be read, rows that were prepared elsewhere, or an image that the file lacks.
    """
    images = inputs.images if isinstance(inputs, Rows) else None
    if images is None:
        raise ValueError(
            f"{path} names the objects of images, and these inputs do not say which images they are of: use caption, "
            "answer or LVLM.prepare, or give the names of each sample"
        )
    known = read_objects(path)
    return [tuple(dict.fromkeys(name for image in row for name in _found(path, known, image))) for row in images]


def _found(path: str | Path, known: Mapping[str, tuple[str, ...]], image: Any) -> tuple[str, ...]:
    shown = passed_on(image)
    key = fingerprint(shown)
    if key not in known:
        raise ValueError(
            f"{path} has no line for an image of {shown.width}×{shown.height} pixels, only for {len(known)} others; "
            "add one, with an empty list where nothing was found (veridical objects writes such files)"
        )
    return known[key]


def read_objects(path: str | Path) -> Mapping[str, tuple[str, ...]]:
    """fingerprint -> names. A line without "pixels" has its image read, from the file's folder on.

    Raises:
        ValueError: no such file, or a line that is not such a line, with its number.
    """
    place = Path(path).expanduser()
    if not place.is_file():
        raise ValueError(f"no file {path} with the objects of images; veridical objects writes one")
    state = place.stat()
    if state.st_size > MAX_BYTES:
        raise ValueError(f"{path} has {state.st_size:,} bytes; at most {MAX_BYTES:,} are read")
    return _read(place.resolve(), state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=4)
def _read(path: Path, changed: int, size: int) -> Mapping[str, tuple[str, ...]]:
    out: dict[str, tuple[str, ...]] = {}
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                key, names = _line(path, number, line)
                out[key] = names
    return out


def _line(path: Path, number: int, line: str) -> tuple[str, tuple[str, ...]]:
    wanted = '{"image": "dog.jpg", "objects": ["dog", "grass"]}'
    try:
        row = json.loads(line)
        image, names, key = row["image"], row["objects"], row.get("pixels")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}, line {number}: {line.strip()[:60]!r} is not a line such as {wanted}") from error
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError(f"{path}, line {number}: objects={names!r:.60} is no list of names, as in {wanted}")
    if key is None:
        try:
            key = fingerprint(read_image(path.parent / str(image)))
        except BadImage as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    return str(key), tuple(names)


def objects_line(name: str, image: Image.Image, objects: Sequence[str]) -> str:
    """A line of such a file."""
    return json.dumps({"image": name, "objects": list(objects), "pixels": fingerprint(image)}, ensure_ascii=False)
