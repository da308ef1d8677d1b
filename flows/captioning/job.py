"""A captioning job as its folder has it: the request, the plan, and where its files are."""

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

from ...pipelines.model import spec
from ..evaluation import answer_file
from ..files import atomic
from .images import ImageItem
from .request import FORMATS, Captioning

if TYPE_CHECKING:
    from ...pipelines.lvlm import LVLM

JOB, PLAN, LEDGER, SHARDS = "job.json", "plan.parquet", "ledger.jsonl", "shards"
SUMMARY, ERRORS, TIMINGS, CAPTIONS = "summary.json", "errors.jsonl", "timings.jsonl", "captions"
VERSION = 2  # of job.json; 1 had no version, knew --allow-urls, and hashed of a model's files the weights alone


class Damaged(ValueError):
    """A file of a job is not as it was written; the message says which, and what to do."""


@dataclass(frozen=True)
class Job:
    """A job's folder.

    settings: all that its captions depend on, and `settings_sha256` over it. plan: name of the file with the images,
    and its SHA-256, and list_sha256: that of a list; both are others than in the settings after images were added.
    """

    out: Path
    request: Captioning
    settings: Mapping[str, Any]
    settings_sha256: str
    images: int
    version: int = VERSION
    plan: tuple[str, str] | None = None
    list_sha256: str | None = None

    @classmethod
    def read(cls, out: str | Path) -> Job:
        """As the folder has it, also one that an earlier version has begun.

        Raises:
            FileNotFoundError: it holds no job. Damaged: job.json is not as it was written.
            OtherSettings: a later version has begun it.
        """
        path = Path(out) / JOB
        try:
            record = atomic.read_json(path)
            checksum = record.pop("sha256", None)
            if checksum not in (None, sha256_of(record)):
                raise KeyError("its checksum is another")
            if (version := record.get("version", 1)) > VERSION:
                raise answer_file.OtherSettings(
                    f"{path} has version {version}; this veridical reads up to {VERSION}: update it."
                )
            request = Captioning.from_record(record["request"])
            plan = tuple(record["plan"]) if "plan" in record else None
            return cls(
                Path(out), request, record["settings"], record["settings_sha256"], record["images"], version, plan,
                record.get("list_sha256"),
            )  # fmt: skip
        except answer_file.OtherSettings:
            raise
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise Damaged(
                f"{path} is damaged ({error}): start the command that began this job, which writes it again, or choose "
                "another --out"
            ) from error

    def write(self) -> None:
        """Write job.json."""
        record = {
            "version": self.version, "request": self.request.record(), "settings": dict(self.settings),
            "settings_sha256": self.settings_sha256, "images": self.images,
            **({} if self.plan is None else {"plan": list(self.plan)}),
            **({} if self.list_sha256 is None else {"list_sha256": self.list_sha256}),
        }  # fmt: skip
        atomic.write_json(self.out / JOB, {**record, "sha256": sha256_of(record)})

    def load(self) -> LVLM:
        """The model, once per process."""
        return spec.load(self.request.model)

    @property
    def listed(self) -> str | None:
        """SHA-256 of the list as it was when the plan was made or images were added; None for a folder or files."""
        known = self.list_sha256 or self.settings.get("list_sha256")
        return None if known is None else str(known)

    @property
    def shards(self) -> int:
        return math.ceil(self.images / self.request.shard_size)

    def size(self, shard: int) -> int:
        """The number of images of a shard."""
        return min(self.request.shard_size, self.images - shard * self.request.shard_size)

    def planned(self) -> Any:
        """The plan, a table of ids and paths."""
        name, sha256 = self.plan or (PLAN, self.settings["plan_sha256"])
        return _plan(self.out / name, sha256)

    def items(self, shard: int) -> list[tuple[int, ImageItem]]:
        """The images of a shard with their places in the plan, from 0."""
        start = shard * self.request.shard_size
        table = self.planned().slice(start, self.request.shard_size)
        rows = zip(table["id"].to_pylist(), table["path"].to_pylist(), strict=True)
        return [(start + k, ImageItem(name, os.fsdecode(path))) for k, (name, path) in enumerate(rows)]

    def shard_path(self, shard: int) -> Path:
        """Where a shard's rows are. Names of files are numbers: no id can lead out of the folder."""
        return self.out / SHARDS / f"{shard:06d}.{'parquet' if self.request.form == 'parquet' else 'jsonl'}"

    @property
    def captions_path(self) -> Path:
        return self.out / f"{CAPTIONS}{FORMATS[self.request.form]}"


def ledger(job: Job, shard: int | None = None) -> dict[int, dict[str, Any]]:
    """The line about each shard whose file is there as the line says; other shards have to be made again.

    A line whose checksum is another counts as absent.

    A line is written before its file. Where a shard was made twice, the one that its file agrees with counts: a kill
    between the two leaves what was there before.

    Args:
        shard: only this one.
    """
    found: dict[int, dict[str, Any]] = {}
    there: dict[int, str | None] = {}
    for line in atomic.lines(job.out / LEDGER).records:
        number = line["shard"]
        if (shard is not None and number != shard) or not 0 <= number < job.shards:
            continue
        if line["rows"] != job.size(number) * len(job.request.decoders):  # images were added to it
            continue
        if number not in there:
            there[number] = atomic.digest(job.shard_path(number))
        if line["sha256"] == there[number]:
            found[number] = line
    return dict(sorted(found.items()))


def remaining(job: Job, done: Mapping[int, Mapping[str, Any]], retry_errors: bool = False) -> list[int]:
    """Shards that are not finished, and with `retry_errors` those with an error. done: as `ledger` gives it."""
    return [n for n in range(job.shards) if n not in done or (retry_errors and done[n]["errors"])]


def finished(job: Job, retry_errors: bool = False) -> bool:
    """Whether nothing is left to do: every shard, the merged file and the summary are there and agree."""
    summary = job.out / SUMMARY
    if not summary.is_file() or remaining(job, ledger(job), retry_errors):
        return False
    try:
        return atomic.read_json(summary)["captions"]["sha256"] == atomic.digest(job.captions_path)
    except (ValueError, KeyError, TypeError):  # damaged: it is written again
        return False


def refuse_other(job: Job, different: str) -> None:
    """
    Raises:
        OtherSettings: the folder holds another job; says what differs, if anything does.
    """
    if different:
        raise answer_file.OtherSettings(
            f"{job.out} was begun with other settings: {different}. Choose another --out, or delete it."
        )


def refuse_other_request(job: Job, request: Captioning) -> None:
    """As `refuse_other`, by what is known before a model, PyTorch or Prefect is loaded."""
    refuse_other(job, answer_file.difference(job.request.decisive(), request.decisive()))


def sha256_of(record: Mapping[str, Any]) -> str:
    """SHA-256 over plain values."""
    return hashlib.sha256(json.dumps(record, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def write_plan(path: Path, items: Sequence[ImageItem]) -> str:
    """Write which images there are, in their order. Returns the file's SHA-256.

    Paths are bytes, as the system has them.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names, paths = [item.id for item in items], [os.fsencode(item.path) for item in items]
    table = pa.table({"id": pa.array(names, pa.string()), "path": pa.array(paths, pa.binary())})
    with atomic.replacing(path) as file:
        pq.write_table(table, file, compression="zstd")
    return str(atomic.digest(path))


def plan_length(path: Path) -> int:
    """The number of images of a plan."""
    import pyarrow.parquet as pq

    return int(pq.read_metadata(path).num_rows)


@lru_cache(maxsize=2)
def _plan(path: Path, sha256: str) -> Any:
    import pyarrow.parquet as pq

    if atomic.digest(path) != sha256:
        raise ValueError(f"{path} is not the plan that this job was begun with; choose another --out")
    return pq.read_table(path)
