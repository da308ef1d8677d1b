"""Rows of tokens: reading images safely, building prompts, padding to the left, taking the image out."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

MAX_PIXELS = 50_000_000
MAX_BYTES = 100_000_000
_ROW_FILL = {"attention_mask": 0, "token_type_ids": 0, "mm_token_type_ids": 0}
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")


class BadImage(ValueError):
    """An image that cannot be used; the message says which and why."""


def read_image(source: Any, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES) -> Image.Image:
    """A path, PIL image or (height, width[, channel]) array as an RGB image, turned as its EXIF says.

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


def read_bytes(content: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The content of an image file as `read_image` reads the file. name: what an error calls it.

    Raises:
        BadImage: not an image, cut off, or larger than the limit.
    """
    return _from_file(io.BytesIO(content), name, max_pixels)


def read_size(content: bytes, name: str, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(height, width) that the content of an image file says it has, turned as its EXIF says; no pixel is decoded.

    Raises:
        BadImage: as `read_bytes`, but for what only decoding can find.
    """
    return _from_file(io.BytesIO(content), name, max_pixels, _turned_size)


def passed_on(source: Any) -> Image.Image:
    """`read_image`, but for what it has read before, which needs no second look and no second copy."""
    decoded = type(source) is Image.Image and source.mode == "RGB"
    as_seen = decoded and "transparency" not in source.info and source.getexif().get(0x0112, 1) == 1
    return source if as_seen else read_image(source)


def _from_file(file: Any, name: str, max_pixels: int, take: Any = None) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(file, formats=_FORMATS)
        with image:
            _check_pixels(name, image.size, max_pixels)
            return (take or _rgb)(image)
    except BadImage:
        raise
    except UnidentifiedImageError as error:
        raise BadImage(f"{name} is not an image that can be read ({', '.join(_FORMATS)})") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadImage(f"{name} cannot be read as an image: {error}") from error


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


def conversation(question: str | Sequence[str], images: int = 1, system: str | None = None) -> list[dict]:
    """The chat messages of one question about one or more images, or of several turns: user, model, …, user.

    Raises:
        ValueError: turns that do not end with the user's.
    """
    first, *more = [question] if isinstance(question, str) else question
    if len(more) % 2:
        raise ValueError(f"a conversation of {1 + len(more)} turns ends with the model's; the last turn is the user's")
    content: list[dict] = [{"type": "image"}] * images + [{"type": "text", "text": first}]
    messages: list[dict] = [{"role": "user", "content": content}]
    for place, text in enumerate(more):
        messages.append({"role": "user" if place % 2 else "assistant", "content": [{"type": "text", "text": text}]})
    if system:
        messages.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
    return messages


def prompt_text(
    processor: Any, question: str | Sequence[str], images: int = 1, system: str | None = None,
    template: str | None = None,
) -> str:  # fmt: skip
    """The exact prompt string that the processor's chat template makes, or `template` where it has none.

    question: a text, or the turns of a conversation (see `conversation`).
    template: the family's own, with {image}, once per picture, and {question}.

    Raises:
        ValueError: the processor has no chat template, and neither has its family; or its template has no place for a
            system prompt, or for what the model said before.
    """
    if not isinstance(question, str) and getattr(processor, "chat_template", None) is None:
        raise ValueError(f"{type(processor).__name__} has no chat template, so that it takes one turn and no second")
    if getattr(processor, "chat_template", None) is None and template is not None:
        picture = str(getattr(processor, "image_token", ""))
        text = template.format(image=picture * images, question=question)
        return f"{system}\n{text}" if system else text
    if getattr(processor, "chat_template", None) is None:
        raise ValueError(
            f"{type(processor).__name__} has no chat template; give the whole prompt as inputs from your own processor "
            "call, or set processor.chat_template"
        )
    messages = conversation(question, images, system)
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    lost = [] if isinstance(question, str) else [turn for turn in question if turn.strip() not in text]
    if lost:
        raise ValueError(f"the chat template of this {type(processor).__name__} leaves out the turn {lost[0]!r:.80}")
    if system and system.strip() not in text:
        raise ValueError(
            f"the chat template of this {type(processor).__name__} leaves the system prompt out; put it into the "
            "question, or set processor.chat_template"
        )
    return text


# -- rows ----------------------------------------------------------------------------------------------------------
def pad_left(rows: Sequence[Tensor], fill: int) -> Tensor:
    """1-D tensors of any length as one (row, position) tensor, aligned at the right edge."""
    longest = max(row.shape[0] for row in rows)
    return torch.stack([torch.cat([row.new_full((longest - row.shape[0],), fill), row]) for row in rows])


def image_free(inputs: Mapping[str, Tensor], image: Tensor, pad: int) -> dict[str, Tensor]:
    """Delete the image positions of every row; left-padding goes to the edge again."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    keep = ~image & mask.bool()
    rows = [row[kept] for row, kept in zip(ids, keep, strict=True)]
    out = {"input_ids": pad_left(rows, pad), "attention_mask": pad_left([torch.ones_like(row) for row in rows], 0)}
    for name in ("token_type_ids", "mm_token_type_ids"):
        if name in inputs:
            kinds = [row[kept] for row, kept in zip(inputs[name], keep, strict=True)]
            out[name] = pad_left(kinds, 0)
    return out


def stack(blocks: Sequence[Mapping[str, Tensor]], pad: int) -> dict[str, Tensor]:
    """Row blocks as one batch: ids aligned at the right edge, per-image tensors one after another.

    Raises:
        ValueError: a block brings something that another lacks and that is one entry per row.
    """
    longest = max(block["input_ids"].shape[1] for block in blocks)
    out: dict[str, Tensor] = {}
    for name in dict.fromkeys(name for block in blocks for name in block):
        parts = []
        for block in blocks:
            value = block.get(name)
            if value is None:
                if name in _ROW_FILL:
                    raise ValueError(f"a branch lacks {name!r}, which the other rows have")
                continue
            if name == "input_ids" or name in _ROW_FILL:
                fill = pad if name == "input_ids" else _ROW_FILL[name]
                short = longest - value.shape[1]
                value = torch.cat([value.new_full((value.shape[0], short), fill), value], dim=1) if short else value
            parts.append(value)
        out[name] = torch.cat(_as_wide(parts))
    return out


def _as_wide(parts: Sequence[Tensor]) -> list[Tensor]:
    """Per-image tensors filled up with zeros along their second dimension: tiles, or Q-Former tokens."""
    widest = max(part.shape[1] if part.dim() > 1 else 0 for part in parts)
    short = [0 if part.dim() == 1 else widest - part.shape[1] for part in parts]
    fill = lambda part, count: part.new_zeros(part.shape[0], count, *part.shape[2:])
    return [torch.cat([p, fill(p, n)], 1) if n else p for p, n in zip(parts, short, strict=True)]
