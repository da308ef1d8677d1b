"""MME's hallucination part as a benchmark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from ....datasets.closed import mme as mme_files
from ....datasets.closed.base import ClosedQuestion
from ....datasets.examples import Example
from ....metrics import mme
from ....metrics.counted import Counted
from ....metrics.estimate import Estimate
from ..base import Source
from .base import FromFiles

_SHOWN = ("score", "accuracy", "accuracy_plus", "yes_ratio", "unparsed")
_TITLES = ("total", "object_level", "attribute_level", *mme.TASKS)


class MME(FromFiles):
    """MME's hallucination part: existence, count, position and colour; accuracy plus that of pairs, at most 200 a task.

    Data: MME's release, {task}/ with a text file for each image, or {task}.txt beside {task}/ with the images.
    """

    name = "mme"
    readers = tuple(mme.READERS)
    need = "MME's authors give questions and images for research on request."
    folders = ("",)
    higher_is_better: Mapping[str, bool] = {
        f"{title}_{name}": better for title in _TITLES for name, better in mme.HIGHER_IS_BETTER.items()
    }
    tables: Mapping[str, Sequence[str]] = {title: tuple(f"{title}_{name}" for name in _SHOWN) for title in _TITLES}
    headline = ("total_score", *(f"{task}_score" for task in mme.TASKS))

    def questions(self, folder: Path) -> Sequence[ClosedQuestion]:
        return mme_files.read(folder)

    def estimates(self, source: Source, examples: Sequence[Example], texts: Sequence[str]) -> dict[str, Estimate]:
        return {
            f"{title}_{name}": estimate
            for title, table in mme.estimates(_tasks(examples, texts), self.reader(source)).items()
            for name, estimate in table.items()
        }

    def counted(self, source: Source, examples: Sequence[Example], texts: Sequence[str]) -> Mapping[str, Counted]:
        return mme.counted(_tasks(examples, texts), self.reader(source))

    def right(self, source: Source, example: Example, text: str) -> bool:
        return mme.READERS[self.reader(source)](text) == example.label


def _tasks(examples: Sequence[Example], texts: Sequence[str]) -> dict[str, list[mme.Question]]:
    """Task -> its questions with their answers; an image that could not be read leaves no half of a pair."""
    found: dict[str, list[mme.Question]] = {}
    whole = Counter(e.image_id for e in examples)
    for e, text in zip(examples, texts, strict=True):
        if whole[e.image_id] == 2:
            name = str(e.image_id).removeprefix(f"{e.facts['part']}/")
            found.setdefault(e.facts["part"], []).append(mme.Question(name, e.label or "", text))
    return found
