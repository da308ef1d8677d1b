"""The request of an evaluation: one frozen object of plain values, as Prefect shows it and a manifest keeps it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from ...pipelines.chain import chain
from ...pipelines.method_text import texts_of
from ...pipelines.model.spec import ModelSpec
from ..benchmarks.base import Source
from ..files import atomic

MANIFEST, RESULTS, REPORT = "manifest.json", "results.json", "report.html"
ATTENTION_MAPS = 100  # one more pass for each of their texts: of 500 images about a fiftieth of the time of captions


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation measures: decoders of one model on benchmarks.

    Args:
        decoders: a row of the tables each: "greedy", "vista:strength=0.1", or several joined by "+", which compose in
            that order; a name that is given twice counts once. An instance becomes the text that names it.
        detectors: as decoders; the risk of every token is kept with its answer.
        benchmarks: names in `benchmarks.registry.BENCHMARKS`.
        source: where the examples come from, how questions are put and how answers are read.
        batch_size: images at a time.
        generation: what transformers' generate takes, over the benchmark's own number of new tokens.
        attention_maps: for how many examples of each benchmark the attention over the image is read after the answers,
            for the report; it decides no answer, and costs one forward pass for each of their texts.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}  # where Prefect validates a parameter

    model: ModelSpec = field(default_factory=lambda: ModelSpec("embedded"))
    decoders: Sequence[str] = ("greedy",)
    detectors: Sequence[str] = ()
    benchmarks: Sequence[str] = ("pope", "chair")
    source: Source = field(default_factory=Source)
    batch_size: int = 16
    generation: Mapping[str, Any] = field(default_factory=dict)
    attention_maps: int = ATTENTION_MAPS

    def __post_init__(self) -> None:
        for name in ("decoders", "detectors", "benchmarks"):
            if isinstance(value := getattr(self, name), str):
                raise ValueError(f"{name}={value!r} is one text where a list is needed: write [{value!r}].")
        object.__setattr__(self, "decoders", tuple(dict.fromkeys(texts_of(self.decoders))))
        object.__setattr__(self, "benchmarks", tuple(dict.fromkeys(self.benchmarks)))
        object.__setattr__(self, "detectors", texts_of(self.detectors))

    def check(self) -> None:
        """Refuse an empty request and names that do not exist.

        Raises:
            UnknownName, UnknownBenchmark, ValueError: with near names, and all known ones.
        """
        from ...pipelines.registry import DETECTORS
        from ..benchmarks.registry import BENCHMARKS

        for what, names in (("decoder", self.decoders), ("benchmark", self.benchmarks)):
            if not names:
                raise ValueError(f"no {what} to run; name at least one.")
        if self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size} is below 1 (images at a time).")
        if self.attention_maps < 0:
            raise ValueError(f"attention_maps={self.attention_maps} is below 0 (examples with overlays in a report).")
        for decoder in self.decoders:
            chain(decoder, self.model.name)
        DETECTORS.make_all(self.detectors)
        for name in self.benchmarks:
            BENCHMARKS[name]

    @classmethod
    def read(cls, folder: str | Path) -> Evaluation:
        """The request in the manifest of a folder.

        Raises:
            FileNotFoundError, ValueError: it holds no evaluation.
        """
        return cls.from_record(atomic.read_json(Path(folder) / MANIFEST)["request"])

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Evaluation:
        """The request that a manifest keeps, with the fields of the model beside the others."""
        return cls(
            ModelSpec.from_record(record), record["decoders"], record["detectors"], record["benchmarks"],
            Source(**record["source"]), record["batch_size"], dict(record["generation"]),
            record.get("attention_maps", ATTENTION_MAPS),
        )  # fmt: skip

    def record(self) -> dict[str, Any]:
        """The reverse of `from_record`."""
        model = self.model.record()
        late = {name: model.pop(name) for name in ("quantization", "attention")}
        more = {} if self.attention_maps == ATTENTION_MAPS else {"attention_maps": self.attention_maps}
        return {
            "model": model.pop("model"), "decoders": list(self.decoders), "detectors": list(self.detectors),
            "benchmarks": list(self.benchmarks), "source": asdict(self.source), "batch_size": self.batch_size,
            **model, "generation": dict(self.generation), **late, **more,
        }  # fmt: skip


# -- decoders ------------------------------------------------------------------------------------------------------
def shown(decoder: str, model: str = "") -> str:
    """The configuration behind a decoder's name, defaults included: the paper's own for this model, if it has some."""
    return " + ".join(map(repr, chain(decoder, model))) or "plain decoding"
