"""What some decoders find once, on a model, and use for every input: tensors in a folder, bound to that model.

A folder holds config.json and directions.safetensors; nothing in it is run.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Self, cast

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..pipelines.method import Decoder, ruled
from ..pipelines.model.fitted_folder import fitted_folder
from ..pipelines.model.identity import misfit, shipped_directions

CONFIG, TENSORS, VERSION, SHIPPED = "config.json", "directions.safetensors", 1, "shipped"
MOST_CONFIG, MOST_TENSORS = 1 << 20, 1 << 31  # bytes


class OtherModel(ValueError):
    """Directions were fitted on another model; the message names what differs."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """Tensors that a decoder has found on a model. about: the model and how they were found."""

    tensors: Mapping[str, Tensor]
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 over names, shapes and numbers."""
        digest = hashlib.sha256()
        for name, value in sorted(self.tensors.items()):
            digest.update(f"{name} {tuple(value.shape)}".encode() + value.detach().float().cpu().numpy().tobytes())
        return digest.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fitted) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Fitted(sha256={self.digest[:16]!r})"

    def on(self, lvlm: Any) -> Fitted:
        """These tensors, if they were found on this model or nothing is known of where.

        Raises:
            OtherModel: they were found on another one.
        """
        if "model" in self.about and (why := misfit(self.about["model"], lvlm)):
            raise OtherModel(f"directions do not fit this model: they were {why}. Fit them on it: `veridical fit`.")
        return self


def weights_field() -> Any:
    """Where a decoder's tensors come from: a folder, a Hub id, or anything with `on(lvlm)`."""

    def kept(name: str, value: Any) -> Any:
        if isinstance(value, Path | str):
            return str(value)
        if not callable(getattr(value, "on", None)):
            raise ValueError(f"{name}={value!r} is no folder or Hub id of `veridical fit`, and no fitted directions.")
        return value

    possible = '"shipped", a folder, a Hub id, or fitted directions'
    note = "By default those shipped for the embedded models; `veridical fit` makes them for others."
    return ruled(None, "what was fitted on the model", possible, note, kept)


class Fits(Decoder):
    """A decoder whose field `weights` says where its tensors come from.

    None: the shipped ones where they fit the model, else an error that says how to fit.
    """

    weights: Any
    fits: ClassVar[str]  # the registered name, under which a folder is saved

    def fitted(self, lvlm: Any) -> Fitted:
        """The tensors for a model.

        Raises:
            OtherModel: they were found on another model. ValueError: there are none, or a folder of another decoder.
            FileNotFoundError: no such folder.
        """
        if isinstance(self.weights, str) and self.weights != SHIPPED:
            return read(self.fits, self.weights).on(lvlm)
        if self.weights not in (None, SHIPPED):
            return self.weights.on(lvlm)
        folder = shipped_directions(self.fits, lvlm)
        if folder is None:
            raise ValueError(
                f"{self.fits} needs directions that were fitted on the model, and none are shipped for {lvlm.name!r}. "
                f"Fit them: `veridical fit {self.fits} --model {lvlm.name} --pairs FILE --out FOLDER`, then use "
                f'"{self.fits}:weights=FOLDER".'
            )
        return read(self.fits, str(folder))

    def save_pretrained(self, folder: str | Path, **about: Any) -> Path:
        """Write config.json and directions.safetensors. about: more to record, such as data.

        Raises:
            ValueError: nothing was fitted; the tensors are in a folder already.
        """
        if not isinstance(self.weights, Fitted):
            raise ValueError(f"{self!r} holds no directions to save: fit it first.")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({n: v.detach().cpu().contiguous() for n, v in self.weights.tensors.items()}, folder / TENSORS)
        versions = {name: importlib.metadata.version(name) for name in ("veridical", "torch", "transformers")}
        config = {"format": VERSION, "decoder": self.fits, **self.weights.about, **about, "versions": versions}
        (folder / CONFIG).write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return folder

    @classmethod
    def from_pretrained(cls, where: str | Path, **fields: Any) -> Self:
        """The decoder with what `save_pretrained` wrote, from a folder or a Hub id.

        Raises:
            FileNotFoundError: neither. ValueError: the folder of another decoder, or of a newer format.
        """
        read(cls.fits, str(where))
        return cast(Any, cls)(weights=str(where), **fields)


def read(name: str, where: str) -> Fitted:
    """What was saved for a decoder in a folder or a Hub repository; errors as `Fits.from_pretrained`."""
    folder = fitted_folder(where, (CONFIG, TENSORS), "fitted directions")
    return _read(name, folder, tuple((folder / file).stat().st_mtime_ns for file in (CONFIG, TENSORS)))


@lru_cache(maxsize=8)
def _read(name: str, folder: Path, changed: tuple[int, ...]) -> Fitted:
    for file, most in ((CONFIG, MOST_CONFIG), (TENSORS, MOST_TENSORS)):
        if (size := (folder / file).stat().st_size) > most:
            raise ValueError(f"{folder / file} has {size:,} bytes; possible: up to {most:,}.")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        decoder, version, _ = config["decoder"], config["format"], config["model"]["weights"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / CONFIG} is not the configuration of fitted directions ({error!r}).") from error
    if decoder != name:
        raise ValueError(f"{folder} holds directions of {decoder!r}, not of {name!r}.")
    if not isinstance(version, int) or version > VERSION:
        raise ValueError(f"{folder} has format {version}; this version reads up to {VERSION}: update veridical.")
    try:
        tensors = load_file(folder / TENSORS)
    except SafetensorError as error:
        raise ValueError(f"{folder / TENSORS} is no safetensors file that can be read ({error}).") from error
    if broken := [key for key, value in tensors.items() if not value.isfinite().all()]:
        raise ValueError(f"{folder / TENSORS}: {broken[0]} has numbers that are NaN or infinite; fit it again.")
    return Fitted(tensors, {key: value for key, value in config.items() if key not in ("format", "decoder")})
