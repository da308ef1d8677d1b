"""The comparison of detectors: figures with intervals, for the terminal, a results file and a card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...metrics import ranking
from ..benchmarks.base import as_record
from ..evaluation import provenance
from ..evaluation.text import interval, markdown_table
from ..files import atomic
from .request import REQUEST, RESULTS, RISKS

CONFIG = "config.json"
CONTROL, CHANCE, QUESTION = "position", "random", "question"
COLUMNS = {
    "auroc": "AUROC ↑", "auprc": "AUPRC ↑", "ece": "ECE ↓", "auroc_at_equal_position": "AUROC at equal position ↑",
    "above_position": "AUROC − position's ↑",
}  # fmt: skip
CONTROLS = {CHANCE: "uniform noise", QUESTION: "how often the same question is answered wrongly about other images"}
UNITS = {"captions": "mentions", "pope": "answers"}


def measured(out: str) -> str:
    """Write results.json from risks.json: a row per detector, the control and a random risk. Returns its path.

    Raises:
        ValueError: there is no unit.
    """
    found, request = atomic.read_json(Path(out) / RISKS), atomic.read_json(Path(out) / REQUEST)
    labels, images = found["labels"], found["images"]
    if not labels:
        raise ValueError(f"{out}: no {UNITS[request['task']]} among {request['test_images']} images; take more images.")
    risks = {**found["risks"], CHANCE: np.random.default_rng(request["seed"]).random(len(labels)).tolist()}
    questions = found.get("questions", [])
    if len(set(questions)) > 1:
        risks[QUESTION] = question_risk(questions, labels, images, request["seed"])
    positions = found["positions"] if len(set(found["positions"])) > 1 else None
    rows = []
    for name, risk in risks.items():
        about = found["detectors"].get(name, {"repr": CONTROLS.get(name), "probability": True, "trained": None})
        figures = ranking.estimates(risk, labels, images, positions, about["probability"])
        figures["above_position"] = ranking.difference(risk, risks[CONTROL], labels, images)
        rows.append({"detector": name, **about, "metrics": {key: as_record(value) for key, value in figures.items()}})
    results = {
        "task": request["task"], "model": request["model"], "images": len(set(images)), "units": len(labels),
        "hallucinated": sum(labels), "rows": rows, "versions": provenance.versions(), "request": request,
    }  # fmt: skip
    path = Path(out) / RESULTS
    atomic.write_json(path, results)
    config = Path(out) / CONFIG
    if request["trained"] and config.exists():
        own = [row for row in rows if row["detector"] not in CONTROLS][-1]  # the trained one stands last
        kept = {"task": request["task"], "images": results["images"], "units": len(labels), **own["metrics"]}
        atomic.write_json(config, {**atomic.read_json(config), "metrics": kept})
    return str(path)


def question_risk(
    questions: Sequence[str], labels: Sequence[int], images: Sequence[str], seed: int = 0
) -> list[float]:  # fmt: skip
    """A control that knows the question and nothing of the image: its share of wrong answers about other images.

    Images are cut into two halves by the seed; (wrong + share of all) / (answers + 1) of one half is the risk in the
    other; where that half is empty, for a single image, it is a half.

    >>> question_risk(["cat?", "dog?"] * 2, [1, 0, 1, 0], ["a", "a", "b", "b"])
    [0.75, 0.25, 0.75, 0.25]
    >>> question_risk(["cat?", "dog?"], [1, 0], ["a", "a"])
    [0.5, 0.5]
    """
    names = list(dict.fromkeys(images))
    first = set(np.random.default_rng(seed).permutation(names)[: len(names) // 2].tolist())
    half = np.array([image in first for image in images])
    wrong, out = np.asarray(labels, dtype=float), np.zeros(len(images))
    question = np.unique(questions, return_inverse=True)[1]
    for side in (half, ~half):
        prior = wrong[~side].mean() if (~side).any() else 0.5
        sums, counts = (np.bincount(question[~side], w, question.max() + 1) for w in (wrong[~side], None))
        out[side] = ((sums + prior) / (counts + 1))[question[side]]
    return out.tolist()


def title(results: Mapping[str, Any]) -> str:
    share = results["hallucinated"] / results["units"]
    what = UNITS[results["task"]]
    return f"{results['task']}: {results['units']} {what}, {share:.1%} hallucinated, {results['images']} images"


def markdown(results: Mapping[str, Any]) -> str:
    """The table for a card."""
    head, *rows = cells(results)
    called = {row["detector"]: _called(row) for row in results["rows"]}
    table = markdown_table([*head, "cost"], [[called[name], *figures, cost_of(name)] for name, *figures in rows])
    return f"### {title(results)}\n\n{table}"


def cost_of(name: str) -> str:
    """What a detector costs beside the text, by its row; of a control, "–".

    >>> cost_of("lookback_lens:weights=none"), cost_of("random")
    ('the attention of all layers again', '–')
    """
    from ...pipelines.registry import DETECTORS

    row = DETECTORS.names.get(name.partition(":")[0])
    return row.cost or "–" if row else "–"


def cells(results: Mapping[str, Any]) -> list[list[str]]:
    """Headings, then a row per detector, the best first."""
    there = {name for row in results["rows"] for name in row["metrics"]}
    columns = {name: heading for name, heading in COLUMNS.items() if name in there}
    best = sorted(results["rows"], key=lambda row: -row["metrics"]["auroc"]["value"])
    return [
        ["detector", *columns.values()],
        *([row["detector"], *(interval(row["metrics"].get(name)) for name in columns)] for row in best),
    ]


def _called(row: Mapping[str, Any]) -> str:
    """A detector's name without the folder of its probe, and what that was trained on.

    >>> _called({"detector": 'dhcp:rows=own,weights="runs/dhcp"', "trained": "words"})
    '`dhcp:rows=own`, trained on words'
    """
    name, _, fields = row["detector"].partition(":")
    kept = ",".join(field for field in fields.split(",") if field and not field.startswith("weights="))
    return f"`{name}{':' if kept else ''}{kept}`" + (f", trained on {row['trained']}" if row["trained"] else "")


_CARD = """---
license: apache-2.0
---
# Trained detectors for the embedded LVLM

{shipped}

They belong to the embedded LVLM and are refused on any other model. Nothing in these folders is run: config.json says
how each was made, detector.safetensors holds its weights.

## What they score

{n}95 % bootstrap intervals by image (1000 resamples). A risk is that of a mention's first token, or that of the answer;
the parts for training and for testing share no image, and nothing was chosen on the test part. Of the controls
`position` knows only where the token stands, `question` how often the same question is answered wrongly about other
images, and `random` nothing. AUROC at equal position compares only mentions that stand at the same place of their
captions. ECE is given where the risk claims to be a probability.

{tables}

{notes}Measured with {versions}, by `veridical evaluate-detectors`.
"""


def write_card(path: Path, folders: Sequence[str], notes: str = "") -> Path:
    """Write a card for the trained detectors beside it, with the results in these folders. Returns its path."""
    results = [atomic.read_json(Path(folder) / RESULTS) for folder in folders]
    shipped = [_about(config) for config in sorted(path.parent.glob(f"*/{CONFIG}"))]
    versions = results[0]["versions"]
    text = _CARD.format(
        shipped="\n".join(shipped), n="", tables="\n\n".join(markdown(one) for one in results),
        notes=f"{notes.strip()}\n\n" if notes else "",
        versions=", ".join(f"{name} {versions[name]}" for name in ("veridical", "transformers", "torch")),
    )  # fmt: skip
    atomic.write_text(path, text)
    return path


def _about(config: Path) -> str:
    content = json.loads(config.read_text(encoding="utf-8"))
    data, counts = content["data"], content["classes"]
    wrong = counts[-1] if len(counts) == 2 else sum(counts[len(counts) // 2 :])
    return (
        f"- `{config.parent.name}`: {content['detector']}, {content['probe']} on {content['features']} features, "
        f"trained on {content['items']:,} {data['unit']} ({wrong:,} hallucinated) about {data['images']:,} images of "
        f"{data['source']}, seed {content['seed']}."
    )
