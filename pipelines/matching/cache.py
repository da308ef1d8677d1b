"""Keeps a matcher's results on disk, so that no pair of image and prompt is matched twice."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import platformdirs
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .base import Match, Matcher

FOLDER = "VERIDICAL_CACHE"
EDITION = 1  # one more whenever matchers make their maps another way
MOST = 256  # files in each of 256 folders: 65,536 matches, about 270 MB on disk
_log = logging.getLogger(__name__)


def default_folder() -> Path:
    """$VERIDICAL_CACHE, or this program's folder where the platform keeps caches."""
    if os.environ.get(FOLDER):
        return Path(os.environ[FOLDER]).expanduser()
    return Path(platformdirs.user_cache_dir("veridical", appauthor=False))


@dataclass(frozen=True)
class Cached:
    """A matcher that reads from disk first. A file that cannot be read counts as absent and is written anew.

    Args:
        folder: where; None is `default_folder()`. One safetensors file per match, named by the SHA-256 of image,
            prompt, matcher and edition; the least recently written ones go when a folder is full.
    """

    matcher: Matcher
    folder: Path | None = None

    @property
    def id(self) -> str:
        return self.matcher.id

    def match(self, images: Sequence[Tensor], prompts: Sequence[str]) -> list[Match]:
        """As the matcher's own; what is not there is matched in one go."""
        paths = [self.path(image, prompt) for image, prompt in zip(images, prompts, strict=True)]
        found = {path: _read(path) for path in dict.fromkeys(paths)}
        new = {path: place for place, path in enumerate(paths) if found[path] is None}
        matches = self.matcher.match([images[n] for n in new.values()], [prompts[n] for n in new.values()])
        for path, match in zip(new, matches, strict=True):
            found[path] = match
            _write(path, match)
        return [known for path in paths if (known := found[path]) is not None]

    def path(self, image: Tensor, prompt: str) -> Path:
        """The file of one match."""
        digest = hashlib.sha256(f"{EDITION}\n{self.matcher.id}\n{tuple(image.shape)}\n{prompt}\n".encode())
        digest.update(image.cpu().contiguous().numpy().tobytes())
        name = digest.hexdigest()
        return (self.folder or default_folder()) / "matches" / name[:2] / f"{name[2:]}.safetensors"


def _read(path: Path) -> Match | None:
    if not path.is_file():
        return None
    try:
        tensors = load_file(path)
        relevance, similarity = tensors["relevance"], float(tensors["similarity"])
    except (OSError, SafetensorError, KeyError, RuntimeError, ValueError) as error:
        _log.warning("%s cannot be read (%s) and is made again", path, error)
        return None
    usable = relevance.dim() == 2 and bool(((relevance >= 0) & (relevance <= 1)).all()) and abs(similarity) <= 1.001
    if not usable:
        _log.warning("%s holds no match and is made again", path)
    return Match(relevance, similarity) if usable else None


def _write(path: Path, match: Match) -> None:
    """In one step, so that another process sees all of a file or nothing; a failure is a warning."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _make_room(path.parent)
        tensors = {"relevance": match.relevance.float().contiguous(), "similarity": torch.tensor(match.similarity)}
        with tempfile.TemporaryDirectory(dir=path.parent) as place:
            save_file(tensors, Path(place) / path.name)
            (Path(place) / path.name).replace(path)
    except OSError as error:
        _log.warning("a match is not kept: %s cannot be written (%s); set %s to a folder", path, error, FOLDER)


def _make_room(folder: Path) -> None:
    files = list(folder.glob("*.safetensors"))
    if len(files) >= MOST:
        files.sort(key=lambda file: file.stat().st_mtime)
        for file in files[: len(files) - MOST + 1]:
            file.unlink(missing_ok=True)
