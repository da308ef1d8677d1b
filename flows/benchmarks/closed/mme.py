"""MME's hallucination part as a benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ....datasets.closed import mme as mme_files
from ....datasets.closed.base import ClosedQuestion
from ....datasets.examples import Example
from ....metrics import mme
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
        tasks: dict[str, list[mme.Question]] = {}
        answered = list(zip(examples, texts, strict=True))
        whole = [e.image_id for e, _ in answered]
        for e, text in answered:
            if whole.count(e.image_id) == 2:  # an image that could not be read leaves no half of a pair
                name = str(e.image_id).removeprefix(f"{e.facts['part']}/")
                tasks.setdefault(e.facts["part"], []).append(mme.Question(name, e.label or "", text))
        return {
            f"{title}_{name}": estimate
            for title, table in mme.estimates(tasks, self.reader(source)).items() for name, estimate in table.items()
        }  # fmt: skip

    def right(self, source: Source, example: Example, text: str) -> bool:
        return mme.READERS[self.reader(source)](text) == example.label
