"""What a benchmark is: where its examples come from, what its questions are, what is measured on the answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

from ...datasets import coco, seen
from ...datasets.coco import CocoFiles
from ...datasets.examples import POPE_SAMPLE, WORLD, Example
from ...metrics import pope
from ...metrics.chair import Chair
from ...metrics.counted import Counted
from ...metrics.estimate import Estimate

DEFAULT_LIMIT = POPE_SAMPLE


@dataclass(frozen=True)
class Source:
    """Where examples come from.

    Args:
        coco: a COCO folder; None is the embedded world.
        split: of either; None is the world's "test", or the folder's only held-out one.
        limit: number of images.
        seed: draws images and random negatives.
        synonyms: CHAIR's synonym file; None is the embedded world's vocabulary.
        prompt: the question about every image instead of CHAIR's own prompt.
        system: system prompt in front of every question. prompt_name: the names or texts that `--prompt` was given.
        suffix: follows every question; None is what the users of `pope` append.
        pope: how POPE's answers are read, one of `metrics.pope`'s protocols.
        images: a list of a COCO folder's images instead of a random draw: "first-500-sorted", or a file of ids or
            names; `limit` keeps the first ones.
        data: files of a benchmark's own, such as AMBER's folder, instead of the embedded world or a COCO folder.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}  # where Prefect validates a parameter

    coco: str | None = None
    split: str | None = None
    limit: int = DEFAULT_LIMIT
    seed: int = 0
    synonyms: str | None = None
    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    prompt_name: str | None = None
    pope: str = "official"
    images: str | None = None
    data: str | None = None

    def __post_init__(self) -> None:
        if self.images is not None and self.coco is None:
            raise ValueError(f"images={self.images!r} lists images of a COCO folder: name the folder too.")
        if self.data is not None and self.coco is not None:
            raise ValueError(f"data={self.data!r} and coco={self.coco!r} are two sources of questions: choose one.")
        if self.pope not in pope.READERS:
            raise ValueError(f"no POPE protocol {self.pope!r}. Known: {', '.join(pope.READERS)}.")

    @property
    def name(self) -> str:
        """As results call it."""
        if self.data:
            return f"files:{self.data}"
        return f"coco:{self.coco}@{self.files.split}" if self.coco else f"{WORLD}{self.split or 'test'}"

    @property
    def files(self) -> CocoFiles:
        return coco.find_coco(self.coco or "", self.split)

    @cached_property
    def chair(self) -> Chair:
        """The vocabulary in which captions are read."""
        return Chair(self.synonyms)

    def own(self, benchmark: str) -> None:
        """Refuse files for a benchmark that has none of its own.

        Raises:
            ValueError: `data` is given.
        """
        if self.data is not None:
            raise ValueError(f"{benchmark} has no files of its own for data={self.data!r}; it takes a COCO folder.")

    @cached_property
    def listed(self) -> str | tuple[int | str, ...] | None:
        """The list of images as `coco.choose` takes it; None where they are drawn at random."""
        if self.images is None or coco.FIRST.fullmatch(self.images):
            return self.images
        from ..scoring.files import read_ids

        return tuple(read_ids(Path(self.images)))


@dataclass(frozen=True)
class Mark:
    """A stretch of a text, (start, end) in characters, that is right or not."""

    start: int
    end: int
    right: bool


class Benchmark(Protocol):
    """A set of examples, one question for all of them or one each, and what is measured on the answers.

    version: changes whenever the same answers would score differently. prompt: the question of examples without one.
    unit: what one example is. tables: title -> metrics shown together. headline: the metrics for a narrow screen.
    """

    name: str
    version: str
    prompt: str | None = None
    max_new_tokens: int
    unit: str = "questions"
    higher_is_better: Mapping[str, bool]
    tables: Mapping[str, Sequence[str]]
    headline: Sequence[str]

    def examples(self, source: Source) -> Sequence[Example]: ...

    def estimates(self, source: Source, examples: Sequence[Example], texts: Sequence[str]) -> dict[str, Estimate]: ...

    def marks(self, source: Source, example: Example, text: str) -> list[Mark]: ...

    def counted(self, source: Source, examples: Sequence[Example], texts: Sequence[str]) -> Mapping[str, Counted]:
        """Title -> counts of the units that a paired comparison swaps: images, or groups of questions.

        Empty where the benchmark has no such comparison, or one of its own. A figure's name is the title, "_" and the
        name there; the title "" adds nothing.
        """
        return {}

    def protocol(self, source: Source) -> dict[str, Any]:
        """How answers are read, for the manifest."""
        return {"name": self.name}


def digest(examples: Sequence[Example]) -> str:
    """SHA-256 over questions and truth, in order."""
    rows = [
        [e.id, e.image_id, e.question, e.label, sorted(e.objects), list(e.splits), *_more(e)] for e in examples
    ]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def as_record(estimate: Estimate) -> dict[str, Any]:
    """value, low, high, n."""
    return dict(vars(estimate))


def _more(example: Example) -> list[Any]:
    """Fields that only some benchmarks use."""
    more = [example.after, example.words, dict(example.facts)]
    return more if any(more) else []


# -- what benchmarks share -----------------------------------------------------------------------------------------
def images(source: Source, what: int) -> Iterator[seen.Seen]:
    """The images of a source and what is in them; those of the embedded world have no end."""
    if source.coco is None:
        return seen.from_world(source.split or "test", source.seed, what)
    return seen.from_coco(source.coco, source.limit, source.seed, source.split, source.listed, what)


def followed(examples: Iterable[Example], suffix: str) -> tuple[Example, ...]:
    """The same with a suffix behind every question that has a right answer."""
    return tuple(replace(e, question=f"{e.question}{suffix}") if suffix and e.label else e for e in examples)
