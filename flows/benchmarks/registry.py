"""Benchmarks by name: ours, and those that installed packages bring as entry points `veridical.benchmarks`."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator, Mapping
from functools import cached_property

from ...pipelines.entry_points import OURS, Found, Taken, found
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
    def _others(self) -> tuple[dict[str, Found], dict[str, Taken]]:
        return found(GROUP, NAMES)

    @property
    def taken(self) -> Mapping[str, Taken]:
        """Names that several packages register, which therefore stand for nothing."""
        return self._others[1]

    def __iter__(self) -> Iterator[str]:
        yield from (*NAMES, *self._others[0])

    def __len__(self) -> int:
        return len(NAMES) + len(self._others[0])

    def __getitem__(self, name: str) -> Benchmark:
        """The benchmark of that name.

        Raises:
            UnknownBenchmark: no such benchmark; says which there are. ValueError: a name that two packages register,
                or a class that cannot be imported.
        """
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def origin(self, name: str) -> str:
        """The package that a benchmark comes from."""
        return OURS if name in NAMES else self._others[0][name].origin

    def _load(self, name: str) -> Benchmark:
        if name in self.taken:
            raise ValueError(f'benchmark "{name}": {self.taken[name].why}')
        if name in NAMES:
            module, _, attribute = NAMES[name].partition(":")
            return getattr(importlib.import_module(f"{__package__}.{module}"), attribute)()
        if name not in self._others[0]:
            near = difflib.get_close_matches(name.lower(), self, n=1, cutoff=0.5)
            hint = f' Did you mean "{near[0]}"?' if near else ""
            raise UnknownBenchmark(f'no benchmark "{name}".{hint} Known: {", ".join(sorted(self))}.')
        point = self._others[0][name]
        module, _, attribute = point.value.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)()
        except (ImportError, AttributeError) as error:
            raise ValueError(f'benchmark "{name}" of {point.origin} cannot be imported: {error}.') from error


BENCHMARKS = Benchmarks()
