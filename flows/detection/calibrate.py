"""Curves from risks to probabilities, from the risks of evaluations: fitted on some images, judged on others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...metrics.calibration import Curve, fit_curve
from ...metrics.estimate import Estimate
from ...metrics.ranking import estimates
from ...pipelines.model.spec import load
from ..evaluation.answer_file import file_name
from ..files import atomic
from .request import RISKS, Detection


class Items(NamedTuple):
    """Risks of units with their labels and images."""

    risks: Sequence[float]
    labels: Sequence[int]
    images: Sequence[str]

    def part(self, images: set[str]) -> Items:
        kept = [number for number, image in enumerate(self.images) if image in images]
        take = lambda values: [values[number] for number in kept]
        return Items(take(self.risks), take(self.labels), take(self.images))


class Judged(NamedTuple):
    """A curve's calibration error on images that it was not fitted on.

    fitted_on: images. items: judged. mean_error: mean probability − share of hallucinated items.
    """

    detector: str
    unit: str
    fitted_on: int
    ece: Estimate
    items: int
    mean_error: float


def calibrate(runs: Sequence[str], tests: Sequence[str], out: str, kind: str = "isotonic") -> list[Judged]:
    """Fit a curve for every detector and unit of these evaluations and write the calibrations in a folder.

    runs: folders of `evaluate-detectors`, of captions, of answers, or of both. tests: the same of other images;
    without, half of the images of each run are kept for judging.

    Raises:
        ValueError: runs of several models, runs and tests that share images, or units of one kind alone.
    """
    from ...pipelines.model.identity import identity
    from ...pipelines.registry import DETECTORS
    from ...pipelines.risk.calibration import Calibration, fields_of, is_trained

    requests = [Detection.read(run) for run in (*runs, *tests)]
    if len({str(request.model) for request in requests}) > 1:
        raise ValueError("these are evaluations of several models, and a calibration is of one.")
    lvlm = load(requests[0].model)
    known, held = _units(runs), _units(tests)
    judged: list[Judged] = []
    for name in dict.fromkeys(name for name, _ in known):
        curves: dict[str, Curve] = {}
        sources = [request.source("test", request.test_images).name for request in requests]
        data: dict[str, Any] = {"kind": kind, "sources": list(dict.fromkeys(sources)), "ece": {}}
        for unit in (unit for other, unit in known if other == name):
            fitted, checked = _parts(known[name, unit], held.get((name, unit)) if tests else None)
            curve = curves[unit] = fit_curve(fitted.risks, fitted.labels, kind)
            found = judge(name, unit, curve, fitted, checked)
            judged.append(found)
            data["ece"][unit] = {
                "fitted_on": {"images": found.fitted_on, "items": len(fitted.labels)}, "items": found.items,
                **vars(found.ece),
            }  # fmt: skip
        detector = DETECTORS.make(name)
        calibration = Calibration(
            DETECTORS.name_of(detector), fields_of(detector), is_trained(detector), identity(lvlm), curves, data
        )
        calibration.save(Path(out) / f"{file_name(name)}.json")
    return judged


def judge(name: str, unit: str, curve: Curve, fitted: Items, checked: Items) -> Judged:
    """The calibration error of a curve on other images.

    Raises:
        ValueError: they share an image.
    """
    if shared := set(fitted.images) & set(checked.images):
        raise ValueError(f"{len(shared)} images, such as {min(shared)}, are both fitted on and judged on.")
    probabilities = np.clip(curve(checked.risks), 0, 1)
    found = estimates(probabilities, checked.labels, checked.images, probability=True)
    off = float(np.mean(probabilities) - np.mean(checked.labels))
    return Judged(name, unit, len(set(fitted.images)), found["ece"], len(checked.labels), off)


def _units(folders: Sequence[str]) -> dict[tuple[str, str], Items]:
    """(detector without its folder, unit) -> its risks in these evaluations; the controls are left out."""
    out: dict[tuple[str, str], Items] = {}
    for folder in folders:
        found = atomic.read_json(Path(folder) / RISKS)
        task = Detection.read(folder).task
        parts = {"answers": found} if task == "pope" else {"words": found, "sentences": found["sentences"]}
        for unit, part in parts.items():
            for name, risks in part["risks"].items():
                if name != "position":
                    images = [str(image) for image in part["images"]]
                    out[_without_folder(name), unit] = Items(risks, part["labels"], images)
    return out


def _parts(known: Items, held: Items | None) -> tuple[Items, Items]:
    """What a curve is fitted on, and what it is judged on."""
    if held is not None:
        return known, held
    images = list(dict.fromkeys(known.images))
    chosen = set(np.random.default_rng(0).permutation(images)[: len(images) // 2].tolist())
    return known.part(chosen), known.part(set(images) - chosen)


def _without_folder(name: str) -> str:
    """A detector's name as shipped files have it: without the folder of its probe."""
    method, _, fields = name.partition(":")
    kept = [field for field in fields.split(",") if field and not field.startswith(('weights="', "weights=/"))]
    return f"{method}:{','.join(kept)}" if kept else method

