"""RITUAL's view of an image: which of the six transformations a sample gets, and its pixel values after it."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..pipelines.inputs.pixel_values import Colours, NoImages, whole_images
from .ritual_transforms import CLIP, TRANSFORMS
from .view import require_image, viewed

if TYPE_CHECKING:
    from ..pipelines.model.layout import Inputs, Layout

log = logging.getLogger(__name__)


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
    require_image(inputs, "transform")
    if view is not None:
        return viewed(lvlm, inputs, view)
    has_processor = getattr(lvlm.processor, "image_processor", None) is not None
    if not has_processor:
        log.warning("%s has no image processor: colours are taken as CLIP's preprocessing has them", lvlm.name)
    colours, out = Colours.of(lvlm) if has_processor else CLIP, []
    try:
        groups, back = whole_images(lvlm, inputs)
    except NoImages as error:
        raise ValueError(
            f"{error}, each of which RITUAL's own transformations would treat as an image; give RITUAL(view=…), a "
            "callable from the inputs to pixel_values of the same shape, which transforms the whole image"
        ) from error
    for row, images in enumerate(groups):
        ids = inputs["input_ids"][row][inputs["attention_mask"][row].bool()]
        for image in images:  # several images of a prompt have one transformation
            name, draw = drawn(ids, torch.cat([one.flatten() for one in images]), transforms, seed)
            out.append(TRANSFORMS[name](image.float(), draw, colours).to(inputs["pixel_values"].dtype))
        if images:
            log.info("sample %d: the second image is transformed by %s", row, name)
    return back(out)
