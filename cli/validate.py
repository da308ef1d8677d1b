"""Names of methods, checked before anything is loaded, and how many images a list names."""

from __future__ import annotations

from pathlib import Path


def check_names(decoders: list[str], detectors: list[str], benchmarks: list[str], model: str = "") -> None:
    """Names and settings first: they are wrong more often than anything else, and known without a model."""
    from ..flows.benchmarks.registry import BENCHMARKS
    from ..flows.evaluation.request import chain
    from ..pipelines.registry import DETECTORS

    for name in decoders:
        chain(name, model)
    DETECTORS.make_all(detectors)
    for name in benchmarks:
        BENCHMARKS[name]


def number_of(images: str | None, default: int = 500) -> int:
    """How many images "first-500-sorted" or a file of ids names; the default without either.

    Raises:
        FileNotFoundError, ValueError: no such file or list, or a file without ids.
    """
    if images is None:
        return default
    from ..datasets.coco import FIRST
    from ..flows.scoring.files import read_ids

    named = FIRST.fullmatch(images)
    if named is None and not Path(images).is_file():
        raise FileNotFoundError(f'--images {images}: no such file, nor a list like "first-500-sorted".')
    return int(named[1]) if named else len(read_ids(Path(images)))
