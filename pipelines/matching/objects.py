"""Which objects are in an image, by a matcher and a list of names, or by a detector of transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..model.load import CannotLoad
from .load import check_matcher, load_matcher

DETECTOR = "detector:"
PROMPT = "a photo of a {name}"
Finder = Callable[[Sequence[Image.Image]], list[list[str]]]


def check_finder(source: str, names: Sequence[str]) -> None:
    """Raise ValueError for a finder that does not exist, or a matcher without names to look for; nothing is loaded."""
    if source.startswith(DETECTOR):
        if not source.removeprefix(DETECTOR).strip():
            raise ValueError('"detector:" names no model; give "detector:<folder or Hub id>".')
        return
    check_matcher(source)
    if not names:
        raise ValueError(f"{source} is a matcher, which looks for given names: give them, or take a detector.")


def load_finder(source: str, names: Sequence[str], threshold: float, device: str = "cpu") -> Finder:
    """What finds objects in images, each named once and in alphabetical order.

    Args:
        source: "detector:" and a folder or Hub id of a model for transformers' `object-detection` pipeline, or a
            matcher's name. names: what a matcher looks for; of a detector's, those that are kept, none is all.
        threshold: a detector's score, or a matcher's cosine of the image and "a photo of a …", that is enough.

    Raises:
        ValueError: as `check_finder`. CannotLoad: the model is not to be had.
    """
    check_finder(source, names)
    if source.startswith(DETECTOR):
        return _detector(source.removeprefix(DETECTOR), frozenset(names), threshold, device)
    matcher, wanted = load_matcher(source, device), sorted(set(names))
    texts = matcher.text_embeddings([PROMPT.format(name=name) for name in wanted])

    def find(images: Sequence[Image.Image]) -> list[list[str]]:
        pixels = [torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1) for image in images]
        fits = (matcher.image_embeddings(pixels) @ texts.T >= threshold).tolist()
        return [[name for name, fit in zip(wanted, row, strict=True) if fit] for row in fits]

    return find


def _detector(source: str, names: frozenset[str], threshold: float, device: str) -> Finder:
    from transformers import AutoImageProcessor, AutoModelForObjectDetection, pipeline

    id, _, revision = source.partition("@")
    try:
        model = AutoModelForObjectDetection.from_pretrained(id, revision=revision or "main", use_safetensors=True)
        processor = AutoImageProcessor.from_pretrained(id, revision=revision or "main")
    except (OSError, ValueError) as error:
        raise CannotLoad(
            f"{source!r} is no object detector that can be loaded from safetensors: {str(error).splitlines()[0]}"
        ) from error
    detect: Any = pipeline("object-detection", model=model, image_processor=processor, device=device)

    def find(images: Sequence[Image.Image]) -> list[list[str]]:
        found = detect(list(images), threshold=threshold)
        labels = [{str(one["label"]) for one in boxes} for boxes in found]
        return [sorted(mine & names if names else mine) for mine in labels]

    return find


def confirmed(found: Sequence[Sequence[Sequence[str]]]) -> list[list[str]]:
    """Of several finders' objects of each image, those that all of them name, in the order of the first.

    >>> confirmed([[["cat", "dog"], ["tv"]], [["dog"], ["car", "tv"]]])
    [['dog'], ['tv']]
    """
    return [[name for name in row[0] if all(name in other for other in row[1:])] for row in zip(*found, strict=True)]
