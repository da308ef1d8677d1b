"""RePOPE as a benchmark: POPE's questions on COCO, read under corrected labels and under POPE's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ....datasets.closed import repope as repope_files
from ....datasets.closed.base import ClosedQuestion
from ....datasets.examples import Example
from ....datasets.pope import STRATEGIES
from ....metrics import pope, repope
from ....metrics.counted import Counted
from ....metrics.estimate import Estimate
from ..base import Source
from .base import FromFiles

_SHOWN = ("accuracy", "balanced_accuracy", "precision", "recall", "f1", "yes_ratio", "unparsed")
_PREFIX = {**{split: f"{split}_" for split in STRATEGIES}, "mean": "mean_"}
_PREFIX |= {f"{title}, POPE's labels": f"pope_{prefix}" for title, prefix in _PREFIX.items()}


class RePOPE(FromFiles):
    """RePOPE: POPE's questions under corrected labels, without those about ambiguous objects, beside POPE's own labels.

    The model is asked all of POPE's questions, a question of several splits once; answers that are neither yes nor no
    are in no count. Data: the folder of `veridical data repope`, with COCO's val2014 images in it, in val2014/ or in
    images/.
    """

    name = "repope"
    readers = tuple(repope.READERS)
    need = "`veridical data repope` writes the questions; COCO's val2014 images are needed beside them."
    folders = ("", "val2014", "images")
    higher_is_better: Mapping[str, bool] = {
        prefix + name: better for prefix in _PREFIX.values() for name, better in repope.HIGHER_IS_BETTER.items()
    }
    tables: Mapping[str, Sequence[str]] = {
        title: tuple(prefix + name for name in _SHOWN) for title, prefix in _PREFIX.items()
    }
    headline = ("mean_accuracy", "mean_balanced_accuracy", "mean_f1", "pope_mean_accuracy", "mean_yes_ratio")

    def questions(self, folder: Path) -> Sequence[ClosedQuestion]:
        splits = {}
        for split in STRATEGIES:
            rows, corrected = (pope.read_questions(path) for path in repope_files.files(folder, split))
            splits[split] = rows, repope.corrected(rows, corrected, repope_files.REPOPE.format(split=split))
        return repope_files.questions(splits)

    def estimates(self, source: Source, examples: Sequence[Example], texts: Sequence[str]) -> dict[str, Estimate]:
        found: dict[str, Estimate] = {}
        reader = self.reader(source)
        for prefix in _LABELS:
            parts = _parts(prefix, examples, texts)
            for split, part in parts.items():
                found |= {f"{prefix}{split}_{name}": one for name, one in repope.estimates(*part, reader).items()}
            if len(parts) == len(STRATEGIES):
                means = repope.mean_of_splits(list(parts.values()), reader)
                found |= {f"{prefix}mean_{name}": estimate for name, estimate in means.items()}
        return found

    def counted(self, source: Source, examples: Sequence[Example], texts: Sequence[str]) -> Mapping[str, Counted]:
        found: dict[str, Counted] = {}
        for prefix in _LABELS:
            parts = _parts(prefix, examples, texts)
            found |= {prefix + split: repope.counted([part], self.reader(source)) for split, part in parts.items()}
            if len(parts) == len(STRATEGIES):
                found[f"{prefix}mean"] = repope.counted(list(parts.values()), self.reader(source))
        return found

    def right(self, source: Source, example: Example, text: str) -> bool:
        label = _corrected(example)
        return repope.READERS[self.reader(source)](text) == (example.label if label == "removed" else label)


def _corrected(example: Example) -> str:
    return example.facts["corrected"]


_LABELS: Mapping[str, Callable[[Example], str | None]] = {"": _corrected, "pope_": lambda example: example.label}
Part = tuple[list[str], list[str], list[str]]  # answers, labels, images


def _parts(prefix: str, examples: Sequence[Example], texts: Sequence[str]) -> dict[str, Part]:
    """Split -> its answers under RePOPE's labels (prefix ""), or under POPE's."""
    label, found = _LABELS[prefix], {}
    for split in STRATEGIES:
        part = [
            (text, str(label(e)), str(e.image_id)) for e, text in zip(examples, texts, strict=True)
            if split in e.splits and label(e) != "removed"
        ]  # fmt: skip
        if part:
            found[split] = [p[0] for p in part], [p[1] for p in part], [p[2] for p in part]
    return found
