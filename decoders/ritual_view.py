"""RITUAL's six random transformations of the image, on pixel values, and which of them a sample gets."""

from __future__ import annotations

import logging
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.transforms import functional

from ..pipelines.inputs.pixel_values import Colours, folded, unfolded
from .agla_view import prompts, takes_prompts

if TYPE_CHECKING:
    from ..pipelines.model.layout import Inputs, Layout

log = logging.getLogger(__name__)
Image = Float[Tensor, "3 height width"]
TILED = ("internvl",)  # families whose images are tiles one after another, of all samples
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


def drawn(
    ids: Tensor, pixels: Tensor, transforms: Sequence[str], seed: int
) -> tuple[str, torch.Generator]:
    """One sample's transformation, and the generator that its strength comes from.

    ids: (position,) the unpadded prompt. pixels: the image's pixel values.
    """
    check = zlib.crc32(ids.cpu().long().numpy().tobytes(), zlib.crc32(str(seed).encode()))
    check = zlib.crc32(pixels.detach().cpu().float().numpy().tobytes(), check)
    draw = torch.Generator().manual_seed(check)
    return transforms[int(torch.randint(len(transforms), (), generator=draw))], draw


def transformed(
    lvlm: Layout, inputs: Inputs, view: Callable[..., Tensor] | None, transforms: Sequence[str], seed: int
) -> Tensor:
    """The view's `pixel_values`, checked; without a view each sample's image after its own transformation.

    Raises:
        ValueError: inputs without an image, a view that returns another shape, or not one whole image per sample.
    """
    if "pixel_values" not in inputs:
        raise ValueError(f"there is no image to transform: inputs lack pixel_values; found {', '.join(inputs)}")
    pixels = inputs["pixel_values"]
    if view is not None:
        found = view(inputs, prompts(lvlm, inputs)) if takes_prompts(view) else view(inputs)
        if found.shape != pixels.shape:
            raise ValueError(
                f"view returned pixel_values of shape {tuple(found.shape)}; the image's are {tuple(pixels.shape)}, "
                "and both branches need as many image tokens"
            )
        return found.to(pixels)
    has_processor = getattr(lvlm.processor, "image_processor", None) is not None
    if not has_processor:
        log.warning("%s has no image processor: colours are taken as CLIP's preprocessing has them", lvlm.name)
    colours, out = Colours.of(lvlm) if has_processor else CLIP, []
    groups, back = whole_images(lvlm, inputs)
    for row, images in enumerate(groups):
        ids = inputs["input_ids"][row][inputs["attention_mask"][row].bool()]
        for image in images:  # several images of a prompt have one transformation
            name, draw = drawn(ids, torch.cat([one.flatten() for one in images]), transforms, seed)
            out.append(TRANSFORMS[name](image.float(), draw, colours).to(pixels.dtype))
        if images:
            log.info("sample %d: the second image is transformed by %s", row, name)
    return back(out)


def whole_images(lvlm: Layout, inputs: Inputs) -> tuple[list[list[Tensor]], Callable[[Sequence[Tensor]], Tensor]]:
    """The (3, height, width) images of every sample, and how all of them become pixel values again.

    Raises:
        ValueError: tiles, whose parts a transformation would treat as images.
    """
    pixels, grids = inputs["pixel_values"], inputs.get("image_grid_thw")
    tokens = lvlm.image_mask(inputs["input_ids"]).sum(1).tolist()
    if grids is not None and bool((grids[:, 0] == 1).all()):
        config = lvlm.model.config.vision_config
        merge, *sizes = config.spatial_merge_size, config.patch_size, config.temporal_patch_size
        parts = pixels.split(grids.prod(1).tolist())
        images = [unfolded(part, h, w, merge, *sizes) for part, (_, h, w) in zip(parts, grids.tolist(), strict=True)]
        each = [h * w // merge**2 for _, h, w in grids.tolist()]
        back = lambda out: torch.cat([folded(image, merge, *sizes) for image in out])
    elif pixels.dim() == 4 and (lvlm.model.config.model_type not in TILED or len(pixels) == len(tokens)):
        images, back = list(pixels), lambda out: torch.stack(list(out))
        each = [sum(tokens) // len(pixels)] * len(pixels)
    else:
        raise ValueError(
            f"pixel_values of shape {tuple(pixels.shape)} for {len(tokens)} prompts hold tiles, each of which RITUAL's "
            "own transformations would treat as an image; give RITUAL(view=…), a callable from the inputs to "
            "pixel_values of the same shape, which transforms the whole image"
        )
    left, groups = list(zip(images, each, strict=True)), []
    for wanted in tokens:
        mine: list[Tensor] = []
        while wanted > 0 and left:
            image, size = left.pop(0)
            mine.append(image)
            wanted -= size
        groups.append(mine)
    return groups, back
