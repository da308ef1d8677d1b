"""Hallucination against the share of steps that a gate lets a decoder act on: measured, written down, drawn.

Thresholds are quantiles of a detector's risk over plain captions of the validation split; nothing of the test split
chooses anything.
"""

from __future__ import annotations

import hashlib
import math
import shlex
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...metrics.chair_score import ChairScore
from ...metrics.estimate import Estimate, bootstrap, ratio
from ..benchmarks.base import Source, as_record, digest
from ..benchmarks.registry import BENCHMARKS
from ..evaluation import answer_file, provenance
from ..files.progress import progress

if TYPE_CHECKING:
    from ...pipelines.lvlm import LVLM
    from ...pipelines.results import Answer

SHARES = (0.1, 0.2, 0.3, 0.5)
FIGURES = ("chair_i", "chair_s", "recall", "length")
BENCHMARK = BENCHMARKS["chair"]
BY_HAND = "\n<!-- by hand -->\n"


@dataclass(frozen=True)
class Asked:
    """What captions are made of and with: a model, the images of a split, and a folder that keeps what was said."""

    lvlm: LVLM
    source: Source
    batch_size: int
    max_new_tokens: int
    folder: Path

    def captions(self, decoders: Sequence[Any], detectors: Sequence[Any], told: str) -> list[Answer]:
        """One per image. They are read from the folder where the same was asked before."""
        from ...pipelines.results import Answer

        examples = BENCHMARK.examples(self.source)
        settings = {
            "model": self.lvlm.name, "decoders": list(map(repr, decoders)), "detectors": list(map(repr, detectors)),
            "split": self.source.name, "data_sha256": digest(examples), "max_new_tokens": self.max_new_tokens,
            "versions": {name: provenance.versions()[name] for name in ("veridical", "torch", "transformers")},
        }  # fmt: skip
        if probes := _probes(self.lvlm, decoders, detectors):
            settings["probes"] = probes
        path = self.folder / f"{answer_file.file_name(told)}.json"
        if path.exists() and (there := answer_file.read_json(path))["settings"] == settings:
            return [Answer(**row) for row in there["answers"]]
        said = self._ask(examples, decoders, detectors, told)
        rows = [{"text": one.text, "acted": one.acted, "risk": one.risk} for one in said]
        answer_file.write_json(path, {"settings": settings, "answers": rows})
        return said

    def _ask(self, examples: Sequence[Any], decoders: Any, detectors: Any, told: str) -> list[Answer]:
        out: list[Answer] = []
        with progress(told, len(examples), "images") as advance, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a gate that never opens is in the table
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
        said = {e.image_id: answer.text for e, answer in zip(examples, answers, strict=True)}
        return self.source.chair.score(said, {e.image_id: e.objects for e in examples})


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


def measure(
    test: Asked, validation: Asked, decoders: Sequence[str], detectors: Sequence[str], shares: Sequence[float] = SHARES
) -> dict[str, Any]:
    """The curve of every decoder with every detector, as plain values."""
    from ...decoders.gate import Gate
    from ...pipelines.registry import DECODERS, DETECTORS

    read = [DETECTORS.make(name) for name in detectors]
    chosen = {}
    for name, made in zip(detectors, read, strict=True):
        before = validation.captions([], [made], f"plain, {name}, validation")
        chosen[name] = thresholds([r for a in before for r in a.risk[DETECTORS.name_of(made)]], shares)
    plain = test.scored(test.captions([], [], "plain, test"))
    rows: list[dict[str, Any]] = [_row(plain, None, None, "greedy")]
    for decoder in decoders:
        made = DECODERS.make(decoder, test.lvlm.name)
        answers = test.captions([made], [], f"{decoder}, test")
        ungated = test.scored(answers)
        rows.append({**_row(ungated, plain, ungated, decoder), "share": as_record(_share(answers))})
        for detector in detectors:
            for share, threshold in zip(shares, chosen[detector], strict=True):
                gate = Gate(decoder, detector, threshold)
                answers = test.captions([gate], [], f"{decoder}, {detector}, {share:.0%}")
                scored = {**_row(test.scored(answers), plain, ungated, decoder), "share": as_record(_share(answers))}
                rows.append({**scored, "detector": detector, "asked_share": share, "threshold": threshold})
    return {
        "model": test.lvlm.name, "decoders": list(decoders), "detectors": list(detectors), "shares": list(shares),
        "test": {"split": test.source.name, "images": plain.n},
        "validation": {"split": validation.source.name, "images": len(BENCHMARK.examples(validation.source))},
        "max_new_tokens": test.max_new_tokens, "versions": provenance.versions(), "rows": rows,
    }  # fmt: skip


def curve(
    out: Path, model: str = "embedded", decoders: Sequence[str] = ("vcd",), detectors: Sequence[str] = ("entropy",),
    shares: Sequence[float] = SHARES, limit: int = 300, validation: int = 200, batch_size: int = 32,
    coco: str | None = None, split: str | None = None, validation_split: str | None = None,
    synonyms: str | None = None, max_new_tokens: int | None = None, device: str = "auto", dtype: str = "auto",
    revision: str | None = None,
) -> Path:  # fmt: skip
    """Measure and write `out` (Markdown), and beside it the same as .json and .svg. Returns `out`.

    What stands in an existing `out` behind a line "<!-- by hand -->" stays there.

    Captions are kept in a folder of its name, so that a run that was stopped, or one with more methods, goes on.

    Args:
        decoders, detectors: every one with every one. shares: of tokens that a threshold lets pass, on validation.
        limit, validation: images of the two splits.
        coco, split, validation_split, synonyms: as `Source`; without a folder the embedded world.

    Raises:
        ValueError: no decoder, detector or share; a share outside 0 to 1; both splits the same; no Markdown file.
        UnknownName: no such name.
    """
    from ...pipelines.model.spec import ModelSpec, load
    from ...pipelines.registry import DECODERS, DETECTORS
    from .plot import markdown, svg

    if out.suffix != ".md":
        raise ValueError(f"{out} is no Markdown file: name one that ends in .md; .json and .svg go beside it.")
    if not decoders or not detectors or not shares:
        raise ValueError("a curve needs at least one decoder, one detector and one share.")
    if wrong := [share for share in shares if not 0 < share < 1]:
        raise ValueError(f"share={wrong[0]:g} is outside 0 to 1 (of the tokens that the gate lets pass).")
    DECODERS.make_all(decoders)
    DETECTORS.make_all(detectors)
    if coco and not validation_split:
        raise ValueError("a COCO folder needs --validation-split: thresholds are not chosen on the images reported.")
    tested = Source(coco, split, limit, 0, synonyms)
    chosen = replace(tested, split=validation_split or "validation", limit=validation)
    if tested.name == chosen.name:
        raise ValueError(f"thresholds are chosen and reported on {tested.name}: name two different splits.")
    lvlm = load(ModelSpec(model, device, dtype, revision))
    tokens = max_new_tokens or BENCHMARK.max_new_tokens
    folder = out.with_suffix("")
    on = lambda source: Asked(lvlm, source, batch_size, tokens, folder)
    found = measure(on(tested), on(chosen), decoders, detectors, shares)
    told = {
        "-d": decoders, "-t": detectors, "--share": shares, "--limit": limit, "--validation": validation,
        "--model": model, "--coco": coco, "--split": split, "--validation-split": validation_split,
        "--synonyms": synonyms, "--max-new-tokens": max_new_tokens, "--out": out.name,
    }  # fmt: skip
    found["command"] = _command("veridical gate-curve", told)
    behind = out.read_text(encoding="utf-8").partition(BY_HAND)[2] if out.exists() else ""
    answer_file.write_json(out.with_suffix(".json"), found)
    answer_file.write_text(out.with_suffix(".svg"), svg(found))
    answer_file.write_text(out, markdown(found, out.with_suffix(".svg").name) + (BY_HAND + behind if behind else ""))
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
    """A digest of every trained probe that reads along or opens a gate: training anew asks anew."""
    from ...pipelines.generate import ready

    read = ready([*detectors, *(one.detector for one in decoders if hasattr(one, "detector"))], lvlm)
    probes = [one.probe.tensors() for one in read if getattr(one, "probe", None) is not None]
    return [hashlib.sha256(b"".join(t.cpu().numpy().tobytes() for t in one.values())).hexdigest() for one in probes]


def _share(answers: Sequence[Answer]) -> Estimate:
    """Steps at which the one method acted, over all steps, with its interval by image."""
    told: list[Mapping[str, float]] = [next(iter(answer.acted.values())) for answer in answers]
    return ratio([one["acted"] for one in told], [one["steps"] for one in told])


def _command(name: str, options: Mapping[str, Any]) -> str:
    """As it can be typed again; options that are None are left out, lists are repeated."""
    parts = [name]
    for option, value in options.items():
        for one in [value] if isinstance(value, str | int | Path) or value is None else value:
            parts += [] if one is None else [option, shlex.quote(str(one))]
    return " ".join(parts)


def _finite(estimate: Estimate) -> dict[str, Any]:
    """JSON has no nan and no infinity."""
    return {name: value if math.isfinite(value) else None for name, value in as_record(estimate).items()}
