"""Images from files, bytes, PIL and arrays as RGB, read safely and turned by their EXIF orientation."""

from __future__ import annotations

import importlib.util
import io
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

MAX_PIXELS = 50_000_000
MAX_BYTES = 100_000_000
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
_HEIF = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")  # brands, at the start of a file


class BadImage(ValueError):
    """An image that cannot be used; the message names it and the reason."""


def read_image(source: Any, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES) -> Image.Image:
    """A path, PIL image or (height, width[, channel]) array as an RGB image, turned by its EXIF orientation.

    Raises:
        BadImage: missing, not an image, cut off, or larger than the limits.
    """
    if isinstance(source, Image.Image):
        _check_pixels("the image", source.size, max_pixels)
        try:
            return _rgb(source)
        except (OSError, SyntaxError, ValueError) as error:
            raise BadImage(f"an image that was opened before cannot be read: {error}") from error
    if isinstance(source, np.ndarray | Tensor):
        array = source.detach().cpu() if isinstance(source, Tensor) else source
        array = np.asarray(array.float() if isinstance(array, Tensor) and array.is_floating_point() else array)
        if array.ndim >= 2:
            _check_pixels("the array", (array.shape[1], array.shape[0]), max_pixels)
        return _from_array(array)
    if not isinstance(source, str | Path):
        raise BadImage(f"an image is a path, a PIL image or an array; found {type(source).__name__}")
    path = Path(source)
    if str(source).startswith(("http://", "https://")):
        raise BadImage(f"{source} is a URL; nothing is fetched from the network: download it and give its path")
    if not path.is_file():
        raise BadImage(f"{path} does not exist" if not path.exists() else f"{path} is not a file")
    size = path.stat().st_size
    if not 0 < size <= max_bytes:
        raise BadImage(f"{path} has {size:,} bytes; possible: 1 to {max_bytes:,}")
    return _from_file(path, str(path), max_pixels)


def many_images(images: Any) -> list[Any]:
    """One image or many as a list: a path, PIL image or array is one; lists, Series and generators are many.

    Raises:
        ValueError: a mapping.
    """
    if isinstance(images, Mapping):
        raise ValueError(f"images are a mapping with {', '.join(map(str, list(images)[:3]))}; give its images alone.")
    array = isinstance(images, np.ndarray | Tensor)
    of_paths = isinstance(images, np.ndarray) and images.dtype.kind in "OUS"
    if isinstance(images, str | bytes | Path | Image.Image) or (array and not of_paths):
        return [images]
    return list(images) if isinstance(images, Iterable) else [images]


def read_bytes(content: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The content of an image file as `read_image` reads the file. name: what an error calls it.

    Raises:
        BadImage: not an image, cut off, or larger than the limit.
    """
    return _from_file(io.BytesIO(content), name, max_pixels)


def read_size(content: bytes, name: str, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(height, width) that the header of an image file gives, turned by its EXIF orientation; no pixel is decoded.

    Raises:
        BadImage: as `read_bytes`, but for what only decoding can find.
    """
    return _from_file(io.BytesIO(content), name, max_pixels, _turned_size)


def token_counts(processor: Any, sizes: Sequence[tuple[int, int]]) -> list[int] | None:
    """Image tokens of images of these sizes, (height, width); None where the processor cannot say it."""
    try:
        return [int(count) for count in processor._get_num_multimodal_tokens(image_sizes=sizes)["num_image_tokens"]]
    except Exception:  # it is not part of transformers' public interface: any failure means "cannot say"
        return None


def passed_on(source: Any) -> Image.Image:
    """`read_image`, but for what it has read before, which is neither checked nor copied again."""
    decoded = type(source) is Image.Image and source.mode == "RGB"
    as_seen = decoded and "transparency" not in source.info and source.getexif().get(0x0112, 1) == 1
    return source if as_seen else read_image(source)


def _from_file(file: Any, name: str, max_pixels: int, take: Any = None) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(file, formats=_formats())
        with image:
            _check_pixels(name, image.size, max_pixels)
            return (take or _rgb)(image)
    except BadImage:
        raise
    except UnidentifiedImageError as error:
        if "HEIF" not in _formats() and _is_heif(file):
            raise BadImage(f"{name} is a HEIC image, which needs pillow-heif: pip install 'veridical[heic]'") from error
        raise BadImage(f"{name} is not an image that can be read ({', '.join(_formats())})") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadImage(f"{name} cannot be read as an image: {error}") from error


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    """The formats that are read, by Pillow's names; HEIC, which Pillow does not know, where pillow-heif is there."""
    if importlib.util.find_spec("pillow_heif") is None:
        return _FORMATS
    import pillow_heif

    pillow_heif.register_heif_opener()
    return (*_FORMATS, "HEIF")


def _is_heif(file: Any) -> bool:
    if isinstance(file, Path):
        with file.open("rb") as opened:
            start = opened.read(12)
    else:
        file.seek(0)
        start = file.read(12)
    return start[4:8] == b"ftyp" and start[8:12] in _HEIF


def _turned_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    return (width, height) if image.getexif().get(0x0112, 1) in (5, 6, 7, 8) else (height, width)


def _check_pixels(what: str, size: tuple[int, int], most: int) -> None:
    if size[0] * size[1] > most:
        raise BadImage(f"{what} has {size[0]}×{size[1]} pixels; at most {most:,} are read")


def _rgb(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        values = np.asarray(image, np.float32)
        full = 65535.0 if image.mode.startswith("I") else max(float(values.max()), 1.0)
        image = Image.fromarray(np.clip(np.round(values / full * 255), 0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _from_array(array: np.ndarray) -> Image.Image:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise BadImage(f"an image array is (height, width) or (height, width, 1, 3 or 4); found shape {array.shape}")
    if not array.size:
        raise BadImage(f"an image array has at least one pixel; found shape {array.shape}")
    if array.dtype != np.uint8:
        if not (array.min() >= 0 and array.max() <= 1):
            raise BadImage(f"an image array is uint8, or float in 0 to 1; found {array.dtype} up to {array.max():g}")
        array = np.round(array * 255).astype(np.uint8)
    return _rgb(Image.fromarray(array.squeeze(2) if array.ndim == 3 and array.shape[2] == 1 else array))
