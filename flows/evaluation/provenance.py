"""What a result depends on besides its settings: versions, hardware, the weights themselves."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
from functools import lru_cache
from pathlib import Path
from typing import Any

PACKAGES = ("veridical", "torch", "transformers", "tokenizers", "numpy", "pillow", "nltk")
_WHOLE, _PART = 64_000_000, 1_000_000


def versions() -> dict[str, str]:
    """Python and the packages that numbers depend on."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in PACKAGES}}


def hardware() -> dict[str, Any]:
    """Names of processor and GPUs, number of cores."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(count)],
        "system": f"{platform.system()} {platform.machine()}",
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


@lru_cache(maxsize=4)
def weights(folder: Path) -> str | None:
    """SHA-256 over the weights of a model folder; None if there are none here, as for a model from the Hub.

    Folders above 64 MB are represented by each file's name, size and its first and last megabyte, which is quick and
    enough to notice another checkpoint.
    """
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    if not files:
        return None
    whole = sum(path.stat().st_size for path in files) <= _WHOLE
    sha256 = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        sha256.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            if whole or size <= 2 * _PART:
                sha256.update(file.read())
            else:
                sha256.update(file.read(_PART))
                file.seek(-_PART, os.SEEK_END)
                sha256.update(file.read())
    return sha256.hexdigest()
