"""The steps of an evaluation as plain functions: prepare, answer, score, attend, report.

Only requests, names and paths go in, and paths come out. A step writes its files before the next one starts and reads
what it needs from the folder, so that each can be repeated alone. `flows.evaluate` runs the same functions as Prefect
tasks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...datasets.examples import Example
from ...pipelines.chain import chain, split
from ...pipelines.model.spec import load
from ..benchmarks.base import Benchmark, as_record
from ..benchmarks.registry import BENCHMARKS
from ..files import atomic
from ..files.lock import locked
from ..files.progress import progress
from ..files.run_log import logged
from ..files.run_warnings import begin_run, once_per_run
from . import answer_file, conversation
from .manifest import manifest_of, now
from .request import MANIFEST, RESULTS, Evaluation

if TYPE_CHECKING:
    from ...pipelines.results import Answer


def prepare(request: Evaluation, out: str) -> str:
    """Check all that can be checked before the first answer, and write the manifest. Returns the folder.

    Raises:
        UnknownName, ValueError: a name or a setting that does not exist.
        OtherSettings: the folder holds answers of other settings.
        CannotLoad, UnsupportedModel: as `load`.
    """
    from ...pipelines.registry import DETECTORS

    begin_run(out)
    request.check()
    examples = {name: BENCHMARKS[name].examples(request.source) for name in request.benchmarks}
    with once_per_run(out):
        _check_chains(request, examples)
    lvlm = load(request.model)
    for method in [method for decoder in request.decoders for method in chain(decoder, request.model.name)]:
        if hasattr(method, "fetch"):  # what a method needs beside the model
            method.fetch(lvlm)
    for detector in DETECTORS.make_all(list(request.detectors)):
        if hasattr(detector, "for_model"):  # whose probe may be damaged, or another model's
            detector.for_model(lvlm)
    manifest = manifest_of(request, lvlm, examples)
    for name in request.benchmarks:
        for decoder in request.decoders:
            answer_file.check_settings(
                answer_file.answers_path(out, name, decoder), manifest["settings"][name][decoder]
            )
    atomic.write_json(Path(out) / MANIFEST, manifest)
    return str(out)


def answer(out: str, benchmark: str, decoder: str) -> str:
    """Answer the questions that have no answer yet, and write batch by batch. Returns the file of answers.

    The batches do not depend on where a run was stopped, and so neither do the answers.
    """
    request, manifest = Evaluation.read(out), atomic.read_json(Path(out) / MANIFEST)
    measure, methods = BENCHMARKS[benchmark], chain(decoder, request.model.name)
    examples, size = measure.examples(request.source), request.batch_size
    path = answer_file.answers_path(out, benchmark, decoder)
    options = manifest["benchmarks"][benchmark]["generation"]
    settings, order = manifest["settings"][benchmark][decoder], [e.id for e in examples]
    with (
        answer_file.continued(path, settings, order) as (there, append),
        progress(f"{benchmark} {decoder}", len(examples), measure.unit, len(there)) as advance,
    ):
        texts = {row["id"]: row["text"] for row in answer_file.read_rows(path) if row["error"] is None}
        if all(e.id in there for e in examples):
            return str(path)
        lvlm = load(request.model)
        lengths = conversation.prompt_lengths(lvlm, examples, measure.prompt)
        for places in conversation.batches(examples, size, lengths):
            part = [examples[place] for place in places]
            missing = {e.id for e in part if e.id not in there}
            if not missing:
                continue
            with once_per_run(out):
                questions = conversation.questions(part, examples, measure.prompt, texts)
                answers = conversation.answered(
                    lvlm, part, questions, [request.source.seed + place for place in places], decoders=methods,
                    detectors=list(request.detectors), system=request.source.system, batch_size=size, **options,
                )
            rows = [_row(*one) for one in zip(part, questions, answers, strict=True) if one[0].id in missing]
            append(rows)
            texts |= {row["id"]: row["text"] for row in rows if row["error"] is None}
            advance(len(missing))
    return str(path)


def score(out: str) -> str:
    """Measure the answers and write results.json: a record per decoder and benchmark. Returns its path.

    Raises:
        ValueError: not one image of a benchmark could be used.
    """
    request, manifest = Evaluation.read(out), atomic.read_json(Path(out) / MANIFEST)
    records = []
    for name in request.benchmarks:
        examples = BENCHMARKS[name].examples(request.source)
        for decoder in request.decoders:
            rows = answer_file.rows_of(out, name, decoder, examples)
            records.append({
                "model": request.model.name, "decoder": decoder, "repr": manifest["decoders"][decoder],
                "benchmark": name, **scored(request, BENCHMARKS[name], examples, rows),
            })  # fmt: skip
    path = Path(out) / RESULTS
    atomic.write_json(path, records)
    atomic.write_json(Path(out) / MANIFEST, {**manifest, "finished": now()})
    return str(path)


def attend(out: str) -> str:
    """Read the attention of the texts that the report shows first. Returns the folder of its files."""
    from .attention import attend as read_attention

    return read_attention(out)


def report(out: str) -> str:
    """Write report.html from what is in the folder. Returns its path."""
    from .report import write

    return str(write(out))


Step = Callable[..., str]


@dataclass(frozen=True)
class Steps:
    """The five steps, plain or as tasks of a flow."""

    prepare: Step = prepare
    answer: Step = answer
    score: Step = score
    attend: Step = attend
    report: Step = report


# with a line in run.jsonl each
LOGGED = Steps(logged(prepare, 1), logged(answer), logged(score), logged(attend), logged(report))


def evaluation(request: Evaluation, out: str, steps: Steps = Steps()) -> str:
    """Answer the benchmarks with each decoder in turn, score the answers, write the report. Returns the folder.

    The same request in the same folder continues where an earlier run stopped.

    Raises:
        InUse: another process works on the folder.
    """
    with locked(Path(out)):
        steps.prepare(request, str(out))
        for benchmark in request.benchmarks:
            for decoder in request.decoders:
                steps.answer(str(out), benchmark, decoder)
        steps.score(str(out))
        if request.attention_maps:
            steps.attend(str(out))
        steps.report(str(out))
    return str(out)


def scored(
    request: Evaluation, benchmark: Benchmark, examples: Sequence[Example], rows: Sequence[answer_file.Row]
) -> dict[str, Any]:
    """The figures of one decoder on one benchmark, as results.json holds them.

    Raises:
        ValueError: every row is an error.
    """
    good = [(e, row) for e, row in zip(examples, rows, strict=True) if row["error"] is None]
    if not good:
        raise ValueError(f"none of {len(rows)} images of {benchmark.name} could be used: {rows[0]['error']}")
    found = benchmark.estimates(request.source, [e for e, _ in good], [row["text"] for _, row in good])
    return {
        "metrics": {name: as_record(estimate) for name, estimate in found.items()},
        "answers": len(good), "errors": len(rows) - len(good),
        "seconds_per_image": sum(row["seconds"] for _, row in good) / len(good),
        "acted": _acted([row["acted"] for _, row in good]), "tied": _tied([row for _, row in good]),
    }  # fmt: skip


# -- helpers -------------------------------------------------------------------------------------------------------
def _check_chains(request: Evaluation, examples: Mapping[str, Sequence[Example]]) -> None:
    """Warn of doubtful pairs; refuse what a procedure cannot do before anything is answered."""
    from ...pipelines import compatibility

    for decoder in request.decoders:
        procedure, alone = split(chain(decoder, request.model.name))
        compatibility.check(alone)
        if procedure is None:
            continue
        for name, questions in examples.items():
            if any(example.after for example in questions):
                raise ValueError(f"{decoder} cannot answer {name}, whose second turns follow the model's answers.")
            texts = [example.question or BENCHMARKS[name].prompt or "" for example in questions]
            try:
                procedure.check(texts, request.detectors, request.generation)
            except ValueError as error:
                raise ValueError(f"{decoder} cannot answer {name}: {error}") from error


def _acted(rows: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Per method over all answers: steps, those at which it acted and changed the arg-max, mean KL per step."""
    out: dict[str, dict[str, float]] = {}
    for row in rows:
        for name, counts in row.items():
            sums = out.setdefault(name, {"steps": 0.0, "acted": 0.0, "flipped": 0.0, "kl": 0.0})
            for key in ("steps", "acted", "flipped"):
                sums[key] += counts[key]
            sums["kl"] += counts["kl"] * counts["steps"]
    for sums in out.values():
        sums["kl"] /= max(sums["steps"], 1)
        sums["share"] = sums["acted"] / max(sums["steps"], 1)
    return out


def _tied(rows: Sequence[answer_file.Row]) -> int | None:
    """Answers with a step at which several tokens had the highest score; None where no row knows its own."""
    known = [row["tied"] for row in rows if row.get("tied") is not None]
    return sum(steps > 0 for steps in known) if known else None


def _row(example: Example, question: conversation.Question, answered: Answer) -> answer_file.Row:
    return {
        "id": example.id, "image_id": example.image_id, "image": example.image, "question": example.question,
        **({} if isinstance(question, str) else {"turns": question}),
        "label": example.label, "text": answered.text, "error": answered.error, "seconds": round(answered.seconds, 6),
        "acted": answered.acted, "tokens": answered.tokens if answered.risk else [],
        "risk": {name: [r if math.isfinite(r) else None for r in risk] for name, risk in answered.risk.items()},
        **({} if answered.tied is None else {"tied": answered.tied}),
    }  # fmt: skip
