"""Finds a matcher by "embedded", "open_clip:…" or "blip:…"; which one a model gets when none is named."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from ..model.embedded import EMBEDDED, is_embedded
from ..model.layout import Layout
from ..model.load import CannotLoad
from .blip import BlipMatcher
from .open_clip import OpenClipMatcher

# The Hub's main revision holds a pickle alone, which is not read; this one is its conversion to safetensors.
BLIP = "blip:Salesforce/blip-itm-large-coco@c0273606af96037e7a3b2fb0ff4ae9620b517be6"
POSSIBLE = 'possible: "embedded", "open_clip:<folder or Hub id>", "blip:<folder or Hub id>", each id with @revision'
_OPEN_CLIP_FILES = ("open_clip*.safetensors", "*.json", "*.txt", "*.model")
_BLIP_FILES = ("*.safetensors", "*.json", "*.txt")


def check_matcher(name: str) -> None:
    """Raise ValueError unless the name is one that `load_matcher` knows; nothing is loaded."""
    kind, _, source = name.partition(":") if isinstance(name, str) else ("", "", "")
    if name != EMBEDDED and (kind not in ("open_clip", "blip") or not source):
        raise ValueError(f"matcher={name!r} names no matcher; {POSSIBLE}.")


def default_matcher(lvlm: Layout) -> str:
    """ "embedded" for the shipped model; for others the paper's, BLIP-ITM large, from the Hub."""
    return EMBEDDED if is_embedded(lvlm) else BLIP


@lru_cache(maxsize=2)
def load_matcher(name: str, device: str = "cpu") -> OpenClipMatcher | BlipMatcher:
    """The matcher of that name, kept for the next call.

    Args:
        name: "embedded", or "open_clip:" or "blip:" and a folder or a Hub id, which may end in "@revision".

    Raises:
        ValueError: no such kind. CannotLoad: no such folder or model, or a file missing.
    """
    check_matcher(name)
    if name == EMBEDDED:
        from ...models import MATCHER

        return OpenClipMatcher.load(MATCHER, EMBEDDED, device)
    kind, _, source = name.partition(":")
    folder = _folder(name, source, _OPEN_CLIP_FILES if kind == "open_clip" else _BLIP_FILES)
    try:
        return OpenClipMatcher.load(folder, source, device) if kind == "open_clip" else _blip(folder, source, device)
    except (OSError, RuntimeError, KeyError) as error:
        raise CannotLoad(f"the matcher {name!r} could not be loaded from {folder}: {_first_line(error)}") from error


def _blip(folder: Path, source: str, device: Any) -> BlipMatcher:
    from transformers import AutoProcessor, BlipForImageTextRetrieval

    from .base import fingerprint

    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        found = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
        raise FileNotFoundError(f"no weights in safetensors (pickles are not read); found {found}")
    model: Any = BlipForImageTextRetrieval.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
    processor = AutoProcessor.from_pretrained(folder)
    return BlipMatcher(model.to(device), processor, f"{source}@{fingerprint(weights[0])}")


def _folder(name: str, source: str, files: tuple[str, ...]) -> Path:
    """A folder as it is, or what the Hub has under that id: safetensors and text files alone."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if source.startswith(("/", ".", "~")):
        raise CannotLoad(f"no folder {source} for the matcher {name!r}; {POSSIBLE}.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    id, _, revision = source.removeprefix("hf-hub:").partition("@")
    try:
        return Path(snapshot_download(id, revision=revision or None, allow_patterns=list(files)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise CannotLoad(
            f"the matcher {name!r} is neither a folder here nor could it be fetched from the Hub "
            f"({_first_line(error)}).{_offline()} Download it where there is a network, name another "
            f"(agla:matcher=…; {POSSIBLE}), or give AGLA(view=…), which needs no matcher."
        ) from error


def _offline() -> str:
    offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
    return " HF_HUB_OFFLINE is set, so only what was downloaded before can be loaded." if offline else ""


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
