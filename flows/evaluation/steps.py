"""The steps of an evaluation as plain functions: prepare, answer, score, report.

Only names, paths and numbers go in and out. A step writes its files before the next one starts and reads what it needs
from the folder, so that each can be repeated alone. `flows.evaluate` runs the same functions as Prefect tasks.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...datasets.examples import Example
from ...pipelines.model import spec
from ...pipelines.model.spec import ModelSpec
from ..benchmarks.base import Benchmark, Source, as_record
from ..benchmarks.registry import BENCHMARKS
from ..files.progress import progress
from . import answer_file, conversation, provenance
from .manifest import about_benchmark, about_model, files_of, now, settings_of, template

if TYPE_CHECKING:
    from ...pipelines.lvlm import LVLM
    from ...pipelines.results import Answer

MANIFEST, RESULTS, REPORT = "manifest.json", "results.json", "report.html"


@dataclass(frozen=True)
class Request:
    """Everything that was asked for, in plain values.

    decoders: one name each, or several joined by "+", which compose in that order. out: the folder. generation: what
    transformers' generate takes, over the benchmark's own number of new tokens.
    """

    model: str
    decoders: Sequence[str]
    detectors: Sequence[str]
    benchmarks: Sequence[str]
    source: Source
    batch_size: int
    device: str
    dtype: str
    revision: str | None
    generation: Mapping[str, Any]
    quantization: str | None = None
    attention: str | None = None

    @classmethod
    def read(cls, out: str) -> Request:
        """As the manifest of a folder has it."""
        asked = answer_file.read_json(Path(out) / MANIFEST)["request"]
        return cls(**{**asked, "source": Source(**asked["source"])})


def chain(decoder: str, model: str = "") -> list[Any]:
    """The procedure and decoders that a name stands for, in order: "vsv+vcd:alpha=2" is two; "greedy" is none.

    model: its name; fields that the text leaves open take the paper's values for it, where it has some.

    Raises:
        UnknownName, ValueError: as `procedures.make_chain`; a pair that has no meaning.
    """
    from ...pipelines import compatibility
    from ...pipelines.procedures import make_chain, name_of

    made = [one for one in make_chain(re.split(r"\+(?=[A-Za-z])", decoder), model) if name_of(one) != "greedy"]
    compatibility.refuse(made)
    return made


def shown(decoder: str, model: str = "") -> str:
    """The configuration behind a decoder's name, defaults included: the paper's own for this model, if it has some."""
    return " + ".join(map(repr, chain(decoder, model))) or "plain decoding"


def benchmark_of(name: str) -> Benchmark:
    """The benchmark of that name.

    Raises:
        ValueError: no such benchmark; says which there are.
    """
    if name not in BENCHMARKS:
        raise ValueError(f'no benchmark "{name}". Known: {", ".join(sorted(BENCHMARKS))}.')
    return BENCHMARKS[name]


def load_model(
    name: str, device: str, dtype: str, revision: str | None, quantization: str | None = None,
    attention: str | None = None,
) -> LVLM:  # fmt: skip
    """The model, loaded once for all steps of a process."""
    return spec.load(ModelSpec(name, device, dtype, revision, quantization, attention))


# -- the steps -----------------------------------------------------------------------------------------------------
def prepare(
    model: str, decoders: Sequence[str], detectors: Sequence[str], benchmarks: Sequence[str], limit: int, seed: int,
    out: str, batch_size: int, coco: str | None, split: str | None, synonyms: str | None, device: str, dtype: str,
    revision: str | None, generation: Mapping[str, Any], protocol: Mapping[str, Any],
    quantization: str | None = None, attention: str | None = None,
) -> str:  # fmt: skip
    """Check all that can be checked before the first answer, and write the manifest. Returns the folder.

    Raises:
        UnknownName, ValueError: a name or a setting that does not exist.
        OtherSettings: the folder holds answers made with other settings.
        CannotLoad, UnsupportedModel: as `load`.
    """
    from ...pipelines.registry import DETECTORS

    decoders, benchmarks = list(dict.fromkeys(decoders)), list(dict.fromkeys(benchmarks))
    for what, names in (("decoder", decoders), ("benchmark", benchmarks)):
        if not names:
            raise ValueError(f"no {what} to run; name at least one.")
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} is below 1 (images at a time).")
    configured = {decoder: shown(decoder, model) for decoder in decoders}
    reading = {detector: repr(DETECTORS.make(detector)) for detector in detectors}
    chosen = {name: benchmark_of(name) for name in benchmarks}
    source = Source(coco, split, limit, seed, synonyms, **protocol)
    asked = {name: benchmark.examples(source) for name, benchmark in chosen.items()}
    _check_chains(decoders, detectors, chosen, asked, generation)
    lvlm = load_model(model, device, dtype, revision, quantization, attention)
    for fetch in (getattr(one, "fetch", None) for decoder in decoders for one in chain(decoder, model)):
        if fetch is not None:  # what a method needs beside the model
            fetch(lvlm)
    parts = {name: about_benchmark(lvlm, chosen[name], source, asked[name], generation) for name in benchmarks}
    told = provenance.versions()
    common = {
        **about_model(lvlm), "detectors": list(reading.values()), "dataset": source.name, "limit": limit, "seed": seed,
        **{f"version of {name}": told[name] for name in ("veridical", "torch", "transformers")},
    }  # fmt: skip
    settings = {
        name: {
            decoder: {**common, "decoder": configured[decoder], "benchmark": name, **settings_of(parts[name])}
            for decoder in decoders
        }
        for name in benchmarks
    }
    for name in benchmarks:
        for decoder in decoders:
            answer_file.check_settings(answer_file.answers_path(out, name, decoder), settings[name][decoder])
    request = {
        "model": model, "decoders": decoders, "detectors": list(detectors), "benchmarks": benchmarks,
        "source": asdict(source), "batch_size": batch_size, "device": device,
        "dtype": dtype, "revision": revision, "generation": dict(generation), "quantization": quantization,
        "attention": attention,
    }  # fmt: skip
    manifest = {
        "request": request, "model": {**about_model(lvlm), "template": template(lvlm)},
        "decoders": configured, "detectors": reading, "benchmarks": parts, "dataset": source.name,
        "files": files_of(source), "seed": seed, "versions": told, "hardware": provenance.hardware(),
        "started": now(), "finished": None, "settings": settings,
    }  # fmt: skip
    answer_file.write_json(Path(out) / MANIFEST, manifest)
    return str(out)


def answer(out: str, benchmark: str, decoder: str) -> str:
    """Ask what has no answer yet, batch by batch, and write each batch at once. Returns the file of answers.

    Batches are the same wherever a run was stopped, so that the answers are too.
    """
    request, asker = Request.read(out), BENCHMARKS[benchmark]
    manifest = answer_file.read_json(Path(out) / MANIFEST)
    asked, size = asker.examples(request.source), request.batch_size
    path = answer_file.answers_path(out, benchmark, decoder)
    options = manifest["benchmarks"][benchmark]["generation"]
    with (
        answer_file.continued(path, manifest["settings"][benchmark][decoder], [e.id for e in asked]) as (there, append),
        progress(f"{benchmark} {decoder}", len(asked), asker.unit, len(there)) as advance,
    ):
        texts = {row["id"]: row["text"] for row in answer_file.read_rows(path) if row["error"] is None}
        for start, part in conversation.batches(asked, size):
            missing = [e for e in part if e.id not in there]
            if not missing:
                continue
            lvlm = load_model(
                request.model, request.device, request.dtype, request.revision, request.quantization, request.attention
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a method that never acted is in the results
                asks = conversation.questions(part, asked, asker.prompt, texts)
                answers = conversation.answered(
                    lvlm, part, asks, request.source.seed + start, decoders=chain(decoder, lvlm.name),
                    detectors=list(request.detectors), system=request.source.system, batch_size=size, **options,
                )
            texts |= {e.id: a.text for e, a in zip(part, answers, strict=True) if a.error is None and e.id not in there}
            told = zip(part, asks, answers, strict=True)
            append([_row(e, question, a) for e, question, a in told if e.id not in there])
            advance(len(missing))
    return str(path)


def score(out: str) -> str:
    """Measure what was answered and write results.json: a record per decoder and benchmark. Returns its path.

    Raises:
        ValueError: not one image of a benchmark could be used.
    """
    request, manifest = Request.read(out), answer_file.read_json(Path(out) / MANIFEST)
    records = []
    for name in request.benchmarks:
        asked = BENCHMARKS[name].examples(request.source)
        for decoder in request.decoders:
            rows = rows_of(out, name, decoder, asked)
            records.append({
                "model": request.model, "decoder": decoder, "repr": manifest["decoders"][decoder], "benchmark": name,
                **_scored(request, BENCHMARKS[name], asked, rows),
            })  # fmt: skip
    path = Path(out) / RESULTS
    answer_file.write_json(path, records)
    answer_file.write_json(Path(out) / MANIFEST, {**manifest, "finished": now()})
    return str(path)


def report(out: str) -> str:
    """Write report.html from what is in the folder. Returns its path."""
    from .report import write

    return str(write(out))


Step = Callable[..., str]


@dataclass(frozen=True)
class Steps:
    """The four steps, plain or as tasks of a flow."""

    prepare: Step = prepare
    answer: Step = answer
    score: Step = score
    report: Step = report


def evaluation(
    model: str = "embedded", decoders: Sequence[str] = ("greedy",), detectors: Sequence[str] = (),
    benchmarks: Sequence[str] = ("pope", "chair"), limit: int = 500, seed: int = 0, out: str = "runs/evaluation",
    batch_size: int = 16, coco: str | None = None, split: str | None = None, synonyms: str | None = None,
    device: str = "auto", dtype: str = "auto", revision: str | None = None,
    generation: Mapping[str, Any] | None = None, protocol: Mapping[str, Any] | None = None, steps: Steps = Steps(),
    quantization: str | None = None, attention: str | None = None,
) -> str:  # fmt: skip
    """Ask a model with each decoder in turn, score the answers, write the report. Returns the folder.

    Run again with the same arguments it goes on where it was stopped.

    Args:
        model, device, dtype, revision, quantization, attention: as `load`.
        decoders: a row of the tables each, such as "greedy", "vcd", "vista:strength=0.1", "vsv+vcd".
        detectors: read along; the risk of every token is kept with its answer.
        benchmarks: names in `benchmarks.BENCHMARKS`, such as "chair".
        limit: number of images. seed: of images drawn, negatives, and sampling.
        coco, split, synonyms: as `Source`; without a folder the embedded world.
        generation: what transformers' generate takes, such as max_new_tokens or num_beams.
        protocol: how it is asked and read where that is not the benchmark's own way, and other fields of `Source`:
            prompt, suffix, system, pope, images, data.
    """
    steps.prepare(
        model, list(decoders), list(detectors), list(benchmarks), limit, seed, str(out), batch_size, coco, split,
        synonyms, device, dtype, revision, dict(generation or {}), dict(protocol or {}), quantization, attention,
    )  # fmt: skip
    for benchmark in dict.fromkeys(benchmarks):
        for decoder in dict.fromkeys(decoders):
            steps.answer(str(out), benchmark, decoder)
    steps.score(str(out))
    steps.report(str(out))
    return str(out)


# -- helpers -------------------------------------------------------------------------------------------------------
def rows_of(out: str, benchmark: str, decoder: str, asked: Sequence[Example]) -> list[answer_file.Row]:
    """The answers to all that was asked, in its order.

    Raises:
        ValueError: some are missing.
    """
    path = answer_file.answers_path(out, benchmark, decoder)
    rows = {row["id"]: row for row in answer_file.read_rows(path)}
    missing = [e.id for e in asked if e.id not in rows]
    if missing:
        raise ValueError(f"{path} lacks {len(missing)} of {len(asked)} answers, such as {missing[0]!r}; run it again.")
    return [rows[e.id] for e in asked]


def _check_chains(
    decoders: Sequence[str], detectors: Sequence[str], chosen: Mapping[str, Benchmark],
    asked: Mapping[str, Sequence[Example]], generation: Mapping[str, Any],
) -> None:  # fmt: skip
    """Warn of doubtful pairs; refuse what a procedure cannot do before anything is answered."""
    from ...pipelines import compatibility
    from ...pipelines.procedures import split

    for decoder in decoders:
        procedure, alone = split(chain(decoder))
        compatibility.check(alone)
        if procedure is None:
            continue
        for name, benchmark in chosen.items():
            if any(example.after for example in asked[name]):
                raise ValueError(f"{decoder} cannot be asked {name}, whose second turns follow the model's answers.")
            questions = [example.question or benchmark.prompt or "" for example in asked[name]]
            try:
                procedure.check(questions, detectors, generation)
            except ValueError as error:
                raise ValueError(f"{decoder} cannot be asked {name}: {error}") from error


def _scored(
    request: Request, benchmark: Benchmark, asked: Sequence[Example], rows: Sequence[answer_file.Row]
) -> dict[str, Any]:
    good = [(e, row) for e, row in zip(asked, rows, strict=True) if row["error"] is None]
    if not good:
        raise ValueError(f"none of {len(rows)} images of {benchmark.name} could be used: {rows[0]['error']}")
    found = benchmark.estimates(request.source, [e for e, _ in good], [row["text"] for _, row in good])
    return {
        "metrics": {name: as_record(estimate) for name, estimate in found.items()},
        "answers": len(good), "errors": len(rows) - len(good),
        "seconds_per_image": sum(row["seconds"] for _, row in good) / len(good),
        "acted": _acted([row["acted"] for _, row in good]),
    }  # fmt: skip


def _acted(rows: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Per method over all answers: steps, those at which it acted and changed the arg-max, mean KL per step."""
    out: dict[str, dict[str, float]] = {}
    for row in rows:
        for name, told in row.items():
            sums = out.setdefault(name, {"steps": 0.0, "acted": 0.0, "flipped": 0.0, "kl": 0.0})
            for key in ("steps", "acted", "flipped"):
                sums[key] += told[key]
            sums["kl"] += told["kl"] * told["steps"]
    for sums in out.values():
        sums["kl"] /= max(sums["steps"], 1)
        sums["share"] = sums["acted"] / max(sums["steps"], 1)
    return out


def _row(example: Example, question: conversation.Asked, answered: Answer) -> answer_file.Row:
    return {
        "id": example.id, "image_id": example.image_id, "image": example.image, "question": example.question,
        **({} if isinstance(question, str) else {"turns": question}),
        "label": example.label, "text": answered.text, "error": answered.error, "seconds": round(answered.seconds, 6),
        "acted": answered.acted, "tokens": answered.tokens if answered.risk else [],
        "risk": {name: [r if math.isfinite(r) else None for r in risk] for name, risk in answered.risk.items()},
    }  # fmt: skip
