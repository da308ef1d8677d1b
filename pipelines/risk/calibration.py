"""Calibrations of detectors: which one fits a detector and a model, and an answer's risks as probabilities.

A calibration is a file: calibration.json beside a detector's probe, or one of several in a folder, `LVLM.calibrations`;
those of the embedded model's detectors come with veridical. It holds a curve for each unit that was measured: a mention
of an object ("words"), a sentence, a yes/no answer. It speaks of plain greedy decoding, and is not used otherwise.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...metrics.calibration import Curve
from ..inputs.text_alignment import risk_of, sentences
from ..model.identity import misfit
from ..registry import DETECTORS

if TYPE_CHECKING:
    from ..results import Answer

FILE, SHIPPED_FOLDER, VERSION = "calibration.json", "calibrations", 1
MOST = 1 << 22  # bytes
UNITS = ("words", "sentences", "answers")
PLAIN = {"do_sample": (False, None), "num_beams": (1, None)}


@dataclass(frozen=True)
class Calibration:
    """How a detector's risks become probabilities.

    curves: unit -> curve. fields: of the detector; trained: whether it had a probe. model: what it was measured on.
    data: on how many images and items, and the calibration error on others.
    """

    detector: str
    fields: Mapping[str, Any]
    trained: bool
    model: Mapping[str, Any]
    curves: Mapping[str, Curve]
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def save(self, path: Path) -> Path:
        """Write the file, which is returned."""
        path.parent.mkdir(parents=True, exist_ok=True)
        record = {
            "format": VERSION, "detector": self.detector, "fields": dict(self.fields), "trained": self.trained,
            "model": dict(self.model), "curves": {unit: curve.record() for unit, curve in self.curves.items()},
            "data": dict(self.data),
        }  # fmt: skip
        path.write_text(json.dumps(record, ensure_ascii=False) + "\n", encoding="utf-8")
        return path

    def fits(self, detector: Any, lvlm: Any) -> bool:
        """Whether it was measured for such a detector on this model."""
        same = self.detector == DETECTORS.name_of(detector) and dict(self.fields) == fields_of(detector)
        return same and self.trained == is_trained(detector) and misfit(self.model, lvlm) is None


def check_folder(folder: str) -> None:
    """Raise unless a folder holds calibrations.

    Raises:
        FileNotFoundError: no folder, or none in it. ValueError: a file that is none.
    """
    there = Path(folder).expanduser()
    if not (paths := sorted(there.glob("*.json"))):
        names = sorted(path.name for path in there.iterdir()) if there.is_dir() else ["no such folder"]
        raise FileNotFoundError(
            f"no calibrations in {folder}: looked for *.json; found {', '.join(names) or 'nothing'}. "
            "`veridical calibrate-detectors` writes them."
        )
    for path in paths:
        read(path)


def read(path: Path) -> Calibration:
    """A calibration of a file.

    Raises:
        ValueError: the file is too large, no JSON, of a newer format, or lacks something.
    """
    return _read(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _read(path: Path, changed: int) -> Calibration:
    try:
        if (size := path.stat().st_size) > MOST:
            raise ValueError(f"it has {size:,} bytes; possible: up to {MOST:,}")
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record["format"], int) or record["format"] > VERSION:
            raise ValueError(f"it has format {record['format']}; this version reads up to {VERSION}: update veridical")
        curves = {unit: Curve.of(record["curves"][unit]) for unit in UNITS if unit in record["curves"]}
        return Calibration(
            str(record["detector"]), dict(record["fields"]), bool(record["trained"]), dict(record["model"]), curves,
            dict(record["data"]),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is no calibration of a detector: {str(error).rstrip('.')}.") from error


def fields_of(detector: Any) -> dict[str, Any]:
    """A detector's settings as JSON keeps them, but for where its probe comes from."""
    fields = dataclasses.fields(detector)
    plain = {field.name: getattr(detector, field.name) for field in fields if field.name != "weights"}
    return json.loads(json.dumps(plain, default=repr))


def is_trained(detector: Any) -> bool:
    """Whether it reads with a probe."""
    return getattr(detector, "weights", None) not in (None, "none") or getattr(detector, "probe", None) is not None


def calibration_of(detector: Any, lvlm: Any) -> Calibration | None:
    """The calibration beside the detector's own probe, else one of the model's `calibrations`, else a shipped one."""
    from ...models import DETECTORS as SHIPPED

    weights = getattr(detector, "weights", None)
    own = [] if weights in (None, "none", "shipped") else [Path(str(weights)).expanduser() / FILE]
    folder = getattr(lvlm, "calibrations", None)
    others = sorted(Path(folder).expanduser().glob("*.json")) if folder else []
    for path in (*own, *others, *([] if own else sorted((SHIPPED / SHIPPED_FOLDER).glob("*.json")))):
        if path.is_file() and (found := read(path)).fits(detector, lvlm):
            return found
    return None


def add_probabilities(
    lvlm: Any, chain: Sequence[Any], detectors: Sequence[Any], generation: Mapping[str, Any], answers: Sequence[Answer]
) -> None:
    """Give answers the probabilities of detectors that have a calibration; chain: of decoders, which leave them out.

    An answer that begins with yes or no has the probability that it is wrong, at each token. In any other text a token
    has the probability that the mention of an object which begins there is hallucinated, and a sentence that it holds
    one.
    """
    if chain or any(generation.get(name) not in plain for name, plain in PLAIN.items()):
        return
    for detector in detectors:
        if (found := calibration_of(detector, lvlm)) is None:
            continue
        name = DETECTORS.name_of(detector)
        for answer in answers:
            risk = answer.risk.get(name, [])
            if answer.error is not None or not risk:
                continue
            words = answer.text.lower().replace(",", " ").replace(".", " ").split()
            if words[:1] in (["yes"], ["no"]):
                if curve := found.curves.get("answers"):
                    at = -1 if getattr(detector, "decides_at", "first") == "last" else 0
                    answer.probability[name] = curve([risk[at]] * len(risk)).tolist()
                continue
            if curve := found.curves.get("words"):
                answer.probability[name] = curve(risk).tolist()
            if curve := found.curves.get("sentences"):
                parts = [risk[one.first : one.last] for one in sentences(answer.text, answer.tokens)]
                answer.sentence_probability[name] = curve([risk_of(part, "max") for part in parts]).tolist()
