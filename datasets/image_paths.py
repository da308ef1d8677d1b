"""Where the images lie that files of others name: in their own folder, and nowhere else on this machine."""

import os
import warnings
from functools import lru_cache
from pathlib import Path


class LinkedFolder(UserWarning):
    """A folder of images is a link to another place."""


def inside(folder: str | Path, name: object) -> Path:
    """The file of that name below a folder.

    Raises:
        ValueError: the name leads out of it, by "..", from the root, or over a link, so that whoever wrote it would
            choose among all files of this machine; or it is no name.
    """
    if not isinstance(name, str) or not name or "\0" in name:
        raise ValueError(f"an image is named {name!r:.80}; needed: the name of a file in {folder}.")
    path = Path(folder, name)
    real = os.path.realpath(path)
    if not any(real.startswith(os.path.join(root, "")) for root in _roots(os.path.abspath(folder))):
        how = "" if os.path.normpath(name) == name and not os.path.isabs(name) else " (it is no plain path)"
        raise ValueError(
            f"the image {name!r:.200} leads out of {folder} to {real!r:.200}{how}; a file may name only images of its "
            "own folder: put a copy of the image there."
        )
    return path


def linked(folder: Path, part: str) -> Path:
    """The part of a folder that holds its images; a warning says where it is if it is a link to another place."""
    found = folder / part
    real, home = os.path.realpath(found), os.path.realpath(folder)
    if found.is_dir() and not real.startswith(os.path.join(home, "")):
        warnings.warn(f"the images of {folder} are not in it: {part} is a link to {real}", LinkedFolder, stacklevel=3)
    return found


@lru_cache(maxsize=256)
def _roots(folder: str) -> tuple[str, ...]:
    """The folder, and where Hugging Face's cache keeps the files that a snapshot consists of links to."""
    real = os.path.realpath(folder)
    repository, snapshot, _ = real.partition(f"{os.sep}snapshots{os.sep}")
    return (real, os.path.join(repository, "blobs")) if snapshot else (real,)
