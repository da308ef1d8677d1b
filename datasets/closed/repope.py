"""POPE's questions with RePOPE's labels. arXiv 2504.15707. Scored by `metrics.repope`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..pope import STRATEGIES
from .base import ClosedQuestion

POPE, REPOPE = "coco_pope_{split}.json", "coco_repope_{split}.json"


def files(folder: Path, split: str) -> tuple[Path, Path]:
    """POPE's and RePOPE's file of a split.

    Raises:
        FileNotFoundError: one of them is not there.
    """
    found = []
    for name in (POPE.format(split=split), REPOPE.format(split=split)):
        path = next((p for p in (folder / name, folder / "annotations" / name) if p.is_file()), None)
        if path is None:
            raise FileNotFoundError(f"no {name} in {folder}; `veridical data repope --out {folder}` fetches it.")
        found.append(path)
    return found[0], found[1]


def questions(
    splits: Mapping[str, tuple[Sequence[Mapping[str, Any]], Mapping[Any, str]]]
) -> list[ClosedQuestion]:
    """Each question once, under POPE's own text.

    Args:
        splits: split -> (POPE's rows, question id -> corrected label).

    label is POPE's; the facts hold the splits that ask the question, and what RePOPE corrects the label to: yes, no, or
    removed.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for split in (name for name in STRATEGIES if name in splits):
        rows, labels = splits[split]
        for row in rows:
            one = found.setdefault((row["image"], row["text"]), {
                "splits": [], "label": row["label"], "corrected": labels.get(row["question_id"], "removed"),
            })  # fmt: skip
            one["splits"].append(split)
    return [
        ClosedQuestion(
            f"{image}: {text}", image, text, facts["label"], facts={k: facts[k] for k in ("splits", "corrected")}
        )
        for (image, text), facts in found.items()
    ]
