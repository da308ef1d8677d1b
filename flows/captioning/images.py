"""The images of a job: a folder, a list, a Parquet file or image files, as sorted ids and paths."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..files import atomic
from .globs import EVERYTHING, Globs

SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm",
    ".avif", ".heic", ".heif",
)  # fmt: skip
LISTS = (".txt", ".list", ".parquet")


class ImageItem(NamedTuple):
    """An image of a job. id: its name in the results, no two alike. path: of a file, or an address."""

    id: str
    path: str


class Found(NamedTuple):
    """What a source holds.

    ignored: suffix -> number of files of a folder that are no images by their name. unchosen: images that globs leave
    out.
    """

    items: list[ImageItem]
    ignored: Counter[str]
    unchosen: int = 0


def is_url(text: str) -> bool:
    """Whether a name is an address of the web.

    >>> is_url("https://example.org/a.png"), is_url("HTTP://example.org"), is_url("a/b.png"), is_url("ftp://a/b")
    (True, True, False, False)
    """
    return text.lower().startswith(("http://", "https://"))


def is_source(path: Path) -> bool:
    """Whether a path stands for many images."""
    return path.is_dir() or path.suffix.lower() in LISTS


def fingerprint(sources: Sequence[str]) -> str | None:
    """SHA-256 of a list or Parquet file; None for a folder or image files."""
    one = Path(sources[0])
    return atomic.digest(one) if len(sources) == 1 and one.is_file() and is_source(one) else None


def find(sources: Sequence[str], globs: Globs = EVERYTHING) -> Found:
    """All images of a source, sorted by id.

    Ids are paths below the folder, lines of the list as they stand, the Parquet file's `id` or else its `path`, or the
    image files as given. What is named twice is two images, the second one "name#2". Relative paths of a list start
    where the list lies. Addresses stay as they are: nothing is fetched, and they become error rows.

    Args:
        sources: one folder, list or Parquet file; or image files.
        globs: which images of a folder are taken.

    Raises:
        ValueError, OSError: nothing to be found, a folder that cannot be listed, or globs without a folder.
    """
    ignored: Counter[str] = Counter()
    many = [source for source in sources if is_source(Path(source))]
    if many and len(sources) > 1:
        raise ValueError(f"{many[0]} beside other images: a job takes one folder, one list or image files")
    if globs.options and os.path.lexists(sources[0]) and not Path(sources[0]).is_dir():
        raise ValueError(
            f"{globs.options} choose among the images of a folder, and {plain(sources[0])} is no folder: name the "
            "folder, or leave them out"
        )
    unchosen = 0
    if not many:
        named = [(source, source, Path()) for source in sources]
        if not any(map(os.path.lexists, sources)):
            _refuse_misspelt(sources)
    else:
        one = Path(many[0])
        if one.is_dir():
            names = list(_walk(one, ignored))
            named = [(name, name, one) for name in names if globs.take(plain(name))]
            unchosen = len(names) - len(named)
        elif not one.is_file():
            raise FileNotFoundError(f"no file {one}")
        else:
            entries = _parquet(one) if one.suffix.lower() == ".parquet" else ((line, line) for line in _lines(one))
            named = [(name, path, one.parent) for name, path in entries]
    if not named:
        searched = f": looked for {' '.join(SUFFIXES)}" if many and Path(many[0]).is_dir() else ""
        others = f"; it holds {_listed(ignored)}" if ignored else ""
        if unchosen:
            raise ValueError(f"no images in {sources[0]}: {unchosen} are left out by {globs}; give other globs")
        raise ValueError(f"no images in {', '.join(sources)}{searched}{others}")
    paths = [(plain(name), path if is_url(path) else os.path.abspath(base / path)) for name, path, base in named]
    return Found(_distinct(sorted(paths)), ignored, unchosen)


def check_names(names: Sequence[str]) -> None:
    """Refuse what job.json cannot hold. Below a folder, and in a list, such names are no trouble.

    Raises:
        ValueError: a name whose bytes are no UTF-8.
    """
    for name in names:
        if plain(name) != name:
            raise ValueError(
                f"{plain(name)} has bytes that are no UTF-8, which job.json cannot hold: rename it, or go into that "
                "folder and call it ."
            )


def note(ignored: Counter[str]) -> str:
    """One line on what a folder holds besides."""
    hint = "; a linked folder is captioned if it is named itself" if "linked folder" in ignored else ""
    return f"{sum(ignored.values())} files are no images by their name and left out: {_listed(ignored)}{hint}"


def plain(name: str) -> str:
    r"""A name as text: bytes of a file name that are no UTF-8 as "\xff"."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


# -- helpers -------------------------------------------------------------------------------------------------------
def _refuse_misspelt(sources: Sequence[str]) -> None:
    """Refuse a job of nothing but names that do not exist, which would stand in the way of the right one."""
    hint = "; nothing is fetched from the network: download it and name the file" if is_url(sources[0]) else ""
    raise FileNotFoundError(f"no file or folder {', '.join(map(plain, sources[:3]))}{hint}")


def _walk(folder: Path, ignored: Counter[str]) -> Iterator[str]:
    """Paths of image files below a folder; nothing hidden, and no folder behind a link."""

    def fail(error: OSError) -> None:
        raise PermissionError(
            f"{error.filename} cannot be listed ({error.strerror}), and its images would be lost: make it readable or "
            "give a list"
        ) from error

    for here, folders, files in os.walk(folder, onerror=fail):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        ignored.update("linked folder" for name in folders if os.path.islink(os.path.join(here, name)))
        for name in files:
            path = Path(here, name)
            if name.startswith(".") or path.suffix.lower() not in SUFFIXES:
                ignored["hidden" if name.startswith(".") else path.suffix.lower() or "no suffix"] += 1
            else:
                yield path.relative_to(folder).as_posix()


def _lines(path: Path) -> Iterator[str]:
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"{path} is not a file")
    content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    if b"\0" in content:
        raise ValueError(f"{path} is no list in UTF-8: it has zero bytes, as UTF-16 has; save it as UTF-8")
    for line in content.split(b"\n"):
        if line.strip():
            yield os.fsdecode(line.rstrip(b"\r"))


def _parquet(path: Path) -> Iterator[tuple[str, str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        kinds = pq.read_schema(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is not a Parquet file that can be read: {error}") from error
    if "path" not in kinds.names or not _is_text(kinds.field("path").type):
        columns = ", ".join(f"{column.name} ({column.type})" for column in kinds)
        raise ValueError(f'{path} has no column "path" of strings; found {columns}')
    wanted = [name for name in ("id", "path") if name in kinds.names]
    table = pq.read_table(path, columns=wanted).to_pydict()
    for row, where in enumerate(table["path"]):
        name = table.get("id", table["path"])[row]
        if not where or name is None:
            raise ValueError(f"{path}: row {row} has no path or no id")
        yield str(name), where


def _is_text(kind: Any) -> bool:
    """Strings, also as pandas and Polars store them: long ones, views, and categories."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _distinct(paths: Sequence[tuple[str, str]]) -> list[ImageItem]:
    """The same paths under ids that differ.

    >>> [item.id for item in _distinct([("a", "1"), ("a", "2"), ("a#2", "3")])]
    ['a', 'a#3', 'a#2']
    """
    there = {name for name, _ in paths}
    used: set[str] = set()
    last: dict[str, int] = {}  # the number that a name got last; searching from 1 would be quadratic
    out = []
    for name, path in paths:
        own, number = name, last.get(name, 1)
        while own in used or (own != name and own in there):
            number += 1
            own = f"{name}#{number}"
        used.add(own)
        last[name] = number
        out.append(ImageItem(own, path))
    return out


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{number} {suffix}" for suffix, number in counts.most_common(6))
