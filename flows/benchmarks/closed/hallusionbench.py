"""HallusionBench as a benchmark, over its questions with an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ....datasets.closed import hallusionbench as hallusionbench_files
from ....datasets.closed.base import ClosedQuestion
from ....datasets.examples import Example
from ....metrics import hallusionbench
from ....metrics.counted import Counted
from ....metrics.estimate import Estimate
from ..base import Source
from .base import FromFiles

_SHOWN = ("aAcc", "fAcc", "qAcc", "mean", "easy", "hard", "pct_diff", "fp_ratio", "yes_ratio", "unclear")


class HallusionBench(FromFiles):
    """HallusionBench: yes/no about figures and their edited versions; right answers by question, figure and pair.

    A rule grades, where the official program has GPT-4. Only the 951 questions with an image are asked, so that figures
    are not comparable with those of all 1,129. Data: the folder with HallusionBench.json, and its images as in
    hallusion_bench.zip.
    """

    name = "hallusionbench"
    readers = tuple(hallusionbench.READERS)
    default = "strict"
    need = "Its repository has HallusionBench.json and a link to the images."
    folders = ("", "hallusion_bench", "images")
    higher_is_better: Mapping[str, bool] = hallusionbench.HIGHER_IS_BETTER
    tables: Mapping[str, Sequence[str]] = {
        "": _SHOWN, "consistency": ("figures_right", "figures_wrong", "figures_mixed"),
    }  # fmt: skip
    headline = ("aAcc", "fAcc", "qAcc")

    def questions(self, folder: Path) -> Sequence[ClosedQuestion]:
        return hallusionbench_files.read(folder, images_only=True)

    def estimates(self, source: Source, examples: Sequence[Example], texts: Sequence[str]) -> dict[str, Estimate]:
        of = [hallusionbench.of_row(e.facts) for e in examples]
        return hallusionbench.estimates(texts, of, self.reader(source))

    def counted(self, source: Source, examples: Sequence[Example], texts: Sequence[str]) -> Mapping[str, Counted]:
        of = [hallusionbench.of_row(e.facts) for e in examples]
        return {"": hallusionbench.counted(texts, of, self.reader(source))}

    def right(self, source: Source, example: Example, text: str) -> bool:
        return hallusionbench.grade(text, hallusionbench.of_row(example.facts), self.reader(source)) == 1
