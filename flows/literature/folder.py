"""Which files were released, where they are, and what a folder of them holds."""

from __future__ import annotations

import hashlib
import json
import lzma
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ...metrics.captions_file import Predictions, read_captions

INDEX, CLAIMS = (Path(__file__).with_name(name) for name in ("released.json", "claims.json"))


@cache
def index() -> Mapping[str, Mapping[str, Any]]:
    """Name -> repository, commit, path, licence, sha256, rows, file and kind of every released file."""
    return json.loads(INDEX.read_text(encoding="utf-8"))


@cache
def claims() -> Mapping[str, Any]:
    """papers: short name -> title and number; pairs: which file is the plain one and which the method's."""
    return json.loads(CLAIMS.read_text(encoding="utf-8"))


@dataclass
class Released:
    """A folder of released files, as `veridical data released` writes it; each may be compressed by xz.

    Args:
        folder: where they are.
        skipped: name -> what was left out of its file, and why.
    """

    folder: Path
    skipped: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.folder.is_dir():
            raise FileNotFoundError(f"no folder at {self.folder}; `veridical data released --out FOLDER` writes one.")

    def path(self, name: str) -> Path | None:
        """Where a file is, plain or compressed; None where it is absent."""
        if name not in index():
            return None
        file = self.folder / index()[name]["file"]
        return next((path for path in (file, file.with_name(f"{file.name}.xz")) if path.is_file()), None)

    def content(self, name: str) -> bytes:
        """A file's bytes.

        Raises:
            FileNotFoundError: the folder does not have it.
            ValueError: another file than the one that was released.
        """
        path, about = self.path(name), index()[name]
        if path is None:
            raise FileNotFoundError(f"{self.folder} has no {about['file']}; `veridical data released` fetches it.")
        content = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if found != about["sha256"]:
            raise ValueError(
                f"{path} is not the released file: its SHA-256 is {found[:12]}…, expected {about['sha256'][:12]}…"
            )
        return content

    def captions(self, name: str) -> dict[int | str, str]:
        """Captions by image id. Lines that cannot be used are left out and named; of a repeated id the first stays."""
        read: Predictions = self._read(name, lambda path: read_captions(path, strict=False))
        self.skipped[name] = list(read.skipped)
        return dict(read.by_id)

    def unpacked(self, name: str, folder: Path) -> Path:
        """The plain file, written below a folder."""
        path = folder / index()[name]["file"]
        path.write_bytes(self.content(name))
        return path

    def _read(self, name: str, read: Callable[[Path], Any]) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            return read(self.unpacked(name, Path(folder)))
