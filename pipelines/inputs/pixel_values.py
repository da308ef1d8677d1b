"""The images in `pixel_values` as RGB, and `pixel_values` with parts of those images blacked out.

Everything stays in the geometry of what the model sees: nothing is read from a file and resized again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from ..model.layout import Layout

Masks = Sequence[Bool[Tensor, "_ _"]]
_TILED = ("internvl",)  # families whose images are tiles one after another, of all samples
_ALIKE = 0.25  # an arrangement of tiles differs from the whole image by no more than this share of its variance


class NoImages(ValueError):
    """The images cannot be found in these inputs; the message gives the reason."""


@dataclass(frozen=True)
class Images:
    """whole: one image per row, 0 to 255. black_out: from what stays of each, `pixel_values`, the rest black."""

    whole: Sequence[UInt8[Tensor, "3 _ _"]]
    black_out: Callable[[Masks], Tensor]


@dataclass(frozen=True)
class Colours:
    """How the image processor normalises: (rgb / 255 − mean) / std."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, lvlm: Layout) -> Colours:
        processing = getattr(lvlm.processor, "image_processor", None)
        if processing is None:
            raise NoImages(
                f"{lvlm.name} has no image processor, whose mean and deviation say what its pixel_values are in RGB; "
                "load it from a folder that has one"
            )
        known = processing.do_normalize and processing.image_mean is not None
        mean, std = (processing.image_mean, processing.image_std) if known else (0.0, 1.0)
        each = lambda value: torch.as_tensor(value, dtype=torch.float64).expand(3)
        return cls(each(mean), each(std))

    def rgb(self, pixels: Float[Tensor, "*any 3 height width"]) -> UInt8[Tensor, "*any 3 height width"]:
        mean, std = (value.to(pixels.device)[:, None, None] for value in (self.mean, self.std))
        return ((pixels.double() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)

    def darken(
        self, pixels: Float[Tensor, "*any 3 height width"], kept: Bool[Tensor, "*any height width"]
    ) -> Float[Tensor, "*any 3 height width"]:
        """Black, as it is after normalisation, outside of `kept`; what is kept stays to the bit."""
        black = (-self.mean / self.std).to(pixels)[:, None, None]
        return torch.where(kept.to(pixels.device).unsqueeze(-3), pixels, black)


def images_of(lvlm: Layout, inputs: Mapping[str, Tensor]) -> Images:
    """The whole image of every row, and how to black out parts of it wherever it appears.

    Whole images (batch, 3, height, width); Qwen's flattened patches; tiles with the whole image among them: first
    (LLaVA-NeXT, LLaVA-OneVision, `image_sizes`) or last (InternVL, Idefics3, SmolVLM). Tiles take the whole image's
    mask, enlarged.

    Raises:
        NoImages: no image processor, a video, not one image per row, or tiles that do not make up the image.
    """
    colours, rows = Colours.of(lvlm), inputs["input_ids"].shape[0]
    pixels = inputs.get("pixel_values")
    if pixels is None:
        raise NoImages(f"no pixel_values among the inputs ({', '.join(inputs)}); nothing can be blacked out")
    if "image_grid_thw" in inputs:
        return _patches(colours, pixels, inputs["image_grid_thw"], lvlm.model.config.vision_config, rows)
    if pixels.dim() == 5 and "image_sizes" in inputs:
        return _anyres(colours, pixels, inputs["image_sizes"], lvlm.model.config.image_grid_pinpoints, rows)
    if pixels.dim() == 5:
        return _last_whole(colours, pixels, _tile_counts(pixels), rows, inputs.get("pixel_attention_mask"))
    if pixels.dim() != 4:
        raise NoImages(f"pixel_values of shape {tuple(pixels.shape)} are no layout that is known here")
    if pixels.shape[0] != rows:
        return _flat_tiles(colours, pixels, lvlm.image_mask(inputs["input_ids"]).sum(1).tolist())
    return Images(list(colours.rgb(pixels)), lambda masks: colours.darken(pixels, torch.stack(list(masks))))


def whole_images(
    lvlm: Layout, inputs: Mapping[str, Tensor]
) -> tuple[list[list[Tensor]], Callable[[Sequence[Tensor]], Tensor]]:
    """The (3, height, width) images of every sample, and how all of them become pixel values again.

    Raises:
        NoImages: tiles, which are parts of images.
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
    elif pixels.dim() == 4 and (lvlm.model.config.model_type not in _TILED or len(pixels) == len(tokens)):
        images, back = list(pixels), lambda out: torch.stack(list(out))
        each = [sum(tokens) // len(pixels)] * len(pixels)
    else:
        raise NoImages(f"pixel_values of shape {tuple(pixels.shape)} for {len(tokens)} prompts hold tiles")
    left, groups = list(zip(images, each, strict=True)), []
    for wanted in tokens:
        mine: list[Tensor] = []
        while wanted > 0 and left:
            image, size = left.pop(0)
            mine.append(image)
            wanted -= size
        groups.append(mine)
    return groups, back


# -- Qwen: patches ---------------------------------------------------------------------------------------------------
def _patches(colours: Colours, pixels: Tensor, grids: Tensor, config: Any, rows: int) -> Images:
    shapes = grids.tolist()
    _one_each(len(shapes), rows)
    if any(time != 1 for time, _, _ in shapes):
        raise NoImages(f"a video ({shapes}) is no image; nothing is blacked out in it")
    merge, patch, time = config.spatial_merge_size, config.patch_size, config.temporal_patch_size
    parts = pixels.split([h * w for _, h, w in shapes])
    images = [unfolded(part, h, w, merge, patch, time) for part, (_, h, w) in zip(parts, shapes, strict=True)]

    def black_out(masks: Masks) -> Tensor:
        dark = [colours.darken(image, mask) for image, mask in zip(images, masks, strict=True)]
        return torch.cat([folded(image, merge, patch, time) for image in dark])

    return Images([colours.rgb(image) for image in images], black_out)


def unfolded(flat: Tensor, height: int, width: int, merge: int, patch: int, time: int) -> Tensor:
    """(3, pixels, pixels) from Qwen's (patch, 3·time·side·side), whose patches go in blocks of merge × merge."""
    blocks = flat.reshape(height // merge, width // merge, merge, merge, 3, time, patch, patch)
    return blocks[:, :, :, :, :, 0].permute(4, 0, 2, 5, 1, 3, 6).reshape(3, height * patch, width * patch)


def folded(image: Tensor, merge: int, patch: int, time: int) -> Tensor:
    """Back: every moment of a patch is the same image."""
    _, height, width = image.shape
    blocks = image.reshape(3, height // patch // merge, merge, patch, width // patch // merge, merge, patch)
    blocks = blocks.permute(1, 4, 2, 5, 0, 3, 6).unsqueeze(5)  # … 3 time side side
    return blocks.expand(-1, -1, -1, -1, -1, time, -1, -1).reshape(height * width // patch**2, -1)


# -- tiles -----------------------------------------------------------------------------------------------------------
def _anyres(colours: Colours, pixels: Tensor, sizes: Tensor, pinpoints: Any, rows: int) -> Images:
    """LLaVA-NeXT: the whole image squashed into the first tile; the others cut it after padding it to a canvas."""
    from transformers.image_processing_utils import select_best_resolution

    _one_each(pixels.shape[0], rows)
    tile = pixels.shape[-2:]

    def canvas(mask: Tensor, size: tuple[int, int]) -> Tensor:
        height, width = select_best_resolution(size, pinpoints)
        scale = min(width / size[1], height / size[0])
        inner = (min(math.ceil(size[0] * scale), height), min(math.ceil(size[1] * scale), width))
        top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
        whole = mask.new_ones(height, width)
        whole[top : top + inner[0], left : left + inner[1]] = _enlarged(mask, inner)
        return _cut(whole, tile)

    def black_out(masks: Masks) -> Tensor:
        kept = torch.ones(*pixels.shape[:2], *tile, dtype=torch.bool, device=pixels.device)
        for row, (mask, size) in enumerate(zip(masks, sizes.tolist(), strict=True)):
            kept[row, 0] = mask
            if pixels.shape[1] > 1:
                tiles = canvas(mask, (int(size[0]), int(size[1])))
                kept[row, 1 : 1 + len(tiles)] = tiles
        return colours.darken(pixels, kept)

    return Images(list(colours.rgb(pixels[:, 0])), black_out)


def _flat_tiles(colours: Colours, pixels: Tensor, tokens: Sequence[int]) -> Images:
    """InternVL: the tiles of all rows one after another, as many as their image tokens imply."""
    per_tile = sum(tokens) / pixels.shape[0]
    counts = [round(count / per_tile) for count in tokens] if per_tile else []
    if not per_tile or sum(counts) != pixels.shape[0] or any(n * per_tile != t for n, t in zip(counts, tokens)):  # noqa: B905
        raise NoImages(f"{pixels.shape[0]} images do not fit prompts of {list(tokens)} image tokens")
    most = max(counts)
    padded = [torch.cat([part, part.new_zeros(most - len(part), *part.shape[1:])]) for part in pixels.split(counts)]
    tiled = _last_whole(colours, torch.stack(padded), counts, len(counts), None)

    def black_out(masks: Masks) -> Tensor:
        return torch.cat([row[:count] for row, count in zip(tiled.black_out(masks), counts, strict=True)])

    return Images(tiled.whole, black_out)


def _tile_counts(pixels: Tensor) -> list[int]:
    return [max(1, int(count)) for count in (pixels != 0).flatten(2).any(2).sum(1)]


def _last_whole(
    colours: Colours, pixels: Tensor, counts: Sequence[int], rows: int, real: Tensor | None
) -> Images:
    """Rows of tiles, the whole image last; before it its parts, row by row. real: pixels that are no padding."""
    _one_each(pixels.shape[0], rows)
    wholes = [row[count - 1] for row, count in zip(pixels, counts, strict=True)]
    shapes = [
        arrangement(row[: count - 1], whole) if count > 1 else (0, 0)
        for row, whole, count in zip(pixels, wholes, counts, strict=True)
    ]
    tile = pixels.shape[-2:]

    def black_out(masks: Masks) -> Tensor:
        kept = torch.ones(*pixels.shape[:2], *tile, dtype=torch.bool, device=pixels.device)
        for row, (mask, (down, across), count) in enumerate(zip(masks, shapes, counts, strict=True)):
            kept[row, count - 1] = mask
            if count > 1:
                kept[row, : count - 1] = _cut(_enlarged(mask, (down * tile[0], across * tile[1])), tile)
        return colours.darken(pixels, kept if real is None else kept | ~real.bool())

    return Images([colours.rgb(whole) for whole in wholes], black_out)


def arrangement(tiles: Float[Tensor, "tile 3 height width"], whole: Float[Tensor, "3 height width"]) -> tuple[int, int]:
    """(rows, columns) in which the tiles, shrunk, are most like the whole image: the inputs do not tell it.

    Raises:
        NoImages: in none of them are they like it.
    """
    count, size = len(tiles), whole.shape[-2:]
    errors: dict[tuple[int, int], float] = {}
    for down in (n for n in range(1, count + 1) if count % n == 0):
        grid = tiles.unflatten(0, (down, count // down)).permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)
        small = interpolate(grid[None].float(), size=size, mode="bilinear", align_corners=False, antialias=True)[0]
        errors[down, count // down] = float((small - whole.float()).square().mean())
    best = min(errors, key=lambda shape: errors[shape])
    if errors[best] > _ALIKE * float(whole.float().var()) + 1e-3:
        raise NoImages(
            f"of {count + 1} images the last is not made up of the others: a prompt with several images, of which "
            "a matcher compares one with its prompt, or tiles in a layout that is not known here"
        )
    return best


def _cut(mask: Bool[Tensor, "height width"], tile: Sequence[int]) -> Bool[Tensor, "tile tile_height tile_width"]:
    return mask.unflatten(0, (-1, tile[0])).unflatten(2, (-1, tile[1])).transpose(1, 2).flatten(0, 1)


def _enlarged(mask: Tensor, size: tuple[int, int]) -> Tensor:
    return interpolate(mask[None, None].float(), size=size, mode="nearest-exact")[0, 0].bool()


def _one_each(found: int, rows: int) -> None:
    if found != rows:
        raise NoImages(f"{found} images in {rows} prompts; a matcher compares one image with its prompt")
