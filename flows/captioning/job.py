"""A captioning job as its folder has it: what was asked for, the plan, and where its files are."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...pipelines.model.spec import ModelSpec, load
from ..evaluation import answer_file, provenance
from ..evaluation.manifest import about_model
from ..evaluation.request import shown
from ..files import atomic
from .image_loader import Limits
from .images import Picture

if TYPE_CHECKING:
    from ...pipelines.lvlm import LVLM

JOB, PLAN, LEDGER, SHARDS = "job.json", "plan.parquet", "ledger.jsonl", "shards"
SUMMARY, ERRORS, TIMINGS, CAPTIONS = "summary.json", "errors.jsonl", "timings.jsonl", "captions"


@dataclass(frozen=True)
class Request:
    """Everything that was asked for, in plain values. Names as the options of `veridical caption`.

    form: "parquet" or "jsonl". readers: threads that read and decode images; they decide nothing.
    """

    sources: Sequence[str]
    model: str
    decoders: Sequence[str]
    detectors: Sequence[str]
    question: str
    system: str | None
    seed: int
    batch_size: int
    shard_size: int
    form: str
    max_pixels: int
    max_bytes: int
    allow_urls: bool
    readers: int
    device: str
    dtype: str
    revision: str | None
    generation: Mapping[str, Any]
    quantization: str | None = None
    attention: str | None = None

    @property
    def limits(self) -> Limits:
        return Limits(self.max_pixels, self.max_bytes, self.allow_urls)

    def load(self) -> LVLM:
        """The model, once per process."""
        return load(ModelSpec.from_record(vars(self)))


@dataclass(frozen=True)
class Job:
    """A job's folder. settings: all that its captions depend on, and `settings_sha256` over it."""

    out: Path
    request: Request
    settings: Mapping[str, Any]
    settings_sha256: str
    images: int

    @classmethod
    def read(cls, out: str | Path) -> Job:
        """As the folder has it.

        Raises:
            FileNotFoundError, ValueError: it holds no job.
        """
        told = answer_file.read_json(Path(out) / JOB)
        return cls(Path(out), Request(**told["request"]), told["settings"], told["settings_sha256"], told["images"])

    @property
    def shards(self) -> int:
        return math.ceil(self.images / self.request.shard_size)

    def pictures(self, shard: int) -> list[tuple[int, Picture]]:
        """The images of a shard with their places in the plan, from 0."""
        start = shard * self.request.shard_size
        table = _plan(self.out / PLAN, self.settings["plan_sha256"]).slice(start, self.request.shard_size)
        rows = zip(table["id"].to_pylist(), table["path"].to_pylist(), strict=True)
        return [(start + k, Picture(name, os.fsdecode(path))) for k, (name, path) in enumerate(rows)]

    def shard_path(self, shard: int) -> Path:
        """Where a shard's rows are. Names of files are numbers: no id can lead out of the folder."""
        return self.out / SHARDS / f"{shard:06d}.{self.request.form}"

    @property
    def captions_path(self) -> Path:
        return self.out / f"{CAPTIONS}.{self.request.form}"


def ledger(task: Job, shard: int | None = None) -> dict[int, dict[str, Any]]:
    """The line about each shard whose file is there as the line says; other shards have to be made again.

    A line is written before its file. Where a shard was made twice, the one that its file agrees with counts: a kill
    between the two leaves what was there before.

    Args:
        shard: only this one.
    """
    found: dict[int, dict[str, Any]] = {}
    there: dict[int, str | None] = {}
    for line in atomic.lines(task.out / LEDGER):
        number = line["shard"]
        if shard is not None and number != shard:
            continue
        if number not in there:
            there[number] = atomic.digest(task.shard_path(number))
        if line["sha256"] == there[number]:
            found[number] = line
    return dict(sorted(found.items()))


def write_plan(path: Path, pictures: Sequence[Picture]) -> str:
    """Write which images there are, in their order. Returns the file's SHA-256.

    Paths are bytes, as the system has them.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names, paths = [picture.id for picture in pictures], [os.fsencode(picture.path) for picture in pictures]
    table = pa.table({"id": pa.array(names, pa.string()), "path": pa.array(paths, pa.binary())})
    with atomic.replacing(path) as file:
        pq.write_table(table, file, compression="zstd")
    return str(atomic.digest(path))


def sha256_of(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


@lru_cache(maxsize=2)
def _plan(path: Path, sha256: str) -> Any:
    import pyarrow.parquet as pq

    if atomic.digest(path) != sha256:
        raise ValueError(f"{path} is not the plan that this job was begun with; choose another --out")
    return pq.read_table(path)


def settings_of(request: Request, lvlm: LVLM, plan_sha256: str, list_sha256: str | None) -> dict[str, Any]:
    """All that a job's files depend on, in plain values.

    Batch and shard size are among them: a batch's other images may change the last bits of a logit.
    """
    from ...pipelines.registry import DETECTORS

    versions = provenance.versions()
    asked = lvlm.settings(request.question, [], [], request.system, dict(request.generation))
    return {
        **about_model(lvlm), "question": request.question, "system": request.system, "prompt": asked["prompt"],
        "decoders": {name: shown(name, request.model) for name in request.decoders},
        "detectors": {name: repr(DETECTORS.make(name)) for name in request.detectors},
        "generation": dict(request.generation), "seed": request.seed, "batch size": request.batch_size,
        "shard size": request.shard_size, "format": request.form, "largest image": request.max_pixels,
        "largest file": request.max_bytes, "URLs": request.allow_urls, "sources": list(request.sources),
        "list_sha256": list_sha256, "plan_sha256": plan_sha256,
        **{f"version of {name}": versions[name] for name in ("veridical", "torch", "transformers", "pillow")},
    }  # fmt: skip
