"""The truth of the images that captions are about, checked against the captions' ids."""

import logging
from collections.abc import Collection, Mapping

log = logging.getLogger(__name__)


def of_images(truth: Mapping, images: Collection, categories: Collection[str]) -> dict:
    """The truth of these images, checked: ids of another type are an error, an unknown image has the empty set.

    Raises:
        ValueError: no id in common, ids of one type here and another there, or a name that is no category.
    """
    missing = [image for image in images if image not in truth]
    other = [image for image in missing if _other_type(image) in truth]
    if other or (truth and len(missing) == len(images)):
        image = (other or missing)[0]
        raise ValueError(
            f"the captions' image {image!r} is not in the ground truth ({len(missing)} of {len(images)} are not); ids "
            f"there are {example(truth)}. Give captions and truth the same ids, of the same type."
        )
    if missing:
        log.warning(
            "%d of %d images are not in the ground truth, such as %r: all that their captions mention counts as "
            "hallucinated, as in the official program",
            len(missing), len(images), missing[0],
        )  # fmt: skip
    known = frozenset(categories)
    found = {image: frozenset(truth.get(image, ())) for image in images}
    for image, names in found.items():
        if not names <= known:
            raise ValueError(
                f"the ground truth of image {image!r} names {sorted(names - known)[0]!r}, which is none of this "
                f"vocabulary's {len(known)} categories. Make the truth with ground_truth(…, chair=chair)."
            )
    return found


def _other_type(image):
    if isinstance(image, str):
        return int(image) if image.isdecimal() else None
    return str(image)


def example(truth: Mapping) -> str:
    return f"like {next(iter(truth))!r}" if truth else "none"
