"""Tables for other programs: one row per system and one column per figure, as Markdown, LaTeX or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .compare import Found

FORMATS = ("text", "markdown", "latex", "csv")
MARKS = {"better": "▲", "worse": "▼"}
LATEX_MARKS = {"▲": r"$^{\uparrow}$", "▼": r"$^{\downarrow}$"}
LATEX = {"\\": r"\textbackslash{}", **{sign: "\\" + sign for sign in "&%$#_{}"}, "~": r"\textasciitilde{}",
         "^": r"\textasciicircum{}"}  # fmt: skip
ARROWS = {True: " ↑", False: " ↓", None: ""}


@dataclass
class Matrix:
    """One table. columns: figure -> whether higher is better. rows: system -> figure -> (value, what follows
    it: the sign of a verdict, or an interval).
    """

    title: str
    columns: dict[str, bool | None] = field(default_factory=dict)
    rows: dict[str, dict[str, tuple[float, str]]] = field(default_factory=dict)

    def cells(self) -> list[list[str]]:
        """The head, then a row per system; a figure that a system does not have is a dash."""
        head = ["system", *(name + ARROWS[better] for name, better in self.columns.items())]
        shown = lambda cell: "–" if cell is None else f"{cell[0]:.3f}{cell[1]}"
        return [head, *([name, *(shown(row.get(one)) for one in self.columns)] for name, row in self.rows.items())]


def compared(found: Sequence[Found]) -> list[Matrix]:
    """Every system of a comparison with its figures; ▲ and ▼ where it differs from the first by more than the noise."""
    out: dict[tuple[str, str], Matrix] = {}
    systems = {system.name: system.method for one in found for system in (one.baseline, one.system)}
    short = len(set(systems.values())) == len(systems)  # the decoder alone says which system it is
    for one in found:
        first, second = (system.method if short else system.name for system in (one.baseline, one.system))
        for title, table in one.tables.items():
            name = f"{one.system.benchmark} {title}".strip()
            matrix = out.setdefault((one.system.benchmark, title), Matrix(name))
            base, other = matrix.rows.setdefault(first, {}), matrix.rows.setdefault(second, {})
            for figure, comparison in table.items():
                matrix.columns.setdefault(figure, comparison.higher_is_better)
                base.setdefault(figure, (comparison.second, ""))
                other[figure] = comparison.first, MARKS.get(comparison.verdict, "")
    return list(out.values())


def evaluated(records: Sequence[Mapping[str, Any]], higher: Mapping[str, Mapping[str, bool]]) -> list[Matrix]:
    """The records of results.json. higher: benchmark -> figure -> whether higher is better."""
    out: dict[str, Matrix] = {}
    for record in records:
        name = record["benchmark"]
        matrix = out.setdefault(name, Matrix(name))
        for figure, cell in record["metrics"].items():
            matrix.columns.setdefault(figure, higher.get(name, {}).get(figure))
            matrix.rows.setdefault(record["decoder"], {})[figure] = cell["value"], ""
    return list(out.values())


def of_folder(out: str | Path) -> list[Matrix]:
    """The results of an evaluation's folder."""
    from ..benchmarks.registry import BENCHMARKS
    from ..evaluation.request import RESULTS
    from ..files import atomic

    records = atomic.read_json(Path(out) / RESULTS)
    return evaluated(records, {one["benchmark"]: BENCHMARKS[one["benchmark"]].higher_is_better for one in records})


def as_text(matrices: Sequence[Matrix], form: str) -> str:
    """The tables in one of FORMATS but "text"."""
    return {"markdown": _markdown, "latex": _latex, "csv": _csv}[form](matrices)


def _markdown(matrices: Sequence[Matrix]) -> str:
    parts = []
    for matrix in matrices:
        head, *rows = [[cell.replace("|", "\\|") for cell in row] for row in matrix.cells()]
        lines = [head, ["---"] * len(head), *rows]
        parts.append(f"**{matrix.title}**\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(parts)


def _latex(matrices: Sequence[Matrix]) -> str:
    parts = []
    for matrix in matrices:
        head, *rows = [[_escaped(cell) for cell in row] for row in matrix.cells()]
        lines = [f"% {matrix.title}", rf"\begin{{tabular}}{{l{'r' * len(matrix.columns)}}}", r"\hline",
                 " & ".join(head) + r" \\", r"\hline", *(" & ".join(row) + r" \\" for row in rows), r"\hline",
                 r"\end{tabular}"]  # fmt: skip
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _escaped(cell: str) -> str:
    text = "".join(LATEX.get(sign, sign) for sign in cell)
    for mark, shown in {**LATEX_MARKS, "↑": r"$\uparrow$", "↓": r"$\downarrow$", "–": "--"}.items():
        text = text.replace(mark, shown)
    return text


def _csv(matrices: Sequence[Matrix]) -> str:
    """A line per figure of a system, with every digit."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(("table", "system", "figure", "value", "verdict"))
    words = {mark: verdict for verdict, mark in MARKS.items()}
    for matrix in matrices:
        for name, row in matrix.rows.items():
            for figure, (value, mark) in row.items():
                writer.writerow((matrix.title, name, figure, repr(float(value)), words.get(mark, "")))
    return sink.getvalue().rstrip("\n")
