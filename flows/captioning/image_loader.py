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

from .images import ImageItem, is_url, plain

if TYPE_CHECKING:
    from PIL import Image

AHEAD = 2  # batches that are being decoded while the model works on one
BUDGET = 1_200_000_000  # bytes of decoded images at a time; half of it is the most that a batch has


@dataclass
class EncodedImage:
    """An image file that was read and not decoded.

    place: in the plan, from 0. content: of the file, None once it is decoded. size: (height, width). error: why it
    cannot be used.
    """

    place: int
    item: ImageItem
    content: bytes | None = None
    sha256: str | None = None
    size: tuple[int, int] = (0, 0)
    error: str | None = None


@dataclass(frozen=True)
class Limits:
    """What is read: files up to `max_bytes` with up to `max_pixels`."""

    max_pixels: int
    max_bytes: int


def read(item: ImageItem, place: int, limits: Limits) -> EncodedImage:
    """Read a file whole, and from its first bytes how large the image is. What goes wrong becomes its `error`."""
    file = EncodedImage(place, item)
    from ...pipelines.inputs.images import read_size

    try:
        file.content = _content(item.path, limits)
        file.sha256 = hashlib.sha256(file.content).hexdigest()
        if not file.content:
            raise _bad(f"{plain(item.path)} has 0 bytes; possible: 1 to {limits.max_bytes:,}")
        file.size = read_size(file.content, plain(item.path), limits.max_pixels)
    except Exception as error:
        file.error, file.content = _why(item, error), None
    return file


def decode(file: EncodedImage, limits: Limits) -> Image.Image | None:
    """The image; None, and `file.error`, if it turns out to be no good."""
    from ...pipelines.inputs.images import read_bytes

    try:
        return read_bytes(file.content or b"", plain(file.item.path), limits.max_pixels)
    except Exception as error:
        file.error = _why(file.item, error)
        return None
    finally:
        file.content = None


def decoded(
    pool: ThreadPoolExecutor, batches: Sequence[Sequence[EncodedImage]], limits: Limits
) -> Iterator[list[tuple[EncodedImage, Any]]]:
    """Batch after batch of images, without those that cannot be decoded; the next ones are decoded meanwhile.

    Batches are decoded ahead as far as they fit into the budget together with the one that the model works on.
    """
    waiting: list[list[Future]] = []
    start = partial(decode, limits=limits)
    weight = [sum(map(decoded_bytes, batch)) for batch in batches]
    for number, batch in enumerate(batches):
        while len(waiting) <= AHEAD and (following := number + len(waiting)) < len(batches):
            if waiting and sum(weight[number : following + 1]) > BUDGET:
                break
            waiting.append([pool.submit(start, file) for file in batches[following]])
        images = [future.result() for future in waiting.pop(0)]
        yield [(file, image) for file, image in zip(batch, images, strict=True) if image is not None]
        del images


def decoded_bytes(file: EncodedImage) -> int:
    """Bytes of an image as RGB."""
    return 3 * file.size[0] * file.size[1]


def batches(
    files: Sequence[EncodedImage], lvlm: Any, size: int, most: int | None = BUDGET // 2
) -> list[list[EncodedImage]]:
    """Usable images in batches of like length, longest first, so that little is padded.

    A batch has at most `size` images, and as many fewer as it takes for `most` bytes of decoded images, but one.

    The length is the number of image tokens if the processor can say it, else the number of pixels; images of one
    length stay in the plan's order. The result depends on nothing else, so that a repeated shard has the same batches.
    """
    good = [one for one in files if one.error is None]
    length = dict(zip((one.place for one in good), lengths(lvlm.processor, [one.size for one in good]), strict=True))
    good.sort(key=lambda one: (-length[one.place], one.place))
    out: list[list[EncodedImage]] = []
    room = 0
    for one in good:
        weight = 0 if most is None else decoded_bytes(one)
        if not out or len(out[-1]) == size or weight > room:
            out.append([])
            room = most or 0
        out[-1].append(one)
        room -= weight
    return out


def lengths(processor: Any, sizes: Sequence[tuple[int, int]]) -> list[int]:
    """Image tokens of images of these sizes, (height, width); pixels where the processor cannot say it."""
    from ...pipelines.inputs.images import token_counts

    return token_counts(processor, sizes) or [height * width for height, width in sizes]


# -- helpers -------------------------------------------------------------------------------------------------------
def _content(path: str, limits: Limits) -> bytes:
    if is_url(path):
        raise _bad(
            f"{plain(path)} is an address, and nothing is fetched from the network: download lists of addresses, for "
            "instance with img2dataset, and caption the folder"
        )
    file, name = Path(path), plain(path)
    status = file.stat()
    if not stat.S_ISREG(status.st_mode):
        raise _bad(f"{name} is not a file")
    if status.st_size > limits.max_bytes:
        raise _bad(f"{name} has {status.st_size:,} bytes; possible: 1 to {limits.max_bytes:,}")
    with file.open("rb") as opened:
        content = opened.read(limits.max_bytes + 1)
    if len(content) > limits.max_bytes:
        raise _bad(f"{name} grew beyond {limits.max_bytes:,} bytes while it was read")
    return content


def _why(item: ImageItem, error: Exception) -> str:
    from ...pipelines.inputs.images import BadImage

    name = plain(item.path)
    if isinstance(error, BadImage):
        return plain(str(error))
    if isinstance(error, FileNotFoundError):
        return f"{name} does not exist"
    if isinstance(error, OSError) and error.strerror:
        return f"{name} cannot be read: {error.strerror}"
    return f"{name} cannot be read: {type(error).__name__}: {plain(str(error)).partition(chr(10))[0]}"


def _bad(text: str) -> Exception:
    from ...pipelines.inputs.images import BadImage

    return BadImage(text)
