"""Repeated runs of the same methods: mean ± sd, and differences taken run by run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...metrics import compare
from ...metrics.estimate import Estimate
from ..benchmarks.registry import BENCHMARKS
from .compare import System

SAMPLED = ("image sets", "data files")


class ByRun(compare.Comparison):
    """A difference taken run by run, with Student's interval and p; n is the number of runs."""

    @property
    def verdict(self) -> compare.Verdict:
        """As `compare.verdict`, but from 3 runs on. Runs that all differ by exactly as much are one run repeated."""
        d, p = self.difference, self.p if self.adjusted is None else self.adjusted
        if not self.testable or d.low <= 0 <= d.high or (p is not None and p > 1 - self.level):
            return "inside the noise"
        if self.higher_is_better is None:
            return "differs"
        return "better" if (d.value > 0) is self.higher_is_better else "worse"

    @property
    def testable(self) -> bool:
        """Whether there are enough runs, and runs that differ from each other."""
        return self.difference.n >= 3 and self.difference.low != self.difference.high


@dataclass(frozen=True)
class OverRuns:
    """A benchmark over repeated runs: mean ± sd of every method, of its differences from the first method, and what
    differs between runs besides their seeds and images."""

    benchmark: str
    figures: dict[str, dict[str, compare.Runs]]
    differences: dict[str, dict[str, ByRun]]
    warnings: list[str] = field(default_factory=list)

    @property
    def repeated(self) -> list[str]:
        """Methods whose runs do not differ in any figure: the same run several times says nothing about spread."""
        return [method for method, table in self.figures.items() if not any(runs.sd for runs in table.values())]

    def record(self) -> dict[str, Any]:
        return {
            "benchmark": self.benchmark, "identical runs of": self.repeated, "warnings": self.warnings,
            "figures": {m: {name: vars(runs) for name, runs in table.items()} for m, table in self.figures.items()},
            "differences": {
                method: {
                    name: {**vars(one.difference), "p": one.p, "p_holm": one.adjusted, "verdict": one.verdict}
                    for name, one in table.items()
                }
                for method, table in self.differences.items()
            },
        }  # fmt: skip


def over_runs(systems: Sequence[System]) -> list[OverRuns]:
    """Systems that are repeated runs (seeds, or samples of images) of the same methods.

    A method's difference from the first is taken run by run; its interval is Student's, n the number of runs. The
    verdicts on one benchmark hold together (Holm).

    Raises:
        ValueError: fewer than two runs of a method, or methods with other numbers of runs.
    """
    found = []
    for benchmark in dict.fromkeys(system.benchmark for system in systems):
        by_method: dict[str, list[Mapping[str, float]]] = {}
        inside = [system for system in systems if system.benchmark == benchmark]
        for system in inside:
            by_method.setdefault(system.method, []).append(system.figures)
        sizes = {method: len(runs) for method, runs in by_method.items()}
        if min(sizes.values()) < 2 or len(set(sizes.values())) > 1:
            listed = ", ".join(f"{method} {size}" for method, size in sizes.items())
            raise ValueError(f"runs of {benchmark}: {listed}; needed: at least two of each, and as many of each.")
        better = BENCHMARKS[benchmark].higher_is_better if benchmark in BENCHMARKS else {}
        first = next(iter(by_method))
        found.append(OverRuns(
            benchmark, {method: compare.figures_over_runs(runs) for method, runs in by_method.items()},
            _together({m: _by_run(runs, by_method[first], better) for m, runs in by_method.items() if m != first}),
            _unlike(inside),
        ))  # fmt: skip
    return found


def _unlike(systems: Sequence[System]) -> list[str]:
    """What differs from the first run, its images aside: those may be other samples."""
    return [
        f"{systems[0].name} and {other.name}: {text}"
        for other in systems[1:] for text in compare.warnings_between(systems[0].about, other.about)
        if not text.startswith(SAMPLED)
    ]  # fmt: skip


def _by_run(
    runs: Sequence[Mapping[str, float]], base: Sequence[Mapping[str, float]], better: Mapping[str, bool]
) -> dict[str, ByRun]:
    from scipy.stats import t

    found = {}
    means, others = compare.figures_over_runs(runs), compare.figures_over_runs(base)
    for name in [name for name in means if name in others]:
        gaps = compare.over_runs([one[name] - two[name] for one, two in zip(runs, base, strict=True)])
        error = gaps.sd / gaps.n**0.5
        half = float(t.ppf(0.975, gaps.n - 1)) * error
        found[name] = ByRun(
            means[name].mean, others[name].mean, Estimate(gaps.mean, gaps.mean - half, gaps.mean + half, gaps.n),
            better.get(name), float(2 * t.sf(abs(gaps.mean) / error, gaps.n - 1)) if error else None,
        )  # fmt: skip
    return found


def _together(differences: Mapping[str, dict[str, ByRun]]) -> dict[str, dict[str, ByRun]]:
    """The same with p's adjusted for all of them."""
    places = [(method, name) for method, table in differences.items() for name in table]
    adjusted = compare.together([differences[method][name] for method, name in places])
    found: dict[str, dict[str, ByRun]] = {method: {} for method in differences}
    for (method, name), one in zip(places, adjusted, strict=True):
        found[method][name] = one
    return found
