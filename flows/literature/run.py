"""`veridical reproduce --released`: from a folder of released files to the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...metrics.chair import Chair
from ...metrics.truth_files import read_truth
from ..files.atomic import write_text
from ..files.progress import progress
from ..scoring.files import digests
from . import closed, mentions, page, pairs
from .folder import Released, claims


@dataclass(frozen=True)
class Literature:
    """Every claim scored, and all that the page says beside them."""

    pairs: Sequence[pairs.Pair]
    answers: closed.Answers
    skipped: Mapping[str, Sequence[str]]
    absent: Sequence[str]
    files: Mapping[str, str]

    @property
    def page(self) -> str:
        return page.page(self.pairs, self.answers, self.skipped, self.absent, self.files)

    def record(self) -> dict[str, Any]:
        return {
            "pairs": [pair.record() for pair in self.pairs], "answers": closed.record(self.answers),
            "skipped": dict(self.skipped), "absent": list(self.absent), "files": dict(self.files),
        }  # fmt: skip


def literature(
    folder: Path, truth: Path, synonyms: Path, repope: Path | None = None, cache: Path | None = None,
    out: Path | None = None,
) -> Literature:  # fmt: skip
    """Score what a folder of released files claims, and write the page.

    Args:
        folder: as `veridical data released` writes it.
        truth: a COCO folder, or ready-made sets, as of `score chair`.
        synonyms: CHAIR's official file.
        repope: the folder of `veridical data repope`, for POPE's answers.
        cache: keeps what captions mention; None is the platform's folder.
        out: the page; None writes none.

    Raises:
        FileNotFoundError, ValueError: a folder without any pair, a file that is not the released one, or as
            `read_truth`.
    """
    released = Released(folder)
    chair = mentions.CachedChair(synonyms, "wordnet", cache or mentions.default_folder())
    there = [p for p in claims()["pairs"] if all(map(released.path, (*p["plain"], *p["method"])))]
    if not there:
        raise FileNotFoundError(f"{folder} has no pair of released files; `veridical data released` fetches them.")
    images = {image for pair in there for name in pair["plain"] for image in released.captions(name)}
    sets = read_truth([truth], Chair(synonyms, "pattern"), images)
    with progress("released captions", len(there), "pairs") as advance:
        found, absent = pairs.scored(released, chair, sets, lambda name: advance(1))
    answers = closed.answers(released, repope)
    whole = Literature(found, answers, released.skipped, absent, digests([truth, synonyms]))
    if out is not None:
        write_text(out, whole.page)
    return whole
