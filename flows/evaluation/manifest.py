"""The manifest of a run: request, model, benchmarks, files, and the settings that decide the answers."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...datasets.examples import Example
from ..benchmarks.base import Benchmark, Source, digest
from ..benchmarks.registry import BENCHMARKS
from ..files import atomic
from . import provenance
from .request import Evaluation, shown

if TYPE_CHECKING:
    from ...pipelines.lvlm import LVLM


def manifest_of(request: Evaluation, lvlm: LVLM, examples: Mapping[str, Sequence[Example]]) -> dict[str, Any]:
    """All that a run depends on, before its first answer.

    examples: benchmark name -> its examples.
    """
    from ...pipelines.registry import DETECTORS

    source = request.source
    configured = {decoder: shown(decoder, request.model.name) for decoder in request.decoders}
    detectors = {detector: repr(DETECTORS.make(detector)) for detector in request.detectors}
    parts = {
        name: about_benchmark(lvlm, BENCHMARKS[name], source, examples[name], request.generation)
        for name in request.benchmarks
    }
    versions = provenance.versions()
    common = {
        **about_model(lvlm), "detectors": list(detectors.values()), "dataset": source.name, "limit": source.limit,
        "seed": source.seed,
        **{f"version of {name}": versions[name] for name in ("veridical", "torch", "transformers")},
    }  # fmt: skip
    settings = {
        name: {
            decoder: {**common, "decoder": configured[decoder], "benchmark": name, **settings_of(parts[name])}
            for decoder in request.decoders
        }
        for name in request.benchmarks
    }
    return {
        "request": request.record(), "model": {**about_model(lvlm), "template": template(lvlm)},
        "decoders": configured, "detectors": detectors, "benchmarks": parts, "dataset": source.name,
        "files": files_of(source), "seed": source.seed, "versions": versions, "hardware": provenance.hardware(),
        "started": now(), "finished": None, "settings": settings,
    }  # fmt: skip


def about_model(lvlm: LVLM) -> dict[str, Any]:
    from ...models import SHIPPED

    return {
        "model": lvlm.name, "class": type(lvlm.model).__name__, "revision": lvlm.revision,
        "weights": provenance.weights(SHIPPED.get(lvlm.name, Path(lvlm.name))),
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
        inside = {path for pattern in ("*.json", "*.txt", "*.csv", "*/*.json") for path in own.glob(pattern)}
        paths += [own] if own.is_file() else sorted(inside)
    return {path.name: str(atomic.digest(path)) for path in paths}


def about_benchmark(
    lvlm: LVLM, benchmark: Benchmark, source: Source, examples: Sequence[Example], generation: Mapping[str, Any]
) -> dict[str, Any]:
    question = examples[0].question or benchmark.prompt or ""
    turns = next(((question, "…", e.question or "") for e in examples if e.after), None)
    later = {} if turns is None else {"prompt of a second turn": lvlm.prompt(turns, source.system)}
    return {
        "version": benchmark.version, "protocol": benchmark.protocol(source),
        "question": question, "prompt": lvlm.prompt(question, source.system), **later,
        "generation": {"do_sample": False, "max_new_tokens": benchmark.max_new_tokens, **generation},
        "examples": len(examples), "images": len({e.image_id for e in examples}), "data_sha256": digest(examples),
        "image_ids": list(dict.fromkeys(e.image_id for e in examples)),
    }  # fmt: skip


def settings_of(part: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the answers to a benchmark."""
    kept = ("version", "prompt", "generation", "data_sha256")
    return json.loads(json.dumps({"benchmark version" if k == "version" else k: part[k] for k in kept}))


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
