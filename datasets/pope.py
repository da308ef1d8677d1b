"""POPE questions built from object annotations: is this object in the image, half of them about ones that are not.

Li et al., "Evaluating Object Hallucination in Large Vision-Language Models", EMNLP 2023, arXiv 2305.10355, Sec. 4.1.
"""

import json
import logging
import random
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)
STRATEGIES = ("random", "popular", "adversarial")


def build(
    instances: str | Path | Mapping[str, Any],
    strategy: str = "popular",
    per_image: int = 3,
    images: int | Collection[int | str] | None = None,
    seed: int = 0,
    truth: Mapping[int, Collection[str]] | None = None,
) -> list[dict[str, Any]]:
    """Questions about the images of a COCO-format instances file; 2·per_image for each image with enough objects.

    An image's objects are the categories of its annotations in the order listed, each once. Images with fewer than
    per_image are left out, as in the released files.

    Args:
        instances: path of the instances JSON (or its loaded content).
        strategy: how negatives are chosen; see `questions`.
        per_image: positives for each image, and as many negatives. POPE: 3.
        images: None for all; a number to sample that many of those with enough objects (POPE: 500); or ids or file
            names, asked about in the order given.
        seed: of the sampling and of random negatives. The same seed gives the same file everywhere.
        truth: image id -> further objects that are there without an annotation, such as the ground truth of CHAIR;
            POPE takes the objects of the reference captions too. They come after the annotated ones, by name.

    Returns:
        {question_id (from 1), image (file name), text, label} each, as in POPE's own files.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a COCO-format JSON (with the line where it breaks); images that the file lacks, or more asked
            for than have enough objects; and as `questions`.
    """
    content, where = _load(instances)
    names = {category["id"]: category["name"] for category in content["categories"]}
    files = {image["id"]: image["file_name"] for image in content["images"]}
    objects: dict[int, dict[str, None]] = {image: {} for image in files}
    for annotation in content["annotations"]:
        if annotation["category_id"] not in names or annotation["image_id"] not in files:
            raise ValueError(
                f"{where}: an annotation has image_id {annotation['image_id']} and category_id "
                f"{annotation['category_id']}; one of them is not among the file's images and categories."
            )
        objects[annotation["image_id"]][names[annotation["category_id"]]] = None
    for image, found in objects.items():
        found.update(dict.fromkeys(sorted((truth or {}).get(image, ()))))
    chosen = _choose(objects, files, per_image, images, seed, where)
    return questions({files[image]: list(objects[image]) for image in chosen}, strategy, per_image, seed)


def questions(
    objects: Mapping[str, Sequence[str]], strategy: str = "popular", per_image: int = 3, seed: int = 0
) -> list[dict[str, Any]]:
    """Questions about images whose objects are known: strictly alternating yes and no, per_image of each.

    The i-th positive is the image's i-th object. Each is followed by one negative, an object of this sample of images
    that is neither in the image nor already asked about:
        random: any of them, all equally likely;
        popular: the one in most images of the sample;
        adversarial: the one most often seen together with the positive; a random one if no such object is left.
    Among equally frequent ones the first seen comes first.

    Args:
        objects: image file name -> its objects in order. Images with fewer than per_image objects are left out.
        strategy: random, popular or adversarial.
        per_image: positives for each image, and as many negatives.
        seed: of random choices.

    >>> sample = {"A": ["person", "dog", "car"], "B": ["person", "cat", "car"], "C": ["person", "dog", "cat"]}
    >>> [(q["text"], q["label"]) for q in questions(sample, "popular", per_image=1)[:2]]
    [('Is there a person in the image?', 'yes'), ('Is there a cat in the image?', 'no')]

    Raises:
        ValueError: unknown strategy; per_image below 1; no image with enough objects; an image that leaves fewer
            than per_image negatives (the authors' program never ends there).
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"no POPE strategy {strategy!r}. Known: {', '.join(STRATEGIES)}.")
    _check_per_image(per_image)
    listed = {image: list(dict.fromkeys(names)) for image, names in objects.items()}
    sample = {image: names for image, names in listed.items() if len(names) >= per_image}
    if not sample:
        raise ValueError(
            f"none of {len(listed)} images has {per_image} objects; choose a smaller per_image or other images."
        )
    if len(sample) < len(listed):
        log.info(
            "%d of %d images have fewer than %d objects: left out", len(listed) - len(sample), len(listed), per_image
        )
    popular = ranked(name for names in sample.values() for name in names)
    together = _together(sample) if strategy == "adversarial" else {}
    draw = random.Random(seed)
    built: list[dict[str, Any]] = []
    for image, names in sample.items():
        left = [name for name in popular if name not in names]
        if len(left) < per_image:
            raise ValueError(
                f"image {image!r} has {len(names)} of the {len(popular)} objects of this sample, which leaves "
                f"{len(left)} for {per_image} negatives. Use more images, a smaller per_image, or leave it out."
            )
        for positive in names[:per_image]:
            if strategy == "popular":
                negative = left[0]
            else:
                likely = [name for name in together.get(positive, ()) if name in left]
                negative = likely[0] if likely else draw.choice(left)
            left.remove(negative)
            for name, label in ((positive, "yes"), (negative, "no")):
                built.append({"question_id": len(built) + 1, "image": image, "text": question(name), "label": label})
    return built


def question(name: str) -> str:
    """POPE's question about an object; the article goes by the first letter alone ("a skis" stays).

    >>> question("dog"), question("umbrella")
    ('Is there a dog in the image?', 'Is there an umbrella in the image?')
    """
    return f"Is there {'an' if name[0] in 'aeiou' else 'a'} {name} in the image?"


def ranked(names: Iterable[str]) -> list[str]:
    """The distinct names, most frequent first, equally frequent ones in the order first seen.

    >>> ranked(["person", "dog", "car", "person", "cat", "car"])
    ['person', 'car', 'dog', 'cat']
    """
    return [name for name, _ in Counter(names).most_common()]


def companions(objects: Mapping[str, Sequence[str]], name: str) -> list[str]:
    """What is seen together with an object, in most images first; equally frequent ones in the order first seen.

    >>> sample = {"A": ["person", "dog", "car"], "B": ["person", "cat", "car"], "C": ["person", "dog", "cat"]}
    >>> companions(sample, "dog")
    ['person', 'car', 'cat']
    """
    return _together(objects).get(name, [])


def _together(objects: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    counts: dict[str, Counter] = {}
    for names in objects.values():
        for name in names:
            counts.setdefault(name, Counter()).update(other for other in names if other != name)
    return {name: [other for other, _ in seen.most_common()] for name, seen in counts.items()}


def _choose(
    objects: Mapping[int, Collection[str]],
    files: Mapping[int, str],
    per_image: int,
    images: int | Collection[int | str] | None,
    seed: int,
    where: str,
) -> list[int]:
    """Ids of the images to ask about."""
    _check_per_image(per_image)
    enough = [image for image in files if len(objects[image]) >= per_image]
    if images is None:
        return enough
    if isinstance(images, int):
        if not 0 < images <= len(enough):
            raise ValueError(
                f"images={images}, but {len(enough)} of {len(files)} images in {where} have at least {per_image} "
                f"objects; possible: 1 to {len(enough)}, or a smaller per_image."
            )
        return sorted(random.Random(seed).sample(sorted(enough), images))
    by_name: dict[Any, Any] = {name: image for image, name in files.items()}
    chosen = [by_name.get(image, image) for image in images]
    unknown = [image for image in chosen if image not in files]
    if unknown:
        raise ValueError(
            f"{len(unknown)} of {len(chosen)} images asked for are not in {where}, such as {unknown[0]!r}; possible: "
            f"ids like {next(iter(files), None)!r} or file names like {next(iter(by_name), None)!r}."
        )
    return list(dict.fromkeys(chosen))


def _check_per_image(per_image: int) -> None:
    if per_image < 1:
        raise ValueError(f"per_image={per_image} is below 1 (positives for each image); POPE uses 3.")


def _load(instances: str | Path | Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    if isinstance(instances, Mapping):
        content, where = instances, "the annotations given"
    else:
        where = str(instances)
        if not Path(instances).is_file():
            raise FileNotFoundError(f"no instances file at {where}; needed: a JSON file in COCO's format.")
        try:
            content = json.loads(Path(instances).read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: line {error.lineno} is not JSON ({error.msg}).") from error
        except RecursionError as error:
            raise ValueError(f"{where} is nested too deeply to be in COCO's format.") from error
    missing = [
        k for k in ("images", "annotations", "categories") if not isinstance(content, Mapping) or k not in content
    ]
    if missing:
        raise ValueError(f"{where} is not in COCO's instances format: it has no {' and no '.join(missing)}.")
    return content, where
