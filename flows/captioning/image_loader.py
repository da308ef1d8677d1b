"""Image files read and decoded in threads, ahead of the model."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files.fetch import NotFetched, fetch, is_url
from .images import Picture, plain

if TYPE_CHECKING:
    from PIL import Image

AHEAD = 2  # batches that are being decoded while the model works on one


@dataclass
class Seen:
    """An image that was read but not decoded.

    place: in the plan, from 0. content: of the file, None once it is decoded. size: (height, width). error: why it
    cannot be used.
    """

    place: int
    picture: Picture
    content: bytes | None = None
    sha256: str | None = None
    size: tuple[int, int] = (0, 0)
    error: str | None = None


@dataclass(frozen=True)
class Limits:
    """What is read: files up to `max_bytes` with up to `max_pixels`, and URLs only if they are allowed."""

    max_pixels: int
    max_bytes: int
    allow_urls: bool


def look(picture: Picture, place: int, limits: Limits) -> Seen:
    """Read a file whole, and from its first bytes how large the image is. What goes wrong becomes its `error`."""
    seen = Seen(place, picture)
    from ...pipelines.inputs.images import read_size

    try:
        seen.content = _content(picture.path, limits)
        seen.sha256 = hashlib.sha256(seen.content).hexdigest()
        if not seen.content:
            raise _bad(f"{plain(picture.path)} has 0 bytes; possible: 1 to {limits.max_bytes:,}")
        seen.size = read_size(seen.content, plain(picture.path), limits.max_pixels)
    except Exception as error:
        seen.error, seen.content = _why(picture, error), None
    return seen


def decode(seen: Seen, limits: Limits) -> Image.Image | None:
    """The image; None, and `seen.error`, if it turns out to be no good."""
    from ...pipelines.inputs.images import read_bytes

    try:
        return read_bytes(seen.content or b"", plain(seen.picture.path), limits.max_pixels)
    except Exception as error:
        seen.error = _why(seen.picture, error)
        return None
    finally:
        seen.content = None


def decoded(
    pool: ThreadPoolExecutor, batches: Sequence[Sequence[Seen]], limits: Limits
) -> Iterator[list[tuple[Seen, Any]]]:
    """Batch after batch of images, without those that cannot be decoded; the next ones are decoded meanwhile."""
    waiting: list[list[Future]] = []
    start = partial(decode, limits=limits)
    for number, batch in enumerate(batches):
        for later in batches[number + len(waiting) : number + 1 + AHEAD]:
            waiting.append([pool.submit(start, seen) for seen in later])
        images = [future.result() for future in waiting.pop(0)]
        yield [(seen, image) for seen, image in zip(batch, images, strict=True) if image is not None]


def batches(seen: Sequence[Seen], lvlm: Any, size: int) -> list[list[Seen]]:
    """Usable images in batches of like length, longest first, so that little is padded.

    The length is the number of image tokens if the processor can say it, else the number of pixels; images of one
    length stay in the plan's order. The result depends on nothing else, so that a repeated shard has the same batches.
    """
    good = [one for one in seen if one.error is None]
    length = dict(zip((one.place for one in good), lengths(lvlm.processor, [one.size for one in good]), strict=True))
    good.sort(key=lambda one: (-length[one.place], one.place))
    return [good[start : start + size] for start in range(0, len(good), size)]


def lengths(processor: Any, sizes: Sequence[tuple[int, int]]) -> list[int]:
    """Image tokens of images of these sizes, (height, width)."""
    try:
        return [int(count) for count in processor._get_num_multimodal_tokens(image_sizes=sizes)["num_image_tokens"]]
    except Exception:  # it is not part of transformers' public interface: any failure means "cannot say"
        return [height * width for height, width in sizes]


# -- helpers -------------------------------------------------------------------------------------------------------
def _content(path: str, limits: Limits) -> bytes:
    if is_url(path):
        if not limits.allow_urls:
            raise _bad(f"{path} is a URL; nothing is fetched without --allow-urls")
        return fetch(path, limits.max_bytes)
    file, name = Path(path), plain(path)
    told = file.stat()
    if not stat.S_ISREG(told.st_mode):
        raise _bad(f"{name} is not a file")
    if told.st_size > limits.max_bytes:
        raise _bad(f"{name} has {told.st_size:,} bytes; possible: 1 to {limits.max_bytes:,}")
    with file.open("rb") as opened:
        content = opened.read(limits.max_bytes + 1)
    if len(content) > limits.max_bytes:
        raise _bad(f"{name} grew beyond {limits.max_bytes:,} bytes while it was read")
    return content


def _why(picture: Picture, error: Exception) -> str:
    from ...pipelines.inputs.images import BadImage

    name = plain(picture.path)
    if isinstance(error, BadImage | NotFetched):
        return plain(str(error))
    if isinstance(error, FileNotFoundError):
        return f"{name} does not exist"
    if isinstance(error, OSError) and error.strerror:
        return f"{name} cannot be read: {error.strerror}"
    return f"{name} cannot be read: {type(error).__name__}: {plain(str(error)).partition(chr(10))[0]}"


def _bad(text: str) -> Exception:
    from ...pipelines.inputs.images import BadImage

    return BadImage(text)
