"""A matcher measures how well an image and a prompt fit, and which parts of the image the prompt refers to."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

BLUR = 0.02  # standard deviation of the blur, as a share of the longer side
_ONE_THREAD = threading.Lock()
_FINGERPRINT = 1 << 20  # bytes at the start and at the end of a weights file


@dataclass(frozen=True)
class Match:
    """relevance: (rows, columns) on the matcher's own grid, 0 to 1. similarity: cosine of image and prompt."""

    relevance: Float[Tensor, "rows columns"]
    similarity: float

    def spread(self, height: int, width: int) -> Float[Tensor, "height width"]:
        """The relevance of every pixel of an image of that size: resized, blurred, from 0 to 1 again.

        What the cubic resizing overshoots is cut off, as scikit-image does for the released code: without that, the
        least value lies beside a peak and everything irrelevant gains by the last stretch.
        """
        cam = stretch(self.relevance.float())
        cam = interpolate(cam[None, None], size=(height, width), mode="bicubic", align_corners=False)[0, 0]
        return stretch(blur(cam.clamp(0, 1), BLUR * max(height, width)))


class Matcher(Protocol):
    """id: what cached matches belong to; other weights or another layer have another."""

    @property
    def id(self) -> str: ...

    def match(self, images: Sequence[UInt8[Tensor, "3 _ _"]], prompts: Sequence[str]) -> list[Match]:
        """A match for each image (RGB, 0 to 255, of any size) and its prompt, computed in batches."""
        ...


def in_batches(compute: Callable[..., Iterable[Any]], size: int, *inputs: Sequence[Any]) -> list[Any]:
    """What `compute` returns for all of the inputs, which belong together, `size` at a time; one thread at a time.

    A matcher is shared by all decoders of a process, and its hooks would act in the passes of other threads too.
    """
    parts = [slice(start, start + size) for start in range(0, len(inputs[0]), size)]
    with _ONE_THREAD:
        return [one for part in parts for one in compute(*(list(values[part]) for values in inputs))]


def stretch(values: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """From the least to the largest value as 0 to 1; a constant is 0."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low).clamp(min=1e-12)


def attention_gradient(
    gradient: Float[Tensor, "batch head query head_dim"], values: Float[Tensor, "batch head key head_dim"]
) -> Float[Tensor, "batch head query key"]:
    """∂score/∂C from ∂score/∂o, without a hook inside the attention: G[q, k] = (∂score/∂o[q]) · values[k].

    C: attention probabilities; o = C·values: the heads' output.
    """
    return gradient @ values.transpose(-1, -2)


def blur(cam: Float[Tensor, "height width"], sigma: float) -> Float[Tensor, "height width"]:
    """Gaussian blur, cut at 4 σ, the image mirrored at its edges (d c b a | a b c d | d c b a)."""
    rows, columns = (_blurring(size, sigma).to(cam) for size in cam.shape)
    return rows @ cam @ columns.T


def _blurring(size: int, sigma: float) -> Float[Tensor, "size size"]:
    """The blur along one side as a matrix."""
    reach = int(4 * sigma + 0.5)
    offsets = torch.arange(-reach, reach + 1)
    weights = torch.exp(-0.5 * (offsets.double() / max(sigma, 1e-9)) ** 2)
    place = torch.arange(size)[:, None] + offsets
    place = place % (2 * size)  # mirrored with period 2·size
    place = torch.where(place < size, place, 2 * size - 1 - place)
    return torch.zeros(size, size, dtype=torch.double).scatter_add(
        1, place, (weights / weights.sum()).expand(size, -1).contiguous()
    )


def squashed(
    images: Sequence[UInt8[Tensor, "3 _ _"]], size: tuple[int, int], mean: Sequence[float],
    std: Sequence[float], device: Any,
) -> Float[Tensor, "image 3 height width"]:  # fmt: skip
    """Images resized to one size without regard to their shape (bicubic), then normalised."""
    small = [
        interpolate(one[None].to(device).float(), size=size, mode="bicubic", align_corners=False, antialias=True)
        for one in images
    ]
    pixels = (torch.cat(small).round() / 255).clamp(0, 1)
    return (pixels - pixels.new_tensor(mean)[:, None, None]) / pixels.new_tensor(std)[:, None, None]


def fingerprint(weights: Path) -> str:
    """16 hex digits from a weights file's length, beginning and end."""
    length = weights.stat().st_size
    digest = hashlib.sha256(str(length).encode())
    with weights.open("rb") as file:
        digest.update(file.read(_FINGERPRINT))
        file.seek(max(0, length - _FINGERPRINT))
        digest.update(file.read())
    return digest.hexdigest()[:16]
