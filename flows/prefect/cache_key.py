"""The key under which earlier answers stand for those of a request: a digest of all that answers depend on."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path

from ..benchmarks.registry import BENCHMARKS
from ..evaluation.request import MANIFEST, Evaluation
from ..files import atomic

ROOT = Path(__file__).parent.parent.parent
# What answers depend on; scores and reports are computed anew each time.
CODE = (
    "pipelines", "decoders", "detectors", "datasets", "models", "flows/benchmarks/*.py", "flows/evaluation/steps.py",
    "flows/evaluation/request.py", "flows/evaluation/conversation.py",
)  # fmt: skip


def answers_key(out: str, benchmark: str, decoder: str) -> str:
    """SHA-256 over all that the answers of a decoder to a benchmark depend on, as the folder's manifest has it.

    Model, revision and weights; the questions, and the content of every image; the decoder's configuration, with its
    defaults; prompt, generation, seed, batch size, detectors; versions of the libraries, and our code itself.
    """
    request, manifest = Evaluation.read(out), atomic.read_json(Path(out) / MANIFEST)
    parts = {
        "settings": manifest["settings"][benchmark][decoder], "batch size": request.batch_size,
        "images": images_digest(out, benchmark), "code": code_version(),
    }  # fmt: skip
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def images_digest(out: str, benchmark: str) -> str:
    """SHA-256 over the names and contents of a benchmark's images; a scene is its name, for our code draws it."""
    examples = BENCHMARKS[benchmark].examples(Evaluation.read(out).source)
    sha256 = hashlib.sha256()
    for image in sorted({example.image for example in examples}):
        sha256.update(image.encode())
        path = Path(image)
        if path.is_file():
            stat = path.stat()
            sha256.update(_content(path, stat.st_size, stat.st_mtime_ns).encode())
    return sha256.hexdigest()


@lru_cache(maxsize=1)
def code_version() -> str:
    """SHA-256 over the shipped code and weights that answers depend on: a checkout changes without a new version."""
    sha256 = hashlib.sha256()
    for path in [path for part in CODE for path in sorted(ROOT.glob(part))]:
        found = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file() and p.suffix != ".pyc"]
        for source in sorted(found):
            sha256.update(source.relative_to(ROOT).as_posix().encode() + source.read_bytes())
    return sha256.hexdigest()


# -- helpers -------------------------------------------------------------------------------------------------------
@lru_cache(maxsize=65536)
def _content(path: Path, size: int, modified: int) -> str:
    return str(atomic.digest(path))
