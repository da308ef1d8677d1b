"""The runs that a paper's figures come from, run here, and ours beside the paper's and others'."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...metrics.published import FILE, PLAIN, Published, bands, published
from ...pipelines.chain import chain
from ..files import atomic
from . import steps
from .request import RESULTS, Evaluation

RUNNABLE = {"chair": "images", "pope": "questions"}
NEEDED = "veridical data coco fetches what is needed"
WHOLE = ("mean", "pooled")  # of POPE's three splits together
# Settings that do not change what is run, only which figure is read or how often it was measured.
ASIDE = ("split", "runs")
# Methods of the published figures that have another name here.
HERE = {PLAIN: "greedy", "imbalanced_spatial": "imbalanced:spatial=0.05"}


@dataclass(frozen=True)
class Run:
    """One evaluation: what it takes, and which figures it answers.

    Args:
        benchmark: chair or pope.
        setting: as published, without the split.
        decoders: registry names, plain decoding first.
        figures: the published ones.
        left_out: methods that are not in this project.
    """

    benchmark: str
    setting: Mapping[str, Any]
    decoders: tuple[str, ...]
    figures: tuple[Published, ...]
    left_out: tuple[str, ...]

    @property
    def name(self) -> str:
        """As its folder is called."""
        parts = [self.benchmark, *(str(self.setting[k]) for k in ("dataset", "decoding", "max_new_tokens")
                                   if k in self.setting)]  # fmt: skip
        return re.sub(r"[^A-Za-z0-9]+", "-", " ".join(parts)).strip("-")

    @property
    def world(self) -> bool:
        """Whether it is about the embedded world."""
        return str(self.setting.get("dataset", "")).startswith("world")

    @property
    def obstacle(self) -> str | None:
        """Why it cannot be run with what this project has; None where it can."""
        dataset = self.setting.get("dataset", "coco")
        if not str(dataset).startswith(("coco", "world")) or "," in str(dataset):
            return f"questions of {dataset} need images and files of their own"
        if self.generation is None:
            return f"decoding {self.setting['decoding']!r} does not say how"
        return None if len(self.decoders) > 0 else f"no method of it is here ({', '.join(self.left_out)})"

    @property
    def generation(self) -> dict[str, Any] | None:
        """What transformers' generate takes; None where the paper's words leave it open."""
        decoding = str(self.setting.get("decoding", "greedy"))
        out: dict[str, Any] = {}
        if "max_new_tokens" in self.setting:
            out["max_new_tokens"] = self.setting["max_new_tokens"]
        beams, nucleus = re.fullmatch(r"beam (\d+)", decoding), re.fullmatch(r"nucleus (0?\.\d+|1)", decoding)
        if beams:
            out["num_beams"] = int(beams[1])
        elif nucleus or decoding == "sampling":
            share = float(nucleus[1]) if nucleus else 1.0
            out |= {"do_sample": True, "temperature": 1.0, "top_p": share, "top_k": 0}
        elif decoding != "greedy":
            return None
        return out

    @property
    def assumed(self) -> list[str]:
        """Settings that the paper, as far as it is recorded, leaves open, and that are ours."""
        ours = {"decoding": "greedy", "max_new_tokens": "the benchmark's", "images": "500"}
        if self.benchmark == "chair":
            ours["prompt"] = "the benchmark's"
        else:
            ours["suffix"] = "none"
        found = [f"{name}: {value}" for name, value in ours.items() if name not in self.setting]
        built = self.benchmark == "pope" and not self.world
        return [
            *found,
            *(["questions: built from the annotations by POPE's rule, not its released ones"] if built else []),
        ]


@dataclass(frozen=True)
class Line:
    """One figure: ours with its interval, the paper's, and the range of others; all but lengths as shares of 1.

    inside: whether the paper's figure lies in our interval.
    """

    benchmark: str
    setting: Mapping[str, Any]
    method: str
    figure: str
    ours: Mapping[str, Any]
    paper: float
    independent: tuple[float, float] | None
    inside: bool
    source: str


def plan(
    paper: str, model: str, method: str | None = None, benchmark: str | None = None, path: Path = FILE
) -> list[Run]:
    """The runs behind a paper's own figures on a model, those alike joined.

    Raises:
        ValueError: a paper, model or method without figures.
    """
    rows = published(method, model, benchmark, paper=paper, path=path)
    rows = [row for row in rows if row.kind == "paper"]
    if not rows:
        raise ValueError(
            f"{paper} reports no figures of its own on {model}; `veridical reproduce --list` shows what there is."
        )
    grouped: dict[tuple[str, str], list[Published]] = {}
    for row in rows:
        kept = {name: value for name, value in row.setting.items() if name not in ASIDE}
        grouped.setdefault((row.benchmark, json.dumps(kept, sort_keys=True)), []).append(row)
    runs = []
    for (benchmark, setting), part in grouped.items():
        methods = sorted(dict.fromkeys(row.method for row in part), key=lambda name: name != PLAIN)
        here = tuple(HERE.get(name, name) for name in methods if _is_here(name))
        away = tuple(name for name in methods if not _is_here(name))
        if benchmark in RUNNABLE:
            runs.append(Run(benchmark, json.loads(setting), here, tuple(part), away))
    if not runs:
        measured = ", ".join(sorted({row.benchmark for row in rows}))
        raise ValueError(f"{paper} has figures on {measured}; those that can be run here are {', '.join(RUNNABLE)}.")
    return runs


def _is_here(method: str) -> bool:
    try:
        chain(HERE.get(method, method))
    except (LookupError, ValueError):
        return False
    return True


def run(one: Run, base: Evaluation, out: Path, limit: int | None = None) -> Path:
    """Evaluate as a paper did, in a folder below `out`; continues where it was stopped.

    Args:
        base: model, batch size, seed, and where COCO and its synonyms are here. limit: images; None is the paper's.

    Raises:
        FileNotFoundError: COCO is needed, and not there.
        ValueError: as `steps.evaluation`.
    """
    folder = out / one.name
    steps.evaluation(request_of(one, base, limit), str(folder))
    return folder


def request_of(one: Run, base: Evaluation, limit: int | None = None) -> Evaluation:
    """The request of a paper's run; arguments as `run`."""
    coco, synonyms = base.source.coco, base.source.synonyms
    if not one.world and (coco is None or (one.benchmark == "chair" and synonyms is None)):
        lacking = "--coco FOLDER" if coco is None else "--synonyms FILE"
        raise FileNotFoundError(
            f"{one.benchmark} of this paper is on COCO val2014: give {lacking} (annotations/instances_val2014.json, "
            f"captions_val2014.json, the images in val2014/, and CHAIR's synonym file); {NEEDED}."
        )
    places = {"coco": None, "split": None, "synonyms": None} if one.world else {"split": "val2014"}
    protocol = {name: one.setting[name] for name in ("prompt", "suffix") if name in one.setting}
    source = replace(base.source, limit=limit or one.setting.get("images", 500), **places, **protocol)
    return replace(
        base, decoders=one.decoders, benchmarks=[one.benchmark], source=source, generation=one.generation or {}
    )


def beside(one: Run, folder: Path, model: str, path: Path = FILE) -> list[Line]:
    """Ours from a folder of results beside the figures that they are to reproduce."""
    records = {record["decoder"]: record["metrics"] for record in atomic.read_json(folder / RESULTS)}
    lines = []
    for row in one.figures:
        decoder = HERE.get(row.method, row.method)
        split = str(row.setting.get("split", WHOLE[0]))
        figure = row.figure if one.benchmark == "chair" or split in WHOLE else f"{split}_{row.figure}"
        figures = records.get(decoder, {})
        figure = f"mean_{figure}" if split == "mean" and f"mean_{figure}" in figures else figure
        ours = figures.get(figure)
        if ours is None:
            continue
        alike = {name: value for name, value in row.setting.items() if name in ("decoding", "split", "max_new_tokens")}
        band = bands(row.method, model, row.benchmark, figure=row.figure, path=path, **alike).get(row.figure)
        share = row.comparable / row.value if row.value else 1.0
        others = None if band is None or band.independent is None else band.independent
        lines.append(Line(
            one.benchmark, row.setting, row.method, figure, ours, row.comparable,
            None if others is None else (others[0] * share, others[1] * share),
            ours["low"] <= row.comparable <= ours["high"], row.source,
        ))  # fmt: skip
    return lines


def available(path: Path = FILE) -> list[tuple[str, str, str, str, str, str]]:
    """(paper, model, benchmark, decoding, methods, why not or "yes") of everything that papers report themselves."""
    content = json.loads(path.read_text(encoding="utf-8"))
    names = {number: about["name"] for number, about in content["papers"].items()}
    found = []
    pairs = dict.fromkeys((row.paper, row.model) for row in published(path=path) if row.kind == "paper" and row.paper)
    for number, model in pairs:
        try:
            runs = plan(number or "", model, path=path)
        except ValueError as error:
            others = {row.benchmark for row in published(model=model, paper=number, kind="paper", path=path)}
            reason = "not from here" if others - set(RUNNABLE) else str(error)
            found.append((names[number or ""], model, ", ".join(sorted(others)), "", "", reason))
            continue
        for one in runs:
            decoding = str(one.setting.get("decoding", "not stated"))
            methods = ", ".join([*one.decoders, *(f"({name})" for name in one.left_out)])
            able = "yes" if hub_ids(model, path) else "with --checkpoint: no Hub id is known"
            found.append((names[number or ""], model, one.benchmark, decoding, methods, one.obstacle or able))
    return found


def hub_ids(model: str, path: Path = FILE) -> Sequence[str]:
    """Names under which a model of the published figures can be loaded; none where no Hub id is known."""
    return json.loads(path.read_text(encoding="utf-8"))["models"].get(model, [model])
