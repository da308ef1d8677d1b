"""Caption with every candidate, choose, certify, and write the setting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..benchmarks.registry import BENCHMARKS
from ..evaluation import answer_file, steps
from ..evaluation.manifest import now
from ..evaluation.provenance import versions
from ..evaluation.request import MANIFEST, shown
from ..files import atomic
from . import certify
from .losses import Losses, losses, recorded, thresholds
from .request import BENCHMARK, PLAIN, Choice


def choose(request: Choice, out: Path) -> dict[str, Any]:
    """Write the setting file `out`; its record is given back.

    The captions are evaluations in a folder of its name: stopped, the same request continues.

    Raises:
        ValueError: as `Choice.check`; too few images without an error; another suffix than .json.
    """
    if out.suffix != ".json":
        raise ValueError(f"{out} is no JSON file: name one that ends in .json; a folder of its name goes beside it.")
    request.check()
    folder = out.with_suffix("")
    steps.evaluation(request.evaluation(request.candidates), str(folder / "plain"))
    runs = {"plain": request.candidates}
    if gates := gated(request, folder / "plain"):
        steps.evaluation(request.evaluation(gates), str(folder / "gated"))
        runs["gated"] = gates
    found, certified = of_runs(request, {folder / name: decoders for name, decoders in runs.items()})
    written = {**_named(request, certified, folder / "plain"), **certify.record(request, certified, found)}
    atomic.write_json(out, written)
    return written


def gated(request: Choice, plain: Path) -> list[str]:
    """Every candidate behind gates that let it act at the requested shares of the tokens of the calibration part."""
    from ..gating.curve import thresholds as quantiles

    if not request.gate_shares:
        return []
    rows = _rows(request, plain, PLAIN)
    calibration, _ = certify.divide(len(rows), request)
    name = _risk_name(request)
    risks = [risk for image in calibration for risk in rows[image]["risk"][name] if risk is not None]
    return [
        f"gate:decoder={decoder!r},detector={request.detector!r},threshold={limit!r}"
        for decoder in request.candidates if decoder != PLAIN for limit in quantiles(risks, request.gate_shares)
    ]  # fmt: skip


def of_runs(request: Choice, runs: dict[Path, Sequence[str]]) -> tuple[list[Losses], certify.Certified]:
    """The losses of every candidate of some folders of results, and what is certified from them.

    Images that a candidate has no caption of are left out for all.

    Raises:
        ValueError: too few images are left.
    """
    examples = BENCHMARKS[BENCHMARK].examples(request.source)
    tables = {decoder: _rows(request, folder, decoder) for folder, decoders in runs.items() for decoder in decoders}
    good = [n for n in range(len(examples)) if all(rows[n]["error"] is None for rows in tables.values())]
    request.enough(len(good))
    calibration, certification = certify.divide(len(good), request)
    found = []
    for decoder, rows in tables.items():
        one = recorded(decoder, _risk_name(request), [examples[n] for n in good], [rows[n] for n in good])
        found.append(losses(one, request.source.chair, thresholds(one, calibration.tolist())))
    return found, certify.choose(request, found, calibration, certification)


def _rows(request: Choice, folder: Path, decoder: str) -> list[answer_file.Row]:
    return answer_file.rows_of(str(folder), BENCHMARK, decoder, BENCHMARKS[BENCHMARK].examples(request.source))


def _risk_name(request: Choice) -> str:
    from ...pipelines.registry import DETECTORS

    return DETECTORS.name_of(DETECTORS.make(request.detector))


def _named(request: Choice, certified: certify.Certified, run: Path) -> dict[str, Any]:
    """What `caption --setting` needs: model, decoder and request, as they were certified."""
    part = atomic.read_json(run / MANIFEST)["benchmarks"][BENCHMARK]
    setting = None if certified.losses is None else certified.losses.setting(certified.at, request.detector)
    return {
        "setting": setting, "repr": None if setting is None else shown(setting, request.model.name),
        "model": request.model.record(), "prompt": part["question"], "generation": part["generation"],
        "request": request.record(), "versions": versions(), "written": now(),
    }  # fmt: skip
