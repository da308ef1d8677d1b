"""DASH-B as a benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ....datasets.closed import dash_b as dash_b_files
from ....datasets.closed.base import ClosedQuestion
from ....datasets.examples import Example
from ....metrics import dash_b
from ....metrics.counted import Counted
from ....metrics.estimate import Estimate
from ..base import Source
from .base import FromFiles

_SHOWN = ("accuracy", "tnr", "tpr", "harmonic_mean", "yes_ratio", "unparsed")


class DASHB(FromFiles):
    """DASH-B: is this object in the image? Half of the images have it, the others were retrieved to fool models.

    Data: the folder with dash_benchmark_neg.json and dash_benchmark_pos.json, and the images in neg/ and pos/.
    """

    name = "dash_b"
    readers = tuple(dash_b.READERS)
    need = "DASH-B's repository has the lists, and links to the images."
    folders = ("images", "")
    higher_is_better: Mapping[str, bool] = dash_b.HIGHER_IS_BETTER
    tables: Mapping[str, Sequence[str]] = {"": _SHOWN}
    headline = _SHOWN[:4]

    def questions(self, folder: Path) -> Sequence[ClosedQuestion]:
        return dash_b_files.read(folder)

    def estimates(self, source: Source, examples: Sequence[Example], texts: Sequence[str]) -> dict[str, Estimate]:
        return dash_b.estimates(texts, [e.label or "" for e in examples], self.reader(source))

    def counted(self, source: Source, examples: Sequence[Example], texts: Sequence[str]) -> Mapping[str, Counted]:
        return {"": dash_b.counted(texts, [e.label or "" for e in examples], self.reader(source))}

    def right(self, source: Source, example: Example, text: str) -> bool:
        return dash_b.READERS[self.reader(source)](text) == example.label
