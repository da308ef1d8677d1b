"""Benchmarks by name: ours, and those that installed packages bring as entry points `veridical.benchmarks`."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points

from . import NAMES
from .base import Benchmark

GROUP = "veridical.benchmarks"


class UnknownBenchmark(KeyError, ValueError):
    """A benchmark that is not registered; the message has near names and all known ones."""

    def __str__(self) -> str:
        return str(self.args[0])


class Benchmarks(Mapping[str, Benchmark]):
    """Name -> benchmark, imported at its first use; needs no torch.

    A package adds one of its own by an entry point of the group `veridical.benchmarks`, name = "module:Class".
    """

    def __init__(self) -> None:
        self._loaded: dict[str, Benchmark] = {}

    @cached_property
    def _added(self) -> dict[str, EntryPoint]:
        added: dict[str, EntryPoint] = {}
        for one in entry_points(group=GROUP):
            if one.name in NAMES or one.name in added:
                other = "veridical itself" if one.name in NAMES else _package(added[one.name])
                raise ValueError(
                    f"{_package(one)} registers the benchmark {one.name!r}, a name that {other} has; "
                    f"rename it in {_package(one)}, or uninstall one of the two."
                )
            added[one.name] = one
        return added

    def __iter__(self) -> Iterator[str]:
        yield from (*NAMES, *self._added)

    def __len__(self) -> int:
        return len(NAMES) + len(self._added)

    def __getitem__(self, name: str) -> Benchmark:
        """The benchmark of that name.

        Raises:
            UnknownBenchmark: no such benchmark; says which there are. ValueError: two packages use one name.
        """
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def origin(self, name: str) -> str:
        """The package that a benchmark comes from."""
        return "veridical" if name in NAMES else _package(self._added[name])

    def _load(self, name: str) -> Benchmark:
        if name in NAMES:
            module, _, attribute = NAMES[name].partition(":")
            return getattr(importlib.import_module(f"{__package__}.{module}"), attribute)()
        if name not in self._added:
            near = difflib.get_close_matches(name.lower(), self, n=1, cutoff=0.5)
            hint = f' Did you mean "{near[0]}"?' if near else ""
            raise UnknownBenchmark(f'no benchmark "{name}".{hint} Known: {", ".join(sorted(self))}.')
        return self._added[name].load()()


def _package(one: EntryPoint) -> str:
    return one.dist.name if one.dist is not None else one.module


BENCHMARKS = Benchmarks()
