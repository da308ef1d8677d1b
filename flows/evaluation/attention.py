"""The attention behind an evaluation's texts, read after the answers, for the examples that a report shows first."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...datasets.examples import Example
from ...pipelines.model.spec import load
from ..benchmarks.registry import BENCHMARKS
from ..files import atomic
from ..files.progress import progress
from ..files.run_warnings import once_per_run
from ..report.attended import attended
from . import answer_file
from .choice import chosen
from .request import Evaluation

if TYPE_CHECKING:
    from ...pipelines.lvlm import LVLM

FOLDER = "attention"



def attend(out: str) -> str:
    """Read the attention of the first examples' texts and write attention/<benchmark>/<decoder>.jsonl.

    One teacher-forced pass of the model, without decoders, over each finished text: what the model looks at, at the
    position before each token, mean over layers and heads. It comes after the answers, so that their seconds are theirs
    alone, and costs about as much as reading the prompt again: one forward pass for each text.

    Returns the folder. A family without a grid of image positions gets none, with a warning that gives the reason.
    """
    request, folder = Evaluation.read(out), Path(out) / FOLDER
    for name in request.benchmarks if request.attention_maps else ():
        examples = BENCHMARKS[name].examples(request.source)
        first = [examples[index] for index in chosen(out, request, BENCHMARKS[name], request.attention_maps)]
        first = [example for example in first if not example.after]
        with progress(f"attention {name}", len(first) * len(request.decoders), "texts") as advance:
            for decoder in request.decoders:
                rows = {row["id"]: row for row in answer_file.read_rows(answer_file.answers_path(out, name, decoder))}
                path = attention_path(out, name, decoder)
                there = {row["id"]: row for row in read(path)}
                found = []
                for start in range(0, len(first), request.batch_size):
                    part = first[start : start + request.batch_size]
                    new = [e for e in part if there.get(e.id, {}).get("text") != rows[e.id]["text"]]
                    new = [e for e in new if rows[e.id]["error"] is None and rows[e.id]["text"].strip()]
                    with once_per_run(out):
                        fresh = _read(load(request.model), new, rows, BENCHMARKS[name].prompt, request.source.system)
                    if fresh is None:
                        return str(folder)
                    found += fresh + [there[e.id] for e in part if e.id in there and e not in new]
                    advance(len(part))
                lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found)
                path.parent.mkdir(parents=True, exist_ok=True)
                atomic.write_text(path, lines)
    return str(folder)


def attention_path(out: str | Path, benchmark: str, decoder: str) -> Path:
    return Path(out) / FOLDER / benchmark / f"{answer_file.file_name(decoder)}.jsonl"


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of attention; none where there is no file.

    A row: id, and what `report.attended` reads.
    """
    return answer_file.read_rows(path)


def _read(
    lvlm: LVLM, examples: Sequence[Example], rows: Mapping[str, Any], prompt: str | None, system: str | None
) -> list[dict[str, Any]] | None:  # fmt: skip
    if not examples:
        return []
    images = [example.path or example.open() for example in examples]
    questions = [example.question or prompt or "" for example in examples]
    found = attended(lvlm, images, questions, [rows[example.id]["text"] for example in examples], system)
    return None if found is None else [{"id": e.id, **row} for e, row in zip(examples, found, strict=True)]
