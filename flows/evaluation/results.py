"""The results of an evaluation as a pandas table, and as tables for a paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

try:
    from pandas import DataFrame
except ModuleNotFoundError as missing:
    needs = "Results is a table of pandas, which is not installed: pip install 'veridical[plots]'."
    raise ImportError(needs) from missing

from ..benchmarks.registry import BENCHMARKS
from ..files import atomic
from ..scoring import tables
from .report import marks
from .request import RESULTS

WHERE = ["model", "benchmark", "decoder"]
COLUMNS = [*WHERE, "metric", "value", "low", "high", "n", "higher_is_better", "verdict"]


class Results(DataFrame):
    """One row per model, benchmark, decoder and metric: value, 95 % interval (low, high), n, and what it is worth.

    higher_is_better: True, False, or None where neither direction is. verdict: "better" or "worse" than plain decoding
    by the paired test of `veridical compare`, "best" of those that are better, "" where nothing is shown; without
    greedy among the decoders nothing is.

    Selections of rows are Results too: `results[results.benchmark == "chair"].to_markdown()`. Other selections, such as
    of columns, print as pandas prints them.
    """

    @property
    def _constructor(self) -> Any:
        return Results

    @classmethod
    def load(cls, folder: str | Path) -> Results:
        """The results in the folder of an evaluation.

        Raises:
            FileNotFoundError, ValueError: no results there, or files that are damaged.
        """
        folder = Path(folder)
        records = atomic.read_json(folder / RESULTS)
        compared = marks(folder)
        rows = []
        for record in records:
            name, decoder = record["benchmark"], record["decoder"]
            higher, (marked, _) = BENCHMARKS[name].higher_is_better, compared[name]
            for metric, cell in record["metrics"].items():
                rows.append([
                    record["model"], name, decoder, metric, *(cell[part] for part in ("value", "low", "high", "n")),
                    higher.get(metric), marked.get((decoder, metric), ""),
                ])  # fmt: skip
        return cls(rows, columns=COLUMNS)

    def to_markdown(self, *arguments: Any, **options: Any) -> str:  # type: ignore[override]
        """A table per benchmark, a row per decoder, each figure with its interval. With arguments, as pandas does."""
        if self._whole(arguments, options):
            return self._tables("markdown")
        return super().to_markdown(*arguments, **options)

    def to_latex(self, *arguments: Any, **options: Any) -> str:  # type: ignore[override]
        """As `to_markdown`, as LaTeX tables."""
        if self._whole(arguments, options):
            return self._tables("latex")
        return super().to_latex(*arguments, **options)

    def _whole(self, arguments: Any, options: Any) -> bool:
        return not arguments and not options and set(COLUMNS) <= set(self.columns)

    def _tables(self, form: str) -> str:
        found: dict[str, tables.Matrix] = {}
        models = self["model"].nunique() > 1
        for row in self.itertuples(index=False):
            matrix = found.setdefault(row.benchmark, tables.Matrix(row.benchmark))
            matrix.columns.setdefault(row.metric, row.higher_is_better)
            system = f"{row.model}: {row.decoder}" if models else row.decoder
            matrix.rows.setdefault(system, {})[row.metric] = row.value, f" [{row.low:.3f}, {row.high:.3f}]"
        return tables.as_text(list(found.values()), form)
