"""Answers that were released: POPE's under both labels, MME's, DASH-B's, beside what was published of them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...metrics import compare, pope
from ...metrics.captions_file import read_answers
from ...metrics.estimate import Estimate
from ..scoring.closed_files import score_dash_b, score_mme
from ..scoring.files import Scored
from ..scoring.repope import score_repope
from .folder import Released

# Released answers to POPE's own questions, and the splits that they answer.
POPE_FILES = {"clearsight_pope/vaf_random": ("random",), "llava_pope/llava-v1.5-13b": ("adversarial", "popular")}
PUBLISHED: Mapping[str, Mapping[str, float]] = {  # DASH-B: benchmark.md of its repository
    "llava_mme/llava-v1.5-13b": {}, "dash-b/paligemma-3b": {"accuracy": 62.0, "tnr": 26.4, "tpr": 97.7},
}  # fmt: skip
MARINE = ("marine_pope/gamma0.7", "marine_pope/gamma0.0", "marine_pope/questions")


@dataclass(frozen=True)
class Answers:
    """What released answers score.

    Args:
        scored: name of the file -> its figures. marine: MARINE's answers against plain ones, on its own questions.
        notes: what could not be scored, and why.
    """

    scored: Mapping[str, Scored]
    marine: compare.Found
    notes: list[str]


def answers(released: Released, repope: Path | None) -> Answers:
    """Score what the folder has.

    Args:
        repope: the folder that `veridical data repope` wrote; without it POPE's answers are left out.
    """
    found: dict[str, Scored] = {}
    notes: list[str] = []
    marine: compare.Found = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in POPE_FILES:
            if repope is None or released.path(name) is None:
                why = "it needs the folder of `veridical data repope` (--repope)" if repope is None else "it is absent"
                notes.append(f"{name} is not scored: {why}.")
            else:
                found[name] = score_repope([released.unpacked(name, folder)], repope)
        for name, score in (("llava_mme/llava-v1.5-13b", score_mme), ("dash-b/paligemma-3b", score_dash_b)):
            if released.path(name) is None:
                notes.append(f"{name} is not scored: it is absent.")
            else:
                found[name] = score(released.unpacked(name, folder))
        if all(released.path(name) for name in MARINE):
            marine = _marine(released, folder)
    return Answers(found, marine, notes)


def _marine(released: Released, folder: Path) -> compare.Found:
    """MARINE asks about images of its own, so that its answers have no corrected labels."""
    questions = pope.read_questions(released.unpacked(MARINE[2], folder))
    texts = [read_answers(released.unpacked(name, folder)).by_id for name in MARINE[:2]]
    first, second = ([part[q["question_id"]] for q in questions] for part in texts)
    labels, images = [q["label"] for q in questions], [q["image"] for q in questions]
    return compare.compare_pope(first, second, labels, images)


def figures(scored: Scored) -> dict[str, dict[str, Estimate]]:
    """Tables of a file without those of single sources and objects."""
    return {
        title: dict(table) for title, table in scored.tables.items() if not title.startswith(("source ", "object "))
    }


def record(found: Answers) -> dict[str, Any]:
    return {
        "files": {
            name: {title: {k: vars(e) for k, e in table.items()} for title, table in figures(scored).items()}
            for name, scored in found.scored.items()
        },
        "marine": {
            name: {"method": one.first, "plain": one.second, "difference": vars(one.difference), "p": one.p}
            for name, one in found.marine.items()
        },
        "notes": found.notes,
    }  # fmt: skip
