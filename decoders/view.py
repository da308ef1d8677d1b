"""Views of an image: what stands in for its `pixel_values` in a second branch, from the inputs and their prompts."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from ..pipelines.model.layout import Inputs, Layout


def require_image(inputs: Inputs, purpose: str) -> None:
    """Refuse inputs without an image.

    Raises:
        ValueError: names what there is in their place.
    """
    if "pixel_values" not in inputs:
        raise ValueError(f"there is no image to {purpose}: inputs lack pixel_values; found {', '.join(inputs)}")


def require_callable(view: Callable[..., Tensor] | None) -> None:
    """Refuse a field `view` that is neither None nor a function.

    Raises:
        ValueError: names the value.
    """
    if view is not None and not callable(view):
        raise ValueError(f"view={view!r} cannot be called; give a function from the inputs to pixel_values.")


def viewed(lvlm: Layout, inputs: Inputs, view: Callable[..., Tensor]) -> Tensor:
    """The view's `pixel_values`, in the type and on the device of the image's.

    Raises:
        ValueError: the view returns another shape.
    """
    pixels = inputs["pixel_values"]
    found = outcome(view, lvlm, inputs)
    if found.shape != pixels.shape:
        raise ValueError(
            f"view returned pixel_values of shape {tuple(found.shape)}; the image's are {tuple(pixels.shape)}, "
            "and both branches need as many image tokens"
        )
    return found.to(pixels)


def outcome(function: Callable[..., Any], lvlm: Layout, inputs: Inputs) -> Any:
    """What a user's function returns for the inputs, or for inputs and prompts where it has room for both."""
    return function(inputs, prompts(lvlm, inputs)) if takes_prompts(function) else function(inputs)


def takes_prompts(view: Callable[..., Any]) -> bool:
    """Whether a view has room for a second positional argument."""
    kinds = [p.kind for p in inspect.signature(view).parameters.values()]
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return inspect.Parameter.VAR_POSITIONAL in kinds or sum(kind in positional for kind in kinds) > 1


def prompts(lvlm: Layout, inputs: Inputs) -> list[str]:
    """The text of every row without its image tokens; "" without a processor."""
    if lvlm.processor is None:
        return [""] * inputs["input_ids"].shape[0]
    kept = ~lvlm.image_mask(inputs["input_ids"]) & inputs["attention_mask"].bool()
    rows = [ids[keep] for ids, keep in zip(inputs["input_ids"], kept, strict=True)]
    return [lvlm.processor.tokenizer.decode(row, skip_special_tokens=True).strip() for row in rows]
