"""Training and evaluating detectors, as plain functions: prepare, write texts, fit, rate, measure.

As in `flows.evaluation.steps`, only requests, names and paths go in, and each step reads what it needs from the folder,
so that it can be repeated alone and a stopped run continues. `flows.detectors` runs the same functions under Prefect.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...pipelines.model.spec import load
from ..files import atomic
from ..files.run_log import logged
from .request import REQUEST, RISKS, Detection
from .span_labels import sentence_units, units
from .table import measured
from .texts import evaluated_units, records, risks_of_texts, texts_path, trained_units, write_texts


def prepare(request: Detection, out: str) -> str:
    """Check all that can be checked before the first text, and write the request. Returns the folder.

    Raises:
        UnknownName, ValueError: a name or a setting that does not exist.
    """
    from ...detectors.dhcp import DHCP
    from ...pipelines.registry import DETECTORS

    units(request.unit, "", [], [])
    trained = None if request.trained is None else DETECTORS.make(request.trained)
    if request.test_images < 1 or (trained and request.images < 1):
        raise ValueError(f"{request.images} images to train on and {request.test_images} to test on: give 1 or more.")
    if trained and not hasattr(trained, "fit"):
        able = [name for name in DETECTORS.names if hasattr(DETECTORS.type(name), "fit")]
        raise ValueError(f"{request.trained} has nothing to train. Trainable: {', '.join(able)}.")
    DETECTORS.make_all(request.detectors)
    if request.hidden and not isinstance(trained, DHCP):
        raise ValueError(f"--hidden is of dhcp's network, and {request.trained} is trained: leave it out.")
    if trained and request.task == "captions" and getattr(trained, "rows", "") == "mean":
        raise ValueError(
            f'{request.trained} judges whole answers: train it on --task pope, or "dhcp:rows=own" on words.'
        )
    request.examples("test")
    atomic.write_json(Path(out) / REQUEST, request.record())
    return out


def fit(out: str) -> str:
    """Train the detector on the units of the training part and save it in the folder, which is returned.

    Raises:
        ValueError: too few units, or all of one kind.
    """
    import torch

    from ...detectors.dhcp import DHCP
    from ...pipelines.registry import DETECTORS

    request = Detection.read(out)
    lvlm = load(request.model)
    detector = replace(DETECTORS.make(request.trained), weights=None)
    features, labels, groups, counts = [], [], [], []
    for pairs, record in records(out, "train", [detector]):
        known = detector.token_features(record).float().cpu()
        for place, (example, row) in enumerate(pairs):
            for unit, label in trained_units(request, detector, example, row):
                features.append(known[place, list(unit.tokens)].mean(0))
                labels.append(label)
                counts.append(unit.weight)
                groups.append(example.image_id)
    if len(set(labels)) < 2:
        raise ValueError(f"{len(labels)} units of {request.images} images are all alike; train on more images.")
    more: dict[str, Any] = {"classes": request.classes} if isinstance(detector, DHCP) else {}
    more |= {"hidden": request.hidden} if isinstance(detector, DHCP) and request.hidden else {}
    more |= {"counts": counts} if len(set(counts)) > 1 else {}
    fitted = detector.fit(torch.stack(features), labels, groups, lvlm=lvlm, seed=request.seed, **more)
    data = {
        "task": request.task, "unit": _unit(request, detector),
        "source": request.source("train", request.images).name, "images": len(set(groups)),
        "texts_sha256": atomic.digest(texts_path(out, "train")),
    }  # fmt: skip
    return str(fitted.save_pretrained(out, data=data))


def rate(out: str) -> str:
    """Write risks.json: the risk of every unit of the test part by every detector. Returns its path."""
    from ...pipelines.generate import ready
    from ...pipelines.registry import DETECTORS
    from ...pipelines.risk.asking import asks

    request = Detection.read(out)
    lvlm = load(request.model)
    names = list(dict.fromkeys(["position", *request.detectors, *_own(request, out)]))
    instances = dict(zip(names, DETECTORS.make_all(names), strict=True))
    again = {name: one for name, one in instances.items() if asks(one)}
    along = {name: ready([one], lvlm)[0] for name, one in instances.items() if name not in again}
    detectors = {name: again[name] if name in again else along[name] for name in names}
    none = lambda: {"labels": [], "images": [], "risks": {name: [] for name in names}}
    found: dict[str, Any] = {**none(), "positions": [], "questions": [], "sentences": none()}
    for number, together in enumerate(_rounds(along)):
        for pairs, record in records(out, "test", list(together.values())):
            risks = {name: detector.score(record) for name, detector in together.items()}
            for place, (example, row) in enumerate(pairs):
                of_row = {name: risk[place].tolist() for name, risk in risks.items()}
                _append(found, request, example, row, together, of_row, first=not number)
    for together in _rounds(again):
        for pairs, anew in risks_of_texts(out, "test", list(together.values())):
            for (example, row), risk in zip(pairs, anew, strict=True):
                of_row = {name: risk[DETECTORS.name_of(detector)] for name, detector in together.items()}
                _append(found, request, example, row, together, of_row)
    found["detectors"] = {
        name: {"repr": repr(one), "probability": bool(getattr(one, "is_probability", False)), "trained": _trained(one)}
        for name, one in detectors.items()
    }
    path = Path(out) / RISKS
    atomic.write_json(path, found)
    return str(path)


def measure(out: str) -> str:
    """Figures with intervals from risks.json, into results.json and, where one was trained, its config.json."""
    return measured(out)


def save(out: str, folder: str) -> str:
    """The trained detector of a run, its figures included, alone in another folder, which is returned."""
    from ...detectors.trained import CONFIG, TENSORS

    Path(folder).mkdir(parents=True, exist_ok=True)
    for name in (CONFIG, TENSORS):
        shutil.copyfile(Path(out) / name, Path(folder) / name)
    return folder


Step = Callable[..., str]


@dataclass(frozen=True)
class Steps:
    """The steps, plain or as tasks of a flow."""

    prepare: Step = prepare
    write_texts: Step = write_texts
    fit: Step = fit
    rate: Step = rate
    measure: Step = measure


LOGGED = Steps(logged(prepare, 1), logged(write_texts), logged(fit), logged(rate), logged(measure))


def detection(request: Detection, out: str, steps: Steps = Steps()) -> str:
    """Train a detector, if one is named, and evaluate detectors on images outside its training. Returns the folder.

    The same request in the same folder continues where an earlier run stopped.
    """
    out = str(out)
    steps.prepare(request, out)
    if request.trained:
        steps.write_texts(out, "train")
        steps.fit(out)
    steps.write_texts(out, "test")
    steps.rate(out)
    steps.measure(out)
    return out


# -- helpers -------------------------------------------------------------------------------------------------------
def _append(
    found: dict[str, Any], request: Detection, example: Any, row: Mapping[str, Any], detectors: Mapping[str, Any],
    risks: Mapping[str, list[float]], first: bool = False,
) -> None:  # fmt: skip
    """Add the units of a text, and a caption's sentences: their risks by the detectors, and, with `first`, the rest."""
    from ...pipelines.inputs.text_alignment import risk_of

    units_of = evaluated_units(request, example, row)
    for unit in units_of:
        for name, detector in detectors.items():
            last = getattr(detector, "decides_at", "first") == "last"
            found["risks"][name].append(risks[name][unit.tokens[-1 if last else 0]])
        if first:
            found["labels"].append(unit.label)
            found["images"].append(example.image_id)
            found["positions"].append(unit.tokens[0])
            found["questions"].append(example.question or "")
    if request.task != "captions":
        return
    whole = found["sentences"]
    for unit in sentence_units(row["text"], row["tokens"], units_of):
        for name in detectors:
            whole["risks"][name].append(risk_of([risks[name][token] for token in unit.tokens], "max"))
        if first:
            whole["labels"].append(unit.label)
            whole["images"].append(example.image_id)


def _rounds(detectors: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Detectors that read together: two of one class would read under one name, so they take turns."""
    out: list[dict[str, Any]] = []
    for name, detector in detectors.items():
        free = (part for part in out if type(detector) not in map(type, part.values()))
        part = next(free, None)
        if part is None:
            out.append(part := {})
        part[name] = detector
    return out


def _unit(request: Detection, detector: Any) -> str:
    """What a detector is trained on."""
    if request.task == "pope":
        return "answers"
    return "captions" if getattr(detector, "is_before", False) else request.unit


def _own(request: Detection, out: str) -> list[str]:
    """The name of the trained detector, with its weights in the folder."""
    if not request.trained:
        return []
    name, _, fields = request.trained.partition(":")
    kept = [field for field in fields.split(",") if field and not field.startswith("weights=")]
    return [f"{name}:{','.join([*kept, f'weights={json.dumps(str(out))}'])}"]


def _trained(detector: Any) -> str | None:
    """The units that it was trained on, if it was trained."""
    if getattr(detector, "probe", None) is None:
        return None
    return str(detector.about.get("data", {}).get("unit", "unknown"))
