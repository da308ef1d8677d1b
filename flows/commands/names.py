"""Names of methods, checked before anything is loaded."""

from __future__ import annotations


def check_names(decoders: list[str], detectors: list[str], benchmarks: list[str]) -> None:
    """Names and settings first: they are wrong more often than anything else, and known without a model."""
    from ...pipelines.registry import DETECTORS
    from .. import steps

    for name in decoders:
        steps.shown(name)
    DETECTORS.make_all(detectors)
    for name in benchmarks:
        steps.benchmark_of(name)
