"""Hallucination against the share of steps that a gate lets a decoder act on: measured, written down, drawn.

Thresholds are quantiles of a detector's risk over plain captions of the validation split; nothing of the test split
chooses anything.
"""

from __future__ import annotations

import hashlib
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...metrics.chair_score import ChairScore
from ...metrics.estimate import Estimate, bootstrap, ratio
from ...pipelines.model.spec import ModelSpec
from ..benchmarks.base import Source, as_record, digest
from ..benchmarks.registry import BENCHMARKS
from ..evaluation import answer_file, provenance
from ..files import atomic
from ..files.progress import progress
from ..files.run_warnings import once_per_run

if TYPE_CHECKING:
    from ...pipelines.lvlm import LVLM
    from ...pipelines.results import Answer

SHARES = (0.1, 0.2, 0.3, 0.5)
FIGURES = ("chair_i", "chair_s", "recall", "length")
BENCHMARK = BENCHMARKS["chair"]
VALIDATION = "validation"  # the split of the embedded world that chooses thresholds
BY_HAND = "\n<!-- by hand -->\n"


@dataclass(frozen=True)
class GateCurve:
    """The request of a curve: every decoder with every detector.

    Args:
        shares: of tokens that a threshold lets pass, on validation.
        test, validation: the images that are reported, and those that choose the thresholds.
        max_new_tokens: of a caption; None is the benchmark's number.
    """

    test: Source
    validation: Source
    model: ModelSpec = field(default_factory=lambda: ModelSpec("embedded"))
    decoders: Sequence[str] = ("vcd",)
    detectors: Sequence[str] = ("entropy",)
    shares: Sequence[float] = SHARES
    batch_size: int = 32
    max_new_tokens: int | None = None

    def check(self) -> None:
        """
        Raises:
            ValueError: no decoder, detector or share; a share outside 0 to 1; both splits the same.
            UnknownName: no such name.
        """
        from ...pipelines.registry import DECODERS, DETECTORS

        if not self.decoders or not self.detectors or not self.shares:
            raise ValueError("a curve needs at least one decoder, one detector and one share.")
        if wrong := [share for share in self.shares if not 0 < share < 1]:
            raise ValueError(f"share={wrong[0]:g} is outside 0 to 1 (of the tokens that the gate lets pass).")
        DECODERS.make_all(self.decoders)
        DETECTORS.make_all(self.detectors)
        if self.test.name == self.validation.name:
            raise ValueError(f"thresholds are chosen and reported on {self.test.name}: name two different splits.")

    def command(self, out: Path) -> str:
        """As it can be typed again; options that have their default are left out, lists are repeated."""
        split = self.validation.split
        options: dict[str, Any] = {
            "-d": self.decoders, "-t": self.detectors, "--share": self.shares, "--limit": self.test.limit,
            "--validation": self.validation.limit, "--model": self.model.name, "--coco": self.test.coco,
            "--split": self.test.split, "--validation-split": None if split == VALIDATION else split,
            "--synonyms": self.test.synonyms, "--max-new-tokens": self.max_new_tokens, "--out": out.name,
        }  # fmt: skip
        parts = ["veridical gate-curve"]
        for option, value in options.items():
            for one in [value] if isinstance(value, str | int) or value is None else value:
                parts += [] if one is None else [option, shlex.quote(str(one))]
        return " ".join(parts)


@dataclass(frozen=True)
class Captions:
    """Captions of the images of one split by one model, kept in a folder."""

    lvlm: LVLM
    source: Source
    batch_size: int
    max_new_tokens: int
    folder: Path

    def answers(self, decoders: Sequence[Any], detectors: Sequence[Any], title: str) -> list[Answer]:
        """One per image, read from the folder where it holds those of the same settings."""
        from ...pipelines.results import Answer

        examples = BENCHMARK.examples(self.source)
        settings = {
            "model": self.lvlm.name, "decoders": list(map(repr, decoders)), "detectors": list(map(repr, detectors)),
            "split": self.source.name, "data_sha256": digest(examples), "max_new_tokens": self.max_new_tokens,
            "versions": {name: provenance.versions()[name] for name in ("veridical", "torch", "transformers")},
        }  # fmt: skip
        if probes := _probes(self.lvlm, decoders, detectors):
            settings["probes"] = probes
        path = self.folder / f"{answer_file.file_name(title)}.json"
        if path.exists() and (there := atomic.read_json(path))["settings"] == settings:
            return [Answer(**row) for row in there["answers"]]
        answers = self._generated(examples, decoders, detectors, title)
        rows = [{"text": one.text, "acted": one.acted, "risk": one.risk} for one in answers]
        atomic.write_json(path, {"settings": settings, "answers": rows})
        return answers

    def _generated(self, examples: Sequence[Any], decoders: Any, detectors: Any, title: str) -> list[Answer]:
        out: list[Answer] = []
        with progress(title, len(examples), "images") as advance, once_per_run(self.folder):
            for start in range(0, len(examples), self.batch_size):
                part = examples[start : start + self.batch_size]
                out += self.lvlm.answer(
                    [e.path or e.open() for e in part], [e.question or BENCHMARK.prompt for e in part], decoders,
                    detectors, batch_size=self.batch_size, max_new_tokens=self.max_new_tokens,
                )  # fmt: skip
                advance(len(part))
        return out

    def scored(self, answers: Sequence[Answer]) -> ChairScore:
        examples = BENCHMARK.examples(self.source)
        texts = {e.image_id: answer.text for e, answer in zip(examples, answers, strict=True)}
        return self.source.chair.score(texts, {e.image_id: e.objects for e in examples})


def thresholds(risks: Sequence[float], shares: Sequence[float]) -> list[float]:
    """For each share, the risk that this share of the tokens exceeds.

    >>> thresholds([0.1, 0.2, 0.3, 0.4, 0.5], [0.2, 0.4])
    [0.4, 0.3]
    """
    known = [risk for risk in risks if not math.isnan(risk)]
    if not known:
        raise ValueError("no token has a risk: no threshold can be chosen")
    return [float(np.quantile(known, 1 - share, method="inverted_cdf")) for share in shares]


def kept(plain: ChairScore, ungated: ChairScore, gated: ChairScore, seed: int = 0) -> Estimate:
    """Share of the ungated decoder's CHAIR_i gain that is left: (plain − gated) / (plain − ungated).

    1 keeps all, 0 none; above 1 the gate does better, and below 0 it does worse than plain decoding. All three are
    resampled together, by image. Where the ungated gain may be 0 the interval is wide, and rightly; nan if it is 0.
    """

    def share(sums: np.ndarray) -> np.ndarray:
        wrong, named = sums[..., 0::2], sums[..., 1::2]
        p, u, g = np.moveaxis(wrong / named, -1, 0)
        return np.where(p == u, np.nan, (p - g) / (p - u))

    columns = [[row.counts.hallucinated, row.counts.mentions] for s in (plain, ungated, gated) for row in _rows(s)]
    units = np.concatenate(np.split(np.array(columns), 3), axis=1)
    return bootstrap(units, share, seed=seed)


def measure(request: GateCurve, test: Captions, validation: Captions) -> dict[str, Any]:
    """The curve of every decoder with every detector, as plain values."""
    from ...decoders.gate import Gate
    from ...pipelines.registry import DECODERS, DETECTORS

    chosen = {}
    for name in request.detectors:
        detector = DETECTORS.make(name)
        answers = validation.answers([], [detector], f"plain, {name}, validation")
        risks = [risk for answer in answers for risk in answer.risk[DETECTORS.name_of(detector)]]
        chosen[name] = thresholds(risks, request.shares)
    plain = test.scored(test.answers([], [], "plain, test"))
    rows: list[dict[str, Any]] = [_row(plain, None, None, "greedy")]
    for decoder in request.decoders:
        answers = test.answers([DECODERS.make(decoder)], [], f"{decoder}, test")
        ungated = test.scored(answers)
        rows.append({**_row(ungated, plain, ungated, decoder), "share": as_record(_share(answers))})
        for detector in request.detectors:
            for share, threshold in zip(request.shares, chosen[detector], strict=True):
                answers = test.answers([Gate(decoder, detector, threshold)], [], f"{decoder}, {detector}, {share:.0%}")
                scored = {**_row(test.scored(answers), plain, ungated, decoder), "share": as_record(_share(answers))}
                rows.append({**scored, "detector": detector, "requested_share": share, "threshold": threshold})
    return {
        "model": test.lvlm.name, "decoders": list(request.decoders), "detectors": list(request.detectors),
        "shares": list(request.shares), "test": {"split": test.source.name, "images": plain.n},
        "validation": {"split": validation.source.name, "images": len(BENCHMARK.examples(validation.source))},
        "max_new_tokens": test.max_new_tokens, "versions": provenance.versions(), "rows": rows,
    }  # fmt: skip


def curve(request: GateCurve, out: Path) -> Path:
    """Measure and write `out` (Markdown), and beside it the same as .json and .svg. Returns `out`.

    In an existing `out`, everything behind a line "<!-- by hand -->" is kept. Captions are kept in a folder of its
    name, so that a run that was stopped, or one with more methods, continues.

    Raises:
        ValueError: no Markdown file, or as `GateCurve.check`. ImportError: no matplotlib (extra `plots`).
    """
    from ...pipelines.model.spec import load
    from .plot import markdown, require, svg

    if out.suffix != ".md":
        raise ValueError(f"{out} is no Markdown file: name one that ends in .md; .json and .svg go beside it.")
    require()
    request.check()
    lvlm = load(request.model)
    tokens = request.max_new_tokens or BENCHMARK.max_new_tokens
    on = lambda source: Captions(lvlm, source, request.batch_size, tokens, out.with_suffix(""))
    found = {**measure(request, on(request.test), on(request.validation)), "command": request.command(out)}
    behind = out.read_text(encoding="utf-8").partition(BY_HAND)[2] if out.exists() else ""
    atomic.write_json(out.with_suffix(".json"), found)
    atomic.write_text(out.with_suffix(".svg"), svg(found))
    atomic.write_text(out, markdown(found, out.with_suffix(".svg").name) + (BY_HAND + behind if behind else ""))
    return out


# -- helpers -------------------------------------------------------------------------------------------------------
def _rows(score: ChairScore) -> list[Any]:
    return list(score.per_caption.values())


def _row(score: ChairScore, plain: ChairScore | None, ungated: ChairScore | None, decoder: str) -> dict[str, Any]:
    found = score.estimates()
    left = None if plain is None or ungated is None or ungated is score else _finite(kept(plain, ungated, score))
    figures = {name: as_record(found[name]) for name in FIGURES}
    return {"decoder": decoder, "detector": None, "share": None, "threshold": None, "kept": left, **figures}


def _probes(lvlm: LVLM, decoders: Sequence[Any], detectors: Sequence[Any]) -> list[str]:
    """A digest of every trained probe that reads along or opens a gate: another training is another setting."""
    from ...pipelines.generate import ready

    read = ready([*detectors, *(one.detector for one in decoders if hasattr(one, "detector"))], lvlm)
    probes = [one.probe.tensors() for one in read if getattr(one, "probe", None) is not None]
    return [hashlib.sha256(b"".join(t.cpu().numpy().tobytes() for t in one.values())).hexdigest() for one in probes]


def _share(answers: Sequence[Answer]) -> Estimate:
    """Steps at which the one method acted, over all steps, with its interval by image."""
    acted: list[Mapping[str, float]] = [next(iter(answer.acted.values())) for answer in answers]
    return ratio([one["acted"] for one in acted], [one["steps"] for one in acted])


def _finite(estimate: Estimate) -> dict[str, Any]:
    """JSON has no nan and no infinity."""
    return {name: value if math.isfinite(value) else None for name, value in as_record(estimate).items()}
