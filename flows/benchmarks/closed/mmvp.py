"""MMVP as a benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ....datasets.closed import mmvp as mmvp_files
from ....datasets.closed.base import ClosedQuestion
from ....datasets.examples import Example
from ....metrics import mmvp
from ....metrics.counted import Counted
from ....metrics.estimate import Estimate
from ..base import Source
from .base import FromFiles


class MMVP(FromFiles):
    """MMVP: a choice of two about pairs of images that CLIP takes for alike; a pair counts if both are right.

    A rule reads the letter or the option's words, where the official program asks GPT-4. Keys are as published. Data:
    the folder with Questions.csv, and the images in "MMVP Images/".
    """

    name = "mmvp"
    max_new_tokens = 64
    readers = tuple(mmvp.READERS)
    default = "strict"
    need = "MMVP's data set on the Hub has Questions.csv and MMVP Images/."
    folders = ("MMVP Images", "images", "")
    higher_is_better: Mapping[str, bool] = mmvp.HIGHER_IS_BETTER
    tables: Mapping[str, Sequence[str]] = {"": tuple(mmvp.RATIOS)}
    headline = tables[""]

    def questions(self, folder: Path) -> Sequence[ClosedQuestion]:
        return mmvp_files.read(folder)

    def estimates(self, source: Source, examples: Sequence[Example], texts: Sequence[str]) -> dict[str, Estimate]:
        pairs = [str(e.facts["group"]) for e in examples]
        labels, options = [e.label or "" for e in examples], [e.facts["options"] for e in examples]
        return mmvp.estimates(texts, labels, options, pairs, self.reader(source))

    def counted(self, source: Source, examples: Sequence[Example], texts: Sequence[str]) -> Mapping[str, Counted]:
        pairs = [str(e.facts["group"]) for e in examples]
        labels, options = [e.label or "" for e in examples], [e.facts["options"] for e in examples]
        return {"": mmvp.counted(texts, labels, options, pairs, self.reader(source))}

    def right(self, source: Source, example: Example, text: str) -> bool:
        return mmvp.READERS[self.reader(source)](text, example.facts["options"]) == example.label

    def constants(self, source: Source) -> Mapping[str, Any]:
        found = self.examples(source)
        share = sum(e.label == "a" for e in found) / len(found)
        return {"always (a)": {"accuracy": share, "pair_accuracy": 0.0}, "chance": {"pair_accuracy": 0.25}}
