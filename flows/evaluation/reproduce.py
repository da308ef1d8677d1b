"""A run repeated from its manifest, and the differences between the two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..benchmarks.registry import BENCHMARKS
from ..files import atomic
from . import answer_file, steps
from .request import MANIFEST, RESULTS, Evaluation

# Parts of a manifest about the time and the form of the request; the rest decides the numbers.
APART = ("started", "finished", "settings", "request")
# Machine and places: noted, but no difference by itself.
WHERE = ("versions", "hardware", "dataset", "model.device")
TOLERANCE = 1e-9  # of a figure: sums of the same counts, divided once


@dataclass(frozen=True)
class Difference:
    """The first example whose text is not the same, and how many there are."""

    benchmark: str
    decoder: str
    example: str
    before: str
    after: str
    number: int
    of: int


@dataclass(frozen=True)
class Repeated:
    """A run beside its repetition.

    Args:
        answers: a difference per decoder and benchmark whose texts differ.
        figures: (benchmark, decoder, figure, before, after) of those that differ.
        manifest: (where, before, after) of what decides the numbers.
        machine: the same of versions, hardware and places, and of what the older manifest lacks; no difference by
            itself.
    """

    before: Path
    after: Path
    answers: list[Difference] = field(default_factory=list)
    figures: list[tuple[str, str, str, Any, Any]] = field(default_factory=list)
    manifest: list[tuple[str, Any, Any]] = field(default_factory=list)
    machine: list[tuple[str, Any, Any]] = field(default_factory=list)
    compared: int = 0

    @property
    def equal(self) -> bool:
        """Whether every text, every figure and everything that decides them is the same."""
        return not (self.answers or self.figures or self.manifest)

    def record(self) -> dict[str, Any]:
        return {
            "equal": self.equal, "before": str(self.before), "after": str(self.after),
            "answers compared": self.compared,
            "answers": [vars(one) for one in self.answers],
            "figures": [dict(zip(("benchmark", "decoder", "figure", "before", "after"), one, strict=True))
                        for one in self.figures],
            "manifest": [dict(zip(("what", "before", "after"), one, strict=True)) for one in self.manifest],
            "machine": [dict(zip(("what", "before", "after"), one, strict=True)) for one in self.machine],
        }  # fmt: skip


def reproduce(
    results: Path, out: Path | None = None, device: str | None = None, coco: str | None = None,
    synonyms: str | None = None,
) -> Repeated:  # fmt: skip
    """Run the request in a folder's manifest once more, in another folder, and compare.

    Args:
        results: folder of an evaluation.
        out: an empty or new folder; None is RESULTS-again.
        device, coco, synonyms: where they differ here from the request; None is the request's.

    Raises:
        FileNotFoundError, ValueError: no finished run, an `out` that holds something, or as `steps.evaluation`.
    """
    manifest, records = atomic.read_json(results / MANIFEST), atomic.read_json(results / RESULTS)
    if not records or manifest["finished"] is None:
        raise ValueError(f"{results} holds no finished run; `veridical evaluate` with the same options finishes it.")
    out = results.with_name(results.name + "-again") if out is None else out
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} holds something already; name a new folder with --out.")
    first = Evaluation.read(results)
    pinned = first.model.revision or manifest["model"]["revision"]  # a Hub model may have moved on
    model = replace(first.model, revision=pinned, device=device or first.model.device)
    source = replace(first.source, coco=coco or first.source.coco, synonyms=synonyms or first.source.synonyms)
    steps.evaluation(replace(first, model=model, source=source), str(out))
    return compared(results, out)


def compared(before: Path, after: Path) -> Repeated:
    """Two folders of the same request: texts, figures, and the rest of their manifests."""
    one, two = (
        {part: content for part, content in atomic.read_json(folder / MANIFEST).items() if part not in APART}
        for folder in (before, after)
    )
    results = [
        {(r["benchmark"], r["decoder"]): r for r in atomic.read_json(folder / RESULTS)}
        for folder in (before, after)
    ]
    unlike_parts = _between(one, two)
    machine = [part for part in unlike_parts if part[0].startswith(WHERE) or part[1] is None]
    found = Repeated(before, after, [], [], [part for part in unlike_parts if part not in machine], machine)
    total = 0
    for benchmark, decoder in dict.fromkeys([*results[0], *results[1]]):
        texts = [_texts(folder, benchmark, decoder) for folder in (before, after)]
        total += len(texts[1])
        unlike = [name for name in dict.fromkeys([*texts[0], *texts[1]]) if texts[0].get(name) != texts[1].get(name)]
        if unlike:
            first = unlike[0]
            then, now = (part.get(first, "(no answer)") for part in texts)
            found.answers.append(Difference(benchmark, decoder, first, then, now, len(unlike), len(texts[1])))
        metrics = [part.get((benchmark, decoder), {}).get("metrics", {}) for part in results]
        for figure in dict.fromkeys([*metrics[0], *metrics[1]]):
            pair = [part.get(figure) for part in metrics]
            if not _same(*pair):
                found.figures.append((benchmark, decoder, figure, *pair))
    return Repeated(before, after, found.answers, found.figures, found.manifest, found.machine, total)


def stale(results: Path) -> bool:
    """Whether the figures of a folder do not follow from its own answers."""
    request = Evaluation.read(results)
    for record in atomic.read_json(results / RESULTS):
        benchmark = BENCHMARKS[record["benchmark"]]
        examples = benchmark.examples(request.source)
        rows = answer_file.rows_of(results, benchmark.name, record["decoder"], examples)
        again = steps.scored(request, benchmark, examples, rows)["metrics"]
        if not all(_same(record["metrics"].get(name), again.get(name)) for name in {**record["metrics"], **again}):
            return True
    return False


def _texts(folder: Path, benchmark: str, decoder: str) -> dict[str, str]:
    rows = answer_file.read_rows(answer_file.answers_path(folder, benchmark, decoder))
    return {row["id"]: row["text"] if row["error"] is None else f"error: {row['error']}" for row in rows}


def _same(one: Any, two: Any) -> bool:
    if not isinstance(one, Mapping) or not isinstance(two, Mapping):
        return one == two
    return all(abs(one[name] - two[name]) <= TOLERANCE for name in ("value", "low", "high")) and one["n"] == two["n"]


def _between(one: Any, two: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """Every place where two manifests differ."""
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        return [
            found
            for name in dict.fromkeys([*one, *two])
            for found in _between(one.get(name), two.get(name), f"{path}.{name}".lstrip("."))
        ]
    return [] if one == two else [(path, one, two)]
