"""Published figures as data: what papers and independent reproductions report, to put beside one's own.

The data are in published.json: CHAIR, POPE, AMBER, MME and its hallucination subset, judged and general benchmarks,
detectors' AUROC, and ablations, with what is known of the setting.
Papers differ in samples of images, prompts, baselines and parsers by more than methods differ from each other, so
a band says where others landed, not what is right.
"""

import difflib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

FILE = Path(__file__).with_name("published.json")
PLAIN = "plain"
# Figures that are no percentages.
JUDGED = ("mmhal_score", "mt_bench", "mt_bench_hallucination")
UNITS = {"words": "words", "length": "tokens", **dict.fromkeys(JUDGED, "points")}
POINTS = ("mme_hallucination", "mme", "llava_bench")


@dataclass(frozen=True)
class Published:
    """One figure as printed.

    Args:
        method: registry name where this project has it; "plain" is the model without any method.
        model: short name, such as "llava-1.5-7b".
        benchmark: chair, pope, amber, mme_hallucination, mme, mmhal, llava_bench, general, detection (words or answers
            that are hallucinated) or guided_decoding.
        setting: what is known: dataset, split, images, max_new_tokens, decoding, prompt, suffix, runs, and options of
            the method where they are not its own.
        figure: as this project's metrics call it.
        value: in `unit`. sd: over runs, None where not given.
        paper: arXiv id of the paper whose table it is; None for issues, forks and documentation.
        kind: "paper": measured by the method's own authors (or their own baseline, for plain); "independent": by
            anyone else, also when an author measured a rival; "ablation": by whomever, with options that nobody puts
            forward.
        source: where it was read. note: what to know before quoting it.
    """

    method: str
    model: str
    benchmark: str
    setting: Mapping[str, Any]
    figure: str
    value: float
    sd: float | None
    paper: str | None
    kind: Literal["paper", "independent", "ablation"]
    source: str
    note: str

    @property
    def unit(self) -> str:
        """percent, points, words or tokens."""
        return "points" if self.benchmark in POINTS else UNITS.get(self.figure, "percent")

    @property
    def comparable(self) -> float:
        """The value as our metrics give it: percentages as shares of 0 to 1."""
        return self.value / 100 if self.unit == "percent" else self.value


@dataclass(frozen=True)
class Band:
    """Smallest and largest figure of the method's authors and of others, in the figure's unit; None where none is.

    n counts both. Printed as "paper 20.4–24.0, independent 16.8–36.0".
    """

    figure: str
    unit: str
    paper: tuple[float, float] | None
    independent: tuple[float, float] | None
    n: int

    @property
    def low(self) -> float:
        """Smallest of all."""
        return min(ends[0] for ends in (self.paper, self.independent) if ends)

    @property
    def high(self) -> float:
        """Largest of all."""
        return max(ends[1] for ends in (self.paper, self.independent) if ends)

    def __str__(self) -> str:
        parts = (("paper", self.paper), ("independent", self.independent))
        return ", ".join(f"{name} {_span(ends)}" for name, ends in parts if ends)


def published(
    method: str | None = None,
    model: str | None = None,
    benchmark: str | None = None,
    *,
    paper: str | None = None,
    figure: str | None = None,
    kind: str | None = None,
    path: str | Path = FILE,
    **setting: Any,
) -> list[Published]:
    """Published figures that fit, in the order of the file.

    Args:
        method: a registry name; "plain" is every model's own decoding, "greedy" that with greedy decoding.
        model: a short name or a Hub id.
        benchmark: as in `Published`.
        paper: arXiv id or short name, such as "vista".
        figure, kind: as in `Published`; ablations are left out unless kind asks for them.
        path: another file of the same layout.
        setting: such as decoding="greedy" or max_new_tokens=512; figures whose setting does not say are kept.

    >>> [(p.figure, p.value) for p in published("vista", "llava-hf/llava-1.5-7b-hf", "chair", paper="vista",
    ...                                         decoding="beam 5")]
    [('chair_s', 17.4), ('chair_i', 6.3)]

    Raises:
        ValueError: a name that is nowhere in the file; says which are.
        FileNotFoundError: no such file.
    """
    rows, papers, models = _load(Path(path))
    if method == "greedy":
        method, setting = PLAIN, {"decoding": "greedy", **setting}
    by_id = {name.lower(): short for short, names in models.items() for name in (short, *names)}
    by_paper = {name: number for number, about in papers.items() for name in (number, about["name"])}
    wanted = {
        "method": _known("method", method, {row.method for row in rows}),
        "model": model and by_id[_known("model", model.lower(), by_id) or ""],
        "benchmark": _known("benchmark", benchmark, {row.benchmark for row in rows}),
        "paper": paper and by_paper[_known("paper", paper, by_paper) or ""],
        "figure": _known("figure", figure, {row.figure for row in rows}),
        "kind": _known("kind", kind, {"paper", "independent", "ablation"}),
    }
    return [
        row
        for row in rows
        if (kind is not None or row.kind != "ablation")
        and all(value is None or getattr(row, name) == value for name, value in wanted.items())
        and all(row.setting.get(name) in (None, value) for name, value in setting.items())
    ]


def bands(method: str, model: str, benchmark: str, **chosen: Any) -> dict[str, Band]:
    """For each figure the range of what the authors and what others report; empty where nobody does.

    Arguments as in `published`, ablations do not count. Say the decoding, split or number of new tokens: a band over
    several is wide.

    >>> print(bands("vista", "llava-1.5-7b", "chair", decoding="greedy")["chair_s"])
    paper 20.4, independent 16.8–36.0

    Raises:
        ValueError, FileNotFoundError: as `published`.
    """
    found: dict[str, list[Published]] = {}
    for row in published(method, model, benchmark, **chosen):
        found.setdefault(row.figure, []).append(row)
    return {
        figure: Band(figure, rows[0].unit, _ends(rows, "paper"), _ends(rows, "independent"), len(rows))
        for figure, rows in found.items()
    }


def _ends(rows: list[Published], kind: str) -> tuple[float, float] | None:
    values = [row.value for row in rows if row.kind == kind]
    return (min(values), max(values)) if values else None


def _span(ends: tuple[float, float]) -> str:
    low, high = (f"{end:.1f}" for end in ends)
    return low if low == high else f"{low}–{high}"


def _known(what: str, name: str | None, names: Collection[str]) -> str | None:
    if name is None or name in names:
        return name
    near = difflib.get_close_matches(name, names, n=3)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    raise ValueError(f"no published figures of {what} {name!r}. {hint}Known: {', '.join(sorted(names))}.")


@cache
def _load(path: Path) -> tuple[tuple[Published, ...], dict[str, Any], dict[str, list[str]]]:
    """All figures of a file, its papers and its models."""
    if not path.is_file():
        raise FileNotFoundError(f"no file of published figures at {path}.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: line {error.lineno} is not JSON ({error.msg}).") from error
    rows = []
    for number, table in enumerate(content["tables"], start=1):
        for method, model, values, *note in table["rows"]:
            if len(values) != len(table["figures"]) or model not in content["models"]:
                raise ValueError(
                    f"{path}: table {number}, {method} on {model}: {len(values)} values for "
                    f"{len(table['figures'])} figures, or a model that is not in its list of models."
                )
            for figure, value in zip(table["figures"], values, strict=True):
                mean, sd = value if isinstance(value, list) else (value, None)
                if mean is not None:
                    kind: Literal["paper", "independent", "ablation"] = (
                        "ablation" if table.get("ablation") else "paper" if method in table["own"] else "independent"
                    )
                    remark = "; ".join([*note, *([table["note"]] if "note" in table else [])])
                    rows.append(
                        Published(
                            method, model, table["benchmark"], table["setting"], figure, float(mean), sd,
                            table["paper"], kind, table["source"], remark,
                        )
                    )  # fmt: skip
    return tuple(rows), content["papers"], content["models"]
