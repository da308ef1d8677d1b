"""A run of an evaluation against an earlier one: which of the headline figures are worse by more than the noise."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...metrics import compare
from ..benchmarks.registry import BENCHMARKS
from ..files import atomic
from ..scoring import compare as comparing
from .request import RESULTS, Evaluation
from .text import interval, markdown_table


@dataclass(frozen=True)
class Change:
    """A figure of a decoder in two runs; difference: now minus before, low to high its paired 95 % interval."""

    benchmark: str
    decoder: str
    figure: str
    before: float
    now: float
    difference: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return (
            f"{self.benchmark} {self.decoder} {self.figure}: {self.before:.3f} → {self.now:.3f}, "
            f"{self.difference:+.3f} [{self.low:+.3f}, {self.high:+.3f}] (n={self.n})"
        )


@dataclass(frozen=True)
class Checked:
    """A run's figures beside those of an earlier run.

    Args:
        baseline: the folder it was compared with; None for a first run.
        worse: figures of the headline that are worse by more than the noise; each makes the run a bad one.
        more_errors: (benchmark, decoder) -> more images than before that could not be answered; likewise.
        better, others: headline figures that are better, and other figures that are worse; reported, but no failure.
        notes: what could not be compared, and why.
        compared: number of headline figures.
    """

    baseline: str | None = None
    worse: list[Change] = field(default_factory=list)
    more_errors: dict[str, int] = field(default_factory=dict)
    better: list[Change] = field(default_factory=list)
    others: list[Change] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    compared: int = 0

    @property
    def good(self) -> bool:
        return not (self.worse or self.more_errors)

    @property
    def reasons(self) -> list[str]:
        """A line for each reason why the run is a bad one."""
        return [*map(str, self.worse), *(f"{name}: {n} more without an answer" for name, n in self.more_errors.items())]

    def record(self) -> dict[str, Any]:
        return {**asdict(self), "good": self.good}


class Regression(RuntimeError):
    """A run is worse than the last good one; the message says in what."""


def check(run: Path, baseline: Path | None) -> Checked:
    """Every decoder of a run against the same decoder of an earlier run, paired by image.

    A figure is worse as `metrics.compare.verdict` has it, from the paired test that `compare` and the report use.
    Watched are the figures of each benchmark's headline that have a better side; their p's are adjusted for each other
    over all decoders and benchmarks, so that a change that does nothing makes a bad run in at most one of 20 nights.
    Two runs of the same texts differ in nothing.

    Runs of another prompt, protocol, token budget or other images are not compared, which is noted: comparisons then
    begin with the new run.
    """
    if baseline is None:
        return Checked(notes=["first run: nothing to compare with"])
    before = {(one.benchmark, one.method): one for one in comparing.of_folder(baseline)}
    now = {(one.benchmark, one.method): one for one in comparing.of_folder(run)}
    found = Checked(str(baseline))
    found.notes.extend(f"{' '.join(key)} is new" for key in now if key not in before)
    found.notes.extend(f"{' '.join(key)} was not run this time" for key in before if key not in now)
    errors = _errors(baseline), _errors(run)
    count, pairs, watched = 0, [], set()
    for key in [key for key in now if key in before]:
        differ = compare.warnings_between(before[key].about, now[key].about)
        if differ:
            found.notes.append(f"{' '.join(key)} has another protocol: {'; '.join(differ)}")
            continue
        if not now[key].parts:
            found.notes.append(f"{' '.join(key)} has no paired comparison")
            continue
        if (more := errors[1][key] - errors[0][key]) > 0:
            found.more_errors[" ".join(key)] = more
        headline = {(key[0], name) for name in BENCHMARKS[key[0]].higher_is_better
                    if name in BENCHMARKS[key[0]].headline}  # fmt: skip
        count += len(headline)
        watched |= headline
        if _texts(before[key]) != _texts(now[key]):
            pairs.append(comparing.pair(before[key], now[key]))
    for pair in comparing.judged(pairs, watched):
        for name, one in _figures(pair):
            far, where = one.difference, (pair.system.benchmark, pair.system.method)
            change = Change(*where, name, one.second, one.first, far.value, far.low, far.high, far.n)
            if (where[0], name) in watched and one.verdict in ("worse", "better"):
                (found.worse if one.verdict == "worse" else found.better).append(change)
            elif one.verdict == "worse":
                found.others.append(change)
    return Checked(**{**vars(found), "compared": count})


def markdown(run: Path, checked: Checked | None = None) -> str:
    """The run in a page of Markdown: figures with intervals, and how they compare with the last good run."""
    request, results = Evaluation.read(run), atomic.read_json(run / RESULTS)
    verdict = "" if checked is None else ": good" if checked.good else ": worse than the last good run"
    lines = [f"# {request.model.name}{verdict}", ""]
    checked = checked or Checked()
    for title, items in (
        ("Worse", checked.reasons), ("Better", map(str, checked.better)),
        ("Also worse, but not watched", map(str, checked.others)), ("Notes", checked.notes),
    ):  # fmt: skip
        bullets = [f"- {line}" for line in items]
        lines += [f"## {title}", *bullets, ""] if bullets else []
    if checked.baseline:
        lines += [f"{checked.compared} figures compared with {Path(checked.baseline).name}.", ""]
    for name in request.benchmarks:
        figures = BENCHMARKS[name].headline
        rows = []
        for record in [record for record in results if record["benchmark"] == name]:
            n = max((cell["n"] for cell in record["metrics"].values()), default=0)
            cells = [interval(record["metrics"].get(figure)) for figure in figures]
            rows.append([record["decoder"], *cells, n, record["errors"]])
        lines += [f"## {name}", "", markdown_table(["decoder", *figures, "n", "errors"], rows), ""]
    return "\n".join(lines).replace("&", "&amp;").replace("<", "&lt;")  # a page shows HTML that is in it


def table(run: Path) -> list[dict[str, Any]]:
    """Method × metric: a row per decoder and benchmark, a column per headline figure."""
    rows = []
    for record in atomic.read_json(run / RESULTS):
        headline = BENCHMARKS[record["benchmark"]].headline
        values = {name: record["metrics"][name]["value"] for name in headline if name in record["metrics"]}
        rows.append({
            "method": record["decoder"], "benchmark": record["benchmark"],
            **{name: round(value, 4) for name, value in values.items()}, "errors": record["errors"],
            "seconds per image": round(record["seconds_per_image"], 3),
        })  # fmt: skip
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return [{name: row.get(name, "") for name in columns} for row in rows]


# -- helpers -------------------------------------------------------------------------------------------------------
def _figures(found: comparing.Found) -> list[tuple[str, compare.Comparison]]:
    """Under the names that results have: POPE's splits in front, CHAIR's as they are."""
    return [
        (comparing.figure_name(title, name), one)
        for title, figures in found.tables.items()
        for name, one in figures.items()
    ]


def _texts(system: comparing.System) -> dict[str, Any]:
    return {title: part.answers for title, part in system.parts.items()}


def _errors(folder: Path) -> dict[tuple[str, str], int]:
    return {(r["benchmark"], r["decoder"]): r["errors"] for r in atomic.read_json(folder / RESULTS)}
