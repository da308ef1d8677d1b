"""The request of a detector's training and evaluation: one frozen object of plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from ...datasets.examples import Example
from ...pipelines.model.spec import ModelSpec
from ..benchmarks.base import Benchmark, Source
from ..benchmarks.registry import BENCHMARKS
from ..files import atomic

TASKS = {"captions": "chair", "pope": "pope"}
REQUEST, RISKS, RESULTS = "request.json", "risks.json", "results.json"
_LATE = ("quantization", "attention", "hidden")  # fields that stand in a stored request only where they are set


@dataclass(frozen=True)
class Detection:
    """What detectors are trained and evaluated on.

    Args:
        task: "captions", units are mentions of objects; or "pope", units are answers.
        detectors: evaluated on the test part, beside the position control and a random risk.
        trained: the detector to train, or None. unit: the units of a caption that it is trained on.
        classes: of the MLP on answers, 2 or 4. hidden: its units, None for the paper's 128.
        images, test_images: how many images; 0 for no training part.
        split, test_split: of the world, or of a COCO folder; a split that both parts share is divided by image.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}  # where Prefect validates a parameter

    task: str = "captions"
    detectors: Sequence[str] = ()
    trained: str | None = None
    unit: str = "words"
    classes: int = 2
    images: int = 0
    test_images: int = 1000
    model: ModelSpec = field(default_factory=lambda: ModelSpec("embedded"))
    coco: str | None = None
    split: str | None = None
    test_split: str | None = None
    synonyms: str | None = None
    seed: int = 0
    batch_size: int = 32
    max_new_tokens: int | None = None
    hidden: int | None = None

    @classmethod
    def read(cls, folder: str | Path) -> Detection:
        """The request that a folder keeps."""
        record = atomic.read_json(Path(folder) / REQUEST)
        own = {one.name: record[one.name] for one in fields(cls) if one.name in record and one.name != "model"}
        return cls(**own, model=ModelSpec.from_record(record))

    def record(self) -> dict[str, Any]:
        """The reverse of `read`: plain values, with the fields of the model beside the others."""
        out: dict[str, Any] = {}
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, ModelSpec):
                out |= {name: v for name, v in value.record().items() if name not in _LATE or v is not None}
            elif one.name not in _LATE or value is not None:
                out[one.name] = list(value) if one.name == "detectors" else value
        return out

    @property
    def benchmark(self) -> Benchmark:
        if self.task not in TASKS:
            raise ValueError(f'no task "{self.task}". Known: {", ".join(TASKS)}.')
        return BENCHMARKS[TASKS[self.task]]

    @property
    def tokens(self) -> int:
        """The largest number of new tokens of a text."""
        return self.max_new_tokens or self.benchmark.max_new_tokens

    def source(self, part: str, limit: int) -> Source:
        split = self.split if part == "train" else self.test_split
        default = None if self.coco else part
        return Source(
            coco=self.coco, split=split or default, limit=limit, seed=self.seed, synonyms=self.synonyms
        )

    def questions(self, examples: Sequence[Example]) -> list[str]:
        """The question of each example, or the benchmark's prompt."""
        return [example.question or self.benchmark.prompt or "" for example in examples]

    def examples(self, part: str) -> Sequence[Example]:
        """The examples of a part, "train" or "test".

        Raises:
            ValueError: the parts share an image.
        """
        same = self.images and self.source("train", 1).split == self.source("test", 1).split
        if same:  # one split for both: divided by image
            every = self.benchmark.examples(self.source("test", self.images + self.test_images))
            names = list(dict.fromkeys(example.image_id for example in every))
            tested = set(names[: self.test_images])
            return [e for e in every if (e.image_id in tested) == (part == "test")]
        sizes: Mapping[str, int] = {"train": self.images, "test": self.test_images}
        found = {p: self.benchmark.examples(self.source(p, n)) for p, n in sizes.items() if n}
        if len(found) == 2 and (shared := {e.image for e in found["train"]} & {e.image for e in found["test"]}):
            raise ValueError(
                f"{len(shared)} images are in the training and in the test part, such as {sorted(shared)[0]}: choose "
                "another --split or --test-split."
            )
        return found[part]
