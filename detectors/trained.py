"""The base of detectors with a probe: choosing it for a model, fitting it, saving and loading it.

A saved detector is a folder (or a Hub repository) with config.json and detector.safetensors; none of it is executed.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..pipelines.method import Detector, ruled
from ..pipelines.model.fitted_folder import fitted_folder
from ..pipelines.model.identity import identity, misfit, shipped
from . import saved
from .probe import Probe

CONFIG, TENSORS, VERSION = "config.json", "detector.safetensors", 1
SHIPPED = "shipped"
_PACKAGES = ("veridical", "torch", "transformers", "scikit-learn")


def weights_field(elsewhere: str) -> Any:
    """The field of a detector that names the source of its probe."""
    note = f"shipped is that of an embedded LVLM, and {elsewhere}."
    return ruled(SHIPPED, "the probe", '"shipped", a folder, a Hub id, or None for an untrained detector', note)


class OtherModel(ValueError):
    """A detector was trained on another model; the message names what differs."""


class Trained(Detector):
    """A detector that can be trained. Its field `weights` names the source of the probe.

    "shipped": the one that comes with veridical, where it fits the model; a folder or Hub id; None: untrained.
    probe: the classifier, None before `fit`, `from_pretrained` or `for_model`. about: how it was trained. Both count
    when two detectors are compared, so a subclass is a dataclass with eq=False.
    """

    name: ClassVar[str]
    kind: ClassVar[str]
    needs_probe: ClassVar[bool] = False
    weights: str | None
    probe: Probe | None = None
    about: Mapping[str, Any] = {}

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._compared() == cast(Self, other)._compared()

    def __hash__(self) -> int:
        return hash((type(self), repr(self), self.probe))

    @property
    def is_probability(self) -> bool:
        """Whether the risk is a probability, 0 to 1."""
        return self.probe is not None

    def for_model(self, lvlm: Any) -> Self:
        """This detector with its probe, checked against the model.

        Raises:
            OtherModel: the probe was trained on another model, or for another number of features.
            ValueError: no probe, and this detector needs one.
        """
        ready = self
        if self.probe is None and self.weights == SHIPPED:
            folder = shipped(self.name, lvlm)
            found = type(self).from_pretrained(folder) if folder else None
            if found is not None and not self._other_fields(found):
                return self._with(found.probe, found.about)
        elif self.probe is None and self.weights not in (None, "none"):
            found = type(self).from_pretrained(str(self.weights))
            if other := self._other_fields(found):
                raise ValueError(
                    f"{self.weights} was trained with other settings: {'; '.join(other)}. Give the same: "
                    f'"{self.name}:{",".join([*found._settings(), f"weights={self.weights}"])}".'
                )
            ready = self._with(found.probe, found.about)
        if ready.probe is None and self.needs_probe:
            raise ValueError(
                f"{self.name} needs a trained probe, and none is shipped for {lvlm.name!r}. Train one: `veridical "
                f'train-detector --model {lvlm.name} --detector {self.name} --out FOLDER`, then use "{self.name}:'
                'weights=FOLDER".'
            )
        if ready.probe is not None and "model" in ready.about and (why := misfit(ready.about["model"], lvlm)):
            raise OtherModel(f"the probe of {ready.name} does not fit this model: it was {why}. Train one for it.")
        if ready.probe is not None and ready.probe.size not in (sizes := ready.sizes(lvlm, ready.probe.size)):
            raise OtherModel(
                f"the probe of {ready.name} reads {ready.probe.size} features, and of this model it would get "
                f"{' or '.join(map(str, sizes))}: train one for it."
            )
        return ready

    def sizes(self, lvlm: Any, size: int) -> Sequence[int]:
        """The numbers of features that a probe can have for a model. size: that of the probe at hand."""
        return [len(lvlm.layers) * lvlm.heads]

    # -- files --------------------------------------------------------------------------------------------------------
    def save_pretrained(self, folder: str | Path, **about: Any) -> Path:
        """Write config.json and detector.safetensors. about: more to record, such as data and metrics.

        Raises:
            ValueError: there is no probe.
        """
        if self.probe is None:
            raise ValueError(f"{self!r} has no probe to save: fit it first.")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: value.contiguous() for name, value in self.probe.tensors().items()}
        save_file(tensors, folder / TENSORS)
        config = {
            "format": VERSION, "detector": self.name, "probe": saved.kind_of(self.probe), "fields": self._fields(),
            **self.about, **about,
            "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        }  # fmt: skip
        (folder / CONFIG).write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return folder

    @classmethod
    def from_pretrained(cls, where: str | Path) -> Self:
        """A saved detector, from a folder or a Hub id.

        Raises:
            FileNotFoundError: neither. ValueError: the folder of another detector, or of a newer format.
        """
        folder = fitted_folder(str(where), (CONFIG, TENSORS), "weights of a detector")
        changed = tuple((folder / file).stat().st_mtime_ns for file in (CONFIG, TENSORS))
        return _read(cast(Any, cls), str(where), folder, changed)

    def _with(self, probe: Probe | None, about: Mapping[str, Any]) -> Self:
        fitted = copy.copy(self)
        object.__setattr__(fitted, "probe", probe)
        object.__setattr__(fitted, "about", about)
        return fitted

    def _fields(self) -> dict[str, Any]:
        """What the features depend on."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return {field.name: getattr(self, field.name) for field in fields if field.name != "weights"}

    def _compared(self) -> tuple[Any, ...]:
        return self._fields(), self.weights, self.probe, self.about

    def _settings(self) -> list[str]:
        return [f"{name}={value}" for name, value in self._fields().items()]

    def _other_fields(self, found: Trained) -> list[str]:
        mine, theirs = self._fields(), found._fields()
        return [f"{name} was {theirs[name]!r}, now {mine[name]!r}" for name in mine if theirs[name] != mine[name]]


def items(
    record: Any, features: Tensor, labels: Tensor, groups: Sequence[Any] | None
) -> tuple[Tensor, Tensor, list[Any]]:
    """The real tokens of a record as (items, feature), their labels, and the sample (or group) each is of."""
    samples = list(range(len(record.mask))) if groups is None else list(groups)
    whose = [samples[row] for row, _ in record.mask.nonzero().tolist()]
    return features[record.mask], labels[record.mask], whose


def prepared(features: Any, labels: Any, groups: Sequence[Any] | None) -> tuple[Tensor, Tensor, list[Any]]:
    """Features as float (item, feature), labels as whole numbers, and a group for each item."""
    known = torch.as_tensor(features).detach().float().flatten(1).cpu()
    truth = torch.as_tensor(labels).long().cpu()
    return known, truth, list(range(len(truth))) if groups is None else list(groups)


def training_record(lvlm: Any, features: Tensor, labels: Tensor, seed: int, **more: Any) -> dict[str, Any]:
    """The record that is kept with a probe: the model, the number of features, the items by class, and the seed."""
    return {
        "model": identity(lvlm), "features": features.shape[1], "items": len(labels),
        "classes": torch.bincount(labels).tolist(), "seed": seed, **more,
    }  # fmt: skip


@lru_cache(maxsize=8)
def _read(cls: Any, where: str, folder: Path, changed: tuple[int, ...]) -> Any:
    config = saved.read_config(folder / CONFIG)
    name, version = config["detector"], config["format"]
    if name != cls.name:
        raise ValueError(f"{where} holds a {name!r} detector, not {cls.name!r}.")
    if not isinstance(version, int) or version > VERSION:
        raise ValueError(f"{where} has format {version}; this version reads up to {VERSION}: update veridical.")
    try:
        detector = cls(**config["fields"], weights=where)
    except TypeError as error:
        raise ValueError(f"{folder / CONFIG} has other fields than a {cls.name!r} detector ({error}).") from error
    probe = saved.read_probe(folder / TENSORS, str(config.get("probe", cls.kind)), config.get("features"))
    about = {key: value for key, value in config.items() if key not in ("format", "detector", "probe", "fields")}
    return detector._with(probe, about)
