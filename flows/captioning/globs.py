"""Globs that choose among the images of a folder, by their paths below it."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple


class Globs(NamedTuple):
    """Which images of a folder a job takes: those of an `include`, or all without any, but for those of an `exclude`.

    A glob without "/" is about the name of a file, in whichever folder it lies; another one is about the whole path.
    "*", "?" and "[…]" stay within one name, "**" is any number of folders; upper and lower case differ.

    >>> globs = Globs(("*.jpg", "a/**"), ("*_thumb*",))
    >>> [globs.take(path) for path in ("b/1.jpg", "a/b/1.png", "b/1.png", "a/1_thumb.jpg")]
    [True, True, False, False]
    """

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()

    def take(self, path: str) -> bool:
        """Whether the image of that path, with "/" between folders, is taken."""
        chosen = not self.include or any(matches(path, glob) for glob in self.include)
        return chosen and not any(matches(path, glob) for glob in self.exclude)

    @property
    def options(self) -> str:
        """The options that were given, as the command line names them; "" without any."""
        return " and ".join(f"--{name}" for name, globs in self._asdict().items() if globs)

    def __str__(self) -> str:
        return " ".join(f"--{name} {glob!r}" for name, globs in self._asdict().items() for glob in globs)


EVERYTHING = Globs()


def matches(path: str, glob: str) -> bool:
    """Whether a glob fits a path.

    >>> matches("a/1.jpg", "*.jpg"), matches("a/1.jpg", "a/*"), matches("a/b/1.jpg", "a/*"), matches("a/1.jpg", "a/**")
    (True, True, False, True)
    >>> matches("1.jpg", "**/1.jpg"), matches("a/b/1.jpg", "**/1.jpg"), matches("a/1.JPG", "*.jpg")
    (True, True, False)
    """
    return _fits(path.split("/") if "/" in glob else [path.rpartition("/")[2]], glob.split("/"))


def _fits(names: Sequence[str], globs: Sequence[str]) -> bool:
    if not globs:
        return not names
    if globs[0] == "**":
        return any(_fits(names[start:], globs[1:]) for start in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], globs[0]) and _fits(names[1:], globs[1:])
