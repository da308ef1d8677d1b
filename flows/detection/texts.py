"""The texts that detectors are trained and evaluated on: generated greedily, read again with teacher forcing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...datasets.examples import Example
from ...pipelines.model.spec import load
from ..benchmarks.base import Mark, digest
from ..evaluation import answer_file
from ..files.progress import progress
from .request import Detection
from .span_labels import Unit, mentions, units

Pairs = Sequence[tuple[Example, Mapping[str, Any]]]


def texts_path(out: str | Path, part: str) -> Path:
    return Path(out) / "texts" / f"{part}.jsonl"


def write_texts(out: str, part: str) -> str:
    """Generate the texts of a part, greedily: a JSON line each, with its tokens. Returns the path."""
    from ...pipelines.generate import generate, real
    from ...pipelines.model.identity import identity

    request = Detection.read(out)
    examples, unit = request.examples(part), request.benchmark.unit
    path, lvlm = texts_path(out, part), load(request.model)
    settings = {
        **identity(lvlm), "task": request.task, "data_sha256": digest(examples), "max_new_tokens": request.tokens,
        "seed": request.seed,
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        answer_file.continued(path, settings, [e.id for e in examples]) as (there, append),
        progress(f"{part}: {request.task}", len(examples), unit, len(there)) as advance,
    ):
        for group in batches([e for e in examples if e.id not in there], request.batch_size):
            inputs = lvlm.prepare([e.open() for e in group], request.questions(group))
            generation = generate(lvlm, inputs, max_new_tokens=request.tokens, do_sample=False)
            kept = real(generation.ids, lvlm.end_tokens)
            rows = zip(group, generation.ids, kept, generation.text, strict=True)
            append([_row(lvlm, e, ids[mask].tolist(), text) for e, ids, mask, text in rows])
            advance(len(group))
    return str(path)


def records(out: str, part: str, detectors: Sequence[Any]) -> Iterator[tuple[Pairs, Any]]:
    """Batches of texts, (example, row) each, with the record of the detectors' readings under teacher forcing."""
    import torch

    from ...pipelines.generate import teacher_force

    request = Detection.read(out)
    lvlm = load(request.model)
    for pairs in _batches(out, part, "reading"):
        inputs = lvlm.prepare([e.open() for e, _ in pairs], request.questions([e for e, _ in pairs]))
        ids = torch.full((len(pairs), max(len(row["ids"]) for _, row in pairs)), lvlm.pad_token)
        for place, (_, row) in enumerate(pairs):
            ids[place, : len(row["ids"])] = torch.tensor(row["ids"])
        yield pairs, teacher_force(lvlm, inputs, ids, detectors)


def risks_of_texts(
    out: str, part: str, detectors: Sequence[Any]
) -> Iterator[tuple[Pairs, list[Mapping[str, list[float]]]]]:
    """The same batches in the same order, with the risks of detectors that ask the model again: one mapping per text.

    Texts are greedy, samples as long as they may be; a text's seed is its example's place.
    """
    from ...pipelines.procedures import Call
    from ...pipelines.results import Answer
    from ...pipelines.risk.asking import ask

    request = Detection.read(out)
    lvlm, places = load(request.model), {e.id: place for place, e in enumerate(request.examples(part))}
    call = Call(lvlm, (), (), None, {"do_sample": False, "max_new_tokens": request.tokens})
    for pairs in _batches(out, part, "asking again"):
        examples = [e for e, _ in pairs]
        answers = [Answer(row["text"], row["tokens"]) for _, row in pairs]
        seeds = [request.seed + places[e.id] for e in examples]
        ask(call, detectors, [e.open() for e in examples], request.questions(examples), answers, seeds)
        yield pairs, [answer.risk for answer in answers]


def _batches(out: str, part: str, doing: str) -> Iterator[Pairs]:
    """Texts of one length together."""
    request = Detection.read(out)
    examples = {e.id: e for e in request.examples(part)}
    rows = [row for row in answer_file.read_rows(texts_path(out, part)) if row["ids"]]
    rows.sort(key=lambda row: len(row["ids"]))
    with progress(f"{part}: {doing}", len(rows), request.benchmark.unit) as advance:
        for group in batches(rows, request.batch_size):
            yield [(examples[row["id"]], row) for row in group]
            advance(len(group))


# -- units ---------------------------------------------------------------------------------------------------------
def evaluated_units(request: Detection, example: Example, row: Mapping[str, Any]) -> list[Unit]:
    """The mentions of a caption; or the whole answer, if it is a yes or a no."""
    if request.task == "captions":
        return mentions(row["text"], row["tokens"], _marks(request, example, row["text"]))
    answer = yes_or_no(row["text"])
    return [Unit(range(len(row["ids"])), int(answer != example.label))] if answer else []


def trained_units(
    request: Detection, detector: Any, example: Example, row: Mapping[str, Any]
) -> Iterator[tuple[Unit, int]]:
    """Units of the training part, each with the class that the probe learns."""
    from ...detectors.dhcp import answer_class

    if request.task == "captions" and getattr(detector, "is_before", False):  # of the caption as a whole
        wrong = any(not mark.right for mark in _marks(request, example, row["text"]))
        yield Unit([0], int(wrong)), int(wrong)
        return
    if request.task == "captions":
        found = units(request.unit, row["text"], row["tokens"], _marks(request, example, row["text"]))
        yield from ((unit, unit.label) for unit in found)
        return
    last = getattr(detector, "decides_at", "first") == "last"
    for unit in evaluated_units(request, example, row):
        kept = unit if last else unit._replace(tokens=unit.tokens[:1])
        answer: Any = yes_or_no(row["text"])
        truth: Any = example.label
        yield kept, answer_class(answer, truth) if request.classes == 4 else unit.label


def yes_or_no(text: str) -> str | None:
    """ "yes" or "no", if a text begins with it.

    >>> yes_or_no("Yes, there is."), yes_or_no("No"), yes_or_no("Nothing")
    ('yes', 'no', None)
    """
    words = "".join(sign if sign.isalpha() else " " for sign in text.lower()).split()
    return words[0] if words and words[0] in ("yes", "no") else None


# -- helpers -------------------------------------------------------------------------------------------------------
def batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _marks(request: Detection, example: Example, text: str) -> list[Mark]:
    return request.benchmark.marks(request.source("test", 1), example, text)


def _row(lvlm: Any, example: Example, ids: list[int], text: str) -> answer_file.Row:
    shown = [token for token in ids if token not in lvlm.end_tokens]
    pieces = [lvlm.processor.tokenizer.decode([token]) for token in shown]
    return {"id": example.id, "image_id": example.image_id, "text": text, "ids": ids, "tokens": pieces, "error": None}
