"""RITUAL's six random transformations of an image, on its pixel values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.transforms import functional

from ..pipelines.inputs.pixel_values import Colours

Image = Float[Tensor, "3 height width"]
CLIP = Colours(  # of the paper's models, where there is no image processor to read them from
    torch.tensor([0.48145466, 0.4578275, 0.40821073], dtype=torch.float64),
    torch.tensor([0.26862954, 0.26130258, 0.27577711], dtype=torch.float64),
)


def uniform(draw: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=draw, dtype=torch.float64))


def rotation(image: Image, draw: torch.Generator, colours: Colours) -> Image:
    """By an angle within ±180°; what comes in at the corners is black."""
    black = (-colours.mean / colours.std).tolist()
    bilinear = functional.InterpolationMode.BILINEAR
    return functional.rotate(image, uniform(draw, -180, 180), bilinear, fill=black)


def jitter(image: Image, draw: torch.Generator, colours: Colours) -> Image:
    """Brightness, contrast and saturation times 0 to 2, hue moved by up to half its circle, in a random order."""
    mean, std = (value.to(image)[:, None, None] for value in (colours.mean, colours.std))
    changes: tuple[tuple[Callable[[Tensor, float], Tensor], float, float], ...] = (
        (functional.adjust_brightness, 0, 2), (functional.adjust_contrast, 0, 2),
        (functional.adjust_saturation, 0, 2), (functional.adjust_hue, -0.5, 0.5),
    )  # fmt: skip
    rgb = (image * std + mean).clamp(0, 1)
    for place in torch.randperm(len(changes), generator=draw).tolist():
        change, low, high = changes[place]
        rgb = change(rgb, uniform(draw, low, high))
    return (rgb - mean) / std


def blur(image: Image, draw: torch.Generator, colours: Colours) -> Image:
    """Gaussian, over 13 × 13 pixels, σ from 1.5 to 2."""
    return functional.gaussian_blur(image, [13, 13], [uniform(draw, 1.5, 2.0)] * 2)


def crop(image: Image, draw: torch.Generator, colours: Colours) -> Image:
    """A part of 8 % to 100 % of the area and an aspect of 3/4 to 4/3, enlarged to the image's own size."""
    height, width = image.shape[1:]
    for _ in range(10):
        area = height * width * uniform(draw, 0.08, 1.0)
        aspect = math.exp(uniform(draw, math.log(3 / 4), math.log(4 / 3)))
        tall, wide = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < tall <= height and 0 < wide <= width:
            top = int(torch.randint(height - tall + 1, (), generator=draw))
            left = int(torch.randint(width - wide + 1, (), generator=draw))
            return functional.resized_crop(image, top, left, tall, wide, [height, width], antialias=True)
    return image


TRANSFORMS: Mapping[str, Callable[[Image, torch.Generator, Colours], Image]] = {
    "hflip": lambda image, draw, colours: image.flip(-1),
    "vflip": lambda image, draw, colours: image.flip(-2),
    "rotation": rotation,
    "jitter": jitter,
    "blur": blur,
    "crop": crop,
}
