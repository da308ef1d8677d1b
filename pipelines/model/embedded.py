"""The embedded model and its drawn world: which model it is, and images that it knows nothing about."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

from ...datasets.world import is_scene
from ...models import EMBEDDED as FOLDER
from ...models import SHIPPED
from ..inputs.images import passed_on
from .layout import Layout

EMBEDDED = "embedded"


class NotItsWorld(UserWarning):
    """The embedded model is given an image that is none of the drawn scenes that it knows."""


def is_embedded(layout: Layout) -> bool:
    """Whether this is a shipped model, by its name or by where it was loaded from."""
    names = {str(layout.name), str(getattr(layout.model.config, "name_or_path", ""))}
    return bool(names & {*SHIPPED, str(FOLDER)})


def warn_of_photos(layout: Layout, images: Iterable[Any]) -> bool:
    """Whether the embedded model is given an image that is none of its scenes, which is warned of."""
    if not is_embedded(layout) or all(_drawn(image) for image in images):
        return False
    warnings.warn(
        "the embedded model knows nothing but its own drawn scenes, so that what it writes about a photo means "
        "nothing: for photos load a model that has seen some, such as veridical.load('llava-hf/llava-1.5-7b-hf') or "
        "--model llava-hf/llava-1.5-7b-hf; `veridical data world` writes scenes that it knows.",
        NotItsWorld,
        stacklevel=3,
    )
    return True


def _drawn(image: Any) -> bool:
    several = image if isinstance(image, list | tuple) else [image]
    return all(is_scene(passed_on(one)) for one in several)
