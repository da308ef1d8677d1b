"""Which part of an image reaches the model: a processor may cut its middle out."""

from __future__ import annotations

from typing import Any

Area = tuple[float, float, float, float]
WHOLE: Area = (0.0, 0.0, 1.0, 1.0)


def seen_area(processor: Any, width: int, height: int) -> Area:
    """(left, top, right, bottom) of what the processor keeps of an image, as shares of its width and height.

    Resized by width·s and height·s, then cut to c × c in the middle (CLIP, so LLaVA-1.5):
    left = (1 − c / (s·width)) / 2, and so on. Below 0 where the cut is larger than the image and fills it up.

    Args:
        processor: of the model; None, or one that cuts nothing, keeps the whole.

    >>> from types import SimpleNamespace as N
    >>> clip = N(do_center_crop=True, size={"shortest_edge": 100}, crop_size={"height": 100, "width": 100})
    >>> seen_area(N(image_processor=clip), 200, 100)
    (0.25, 0.0, 0.75, 1.0)
    """
    images: Any = getattr(processor, "image_processor", None)
    if not getattr(images, "do_center_crop", False):
        return WHOLE
    cut, size = images.crop_size, images.size if getattr(images, "do_resize", True) else {}
    shortest = _side(size, "shortest_edge")
    scale = shortest / min(width, height) if shortest else 1.0
    wide, high = _side(size, "width") or scale * width, _side(size, "height") or scale * height
    x, y = (1 - _side(cut, "width") / wide) / 2, (1 - _side(cut, "height") / high) / 2
    return (x, y, 1 - x, 1 - y)


def _side(size: Any, name: str) -> float:
    """A side of a size, which is a mapping or an object; 0 where it has none of this name."""
    found = size.get(name) if hasattr(size, "get") else getattr(size, name, None)
    return float(found or 0)
