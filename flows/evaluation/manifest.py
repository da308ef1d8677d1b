"""What a manifest says: model, benchmarks, files, and the settings that decide the answers."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...datasets.examples import Example
from ..benchmarks.base import Benchmark, Source, digest
from . import provenance

if TYPE_CHECKING:
    from ...pipelines.lvlm import LVLM


def about_model(lvlm: LVLM) -> dict[str, Any]:
    from ...models import EMBEDDED as folder
    from ...pipelines.model.load import EMBEDDED

    return {
        "model": lvlm.name, "class": type(lvlm.model).__name__, "revision": lvlm.revision,
        "weights": provenance.weights(folder if lvlm.name == EMBEDDED else Path(lvlm.name)),
        "dtype": str(lvlm.dtype).removeprefix("torch."), "device": lvlm.device.type,
        "attention": lvlm.attention_implementation, "quantization": lvlm.quantization,
    }  # fmt: skip


def template(lvlm: LVLM) -> str | None:
    """The processor's chat template; None where prompts come from the table of families."""
    found = getattr(lvlm.processor, "chat_template", None)
    return found if isinstance(found, str) or found is None else json.dumps(found)


def files_of(source: Source) -> dict[str, str]:
    """SHA-256 of the annotation files behind the examples, by name; the embedded world has none but its vocabulary."""
    paths = [source.chair.synonyms]
    if source.coco is not None:
        paths += [path for path in (source.files.instances, source.files.captions) if path is not None]
    if source.images is not None and Path(source.images).is_file():
        paths.append(Path(source.images))
    if source.data is not None:
        own = Path(source.data)
        paths += [own] if own.is_file() else sorted({*own.glob("*.json"), *own.glob("*.txt"), *own.glob("*/*.json")})
    return {path.name: provenance.digest(path) for path in paths}


def about_benchmark(
    lvlm: LVLM, benchmark: Benchmark, source: Source, asked: Sequence[Example], generation: Mapping[str, Any]
) -> dict[str, Any]:
    question = asked[0].question or benchmark.prompt or ""
    turns = next(((question, "…", e.question or "") for e in asked if e.after), None)
    later = {} if turns is None else {"prompt of a second turn": lvlm.prompt(turns, source.system)}
    return {
        "version": benchmark.version, "protocol": benchmark.protocol(source),
        "question": question, "prompt": lvlm.prompt(question, source.system), **later,
        "generation": {"do_sample": False, "max_new_tokens": benchmark.max_new_tokens, **generation},
        "examples": len(asked), "images": len({e.image_id for e in asked}), "data_sha256": digest(asked),
        "image_ids": list(dict.fromkeys(e.image_id for e in asked)),
    }  # fmt: skip


def settings_of(part: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the answers to a benchmark."""
    kept = ("version", "prompt", "generation", "data_sha256")
    return json.loads(json.dumps({"benchmark version" if k == "version" else k: part[k] for k in kept}))


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
