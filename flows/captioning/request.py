"""The request of a captioning job: what is captioned, by which model, with which methods, and how the work is cut."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ...datasets.captions import DETAIL_PROMPT
from ...pipelines.method_text import texts_of
from ...pipelines.model.spec import ModelSpec
from .globs import Globs

EMBEDDED = ModelSpec("embedded")
MAX_PIXELS, MAX_BYTES = 50_000_000, 100_000_000
ATTENTION_MAPS = 100
MOST_PIXELS = 178_956_970  # above it Pillow refuses by itself
FORMATS = {"parquet": ".parquet", "jsonl": ".jsonl", "csv": ".csv", "coco": ".json"}  # the merged file's
# What decides the rows and is known without a model; `device`, `dtype`, `attention` can be other words for the same.
_DECIDES = (
    "decoders", "detectors", "question", "system", "seed", "batch_size", "shard_size", "form", "max_pixels",
    "max_bytes", "generation",
)  # fmt: skip


@dataclass(frozen=True)
class Captioning:
    """A captioning job, in plain values. Names as the options of `veridical caption`.

    Args:
        sources: one folder, list or Parquet file; or image files.
        model: a specification, or its name alone.
        decoders: names; each image has a row for each. detectors: names. An instance becomes the text that names it.
        question, system: the prompt, the same for all images.
        seed: the image at place i of the plan is sampled with seed + i.
        shard_size: images of a file, and of what a kill can cost at most. form: one of FORMATS, of the merged file;
            shards are JSON lines but for "parquet".
        max_pixels, max_bytes: larger images become error rows.
        readers: threads that read and decode images; they decide nothing.
        generation: what transformers' generate takes, over greedy decoding of at most 128 tokens.
        attention_maps: of how many images the report shows the attention over the image; it is read after the captions,
            in one forward pass for each of these captions, and decides none of them. 0 reads none.
        include, exclude: globs on the paths below a folder, see `Globs`; () leaves nothing out.
    """

    sources: tuple[str, ...]
    model: ModelSpec = EMBEDDED
    decoders: tuple[str, ...] = ("greedy",)
    detectors: tuple[str, ...] = ()
    question: str = DETAIL_PROMPT
    system: str | None = None
    seed: int = 0
    batch_size: int = 8
    shard_size: int = 32
    form: str = "parquet"
    max_pixels: int = MAX_PIXELS
    max_bytes: int = MAX_BYTES
    readers: int = 4
    generation: Mapping[str, Any] = field(default_factory=dict)
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    attention_maps: int = ATTENTION_MAPS

    def __post_init__(self) -> None:
        sources = [self.sources] if isinstance(self.sources, str) else self.sources
        plain: dict[str, Any] = {
            "sources": tuple(map(str, sources)), "decoders": tuple(dict.fromkeys(texts_of(self.decoders))),
            "detectors": texts_of(self.detectors),
            "model": ModelSpec(self.model) if isinstance(self.model, str) else self.model,
            "generation": {"do_sample": False, "max_new_tokens": 128, **self.generation},
        }  # fmt: skip
        for name in ("include", "exclude"):
            globs = [given] if isinstance(given := getattr(self, name), str) else given
            plain[name] = tuple(sorted(set(globs)))  # their order decides nothing
        for name, value in plain.items():
            object.__setattr__(self, name, value)

    @property
    def globs(self) -> Globs:
        """Which images of a folder are taken."""
        return Globs(self.include, self.exclude)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Captioning:
        """The request that a job.json holds, also one of an earlier version, which knew more fields."""
        known = {name.name: record[name.name] for name in fields(cls) if name.name in record}
        return cls(**{**known, "model": ModelSpec.from_record(record)})

    def record(self) -> dict[str, Any]:
        """The reverse of `from_record`."""
        values = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "model"}
        values = {name: value for name, value in values.items() if value or name not in Globs._fields}
        if self.attention_maps == ATTENTION_MAPS:
            del values["attention_maps"]
        as_json = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        return {**as_json, **self.model.record(), "generation": dict(self.generation)}

    def check(self) -> None:
        """Refuse what needs no model to be known as wrong.

        Raises:
            ValueError: nothing to caption with or from, or a number out of range.
        """
        if not self.decoders or not self.sources:
            raise ValueError("a job needs at least one decoder and something to caption")
        if "" in (*self.include, *self.exclude):
            raise ValueError('an empty glob fits no image; give one such as "*.jpg" or "a/**"')
        for name in ("batch_size", "shard_size", "max_pixels", "max_bytes", "readers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is below 1")
        if self.attention_maps < 0:
            raise ValueError(f"attention_maps={self.attention_maps} is below 0 (images with overlays in the report)")
        if self.max_pixels > MOST_PIXELS:
            raise ValueError(f"max_pixels={self.max_pixels} is above {MOST_PIXELS}, where Pillow refuses by itself")
        if self.form not in FORMATS:
            raise ValueError(f"form={self.form!r} is neither of {', '.join(FORMATS)}")

    def decisive(self) -> dict[str, Any]:
        """What decides the rows and can be compared before a model is loaded, named as in the settings of a job."""
        values = self.record()
        return {
            "sources": [os.path.realpath(source) for source in self.sources], "model": self.model.name,
            "revision": self.model.revision, "quantization": self.model.quantization,
            **{name.replace("_", " "): values[name] for name in _DECIDES},
            **{name: values[name] for name in Globs._fields if name in values},
        }  # fmt: skip
