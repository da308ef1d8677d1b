"""A claim of a paper against the captions that it released: method against plain, on the same images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ...metrics import compare
from ...metrics.chair import Chair
from ...metrics.compare import Comparison
from .folder import Released, claims

Verdict = Literal["holds", "by length", "inside the noise", "fails"]
WRITTEN = ("chair_s", "chair_i", "recall", "precision", "f1", "length", "repetition")
HALLUCINATION = ("chair_s", "chair_i")
AT_EQUAL_LENGTH = ("chair_s", "chair_i", "recall", "f1")


@dataclass(frozen=True)
class Pair:
    """One claim, scored.

    Args:
        about: as claims.json has it.
        images: that both files caption. left_out: images of one file that the other lacks.
        written: figure -> comparison of the captions as they are. matched: at equal length. The method comes first.
    """

    about: Mapping[str, Any]
    images: int
    left_out: int
    written: Mapping[str, Comparison]
    matched: Mapping[str, Comparison]

    def verdict(self, figure: str) -> Verdict:
        """What is left of "the method hallucinates less" in one figure."""
        return verdict(self.written[figure], self.matched[figure])

    def published(self, figure: str) -> tuple[float, float] | None:
        """The paper's figures, plain and method, in percent; None where none is known."""
        pair = self.about.get("published", {}).get(figure)
        return None if pair is None else (float(pair[0]), float(pair[1]))

    def repeats(self, figure: str) -> bool | None:
        """Whether the released captions give the published figures to the digit; None where none is known."""
        pair = self.published(figure)
        if pair is None:
            return None
        ours = (self.written[figure].second, self.written[figure].first)
        return all(abs(100 * one - other) < 0.0500001 for one, other in zip(ours, pair, strict=True))

    def record(self) -> dict[str, Any]:
        tables = {"as written": self.written, "at equal length": self.matched}
        return {
            **self.about, "images": self.images, "left out": self.left_out,
            "verdicts": {figure: self.verdict(figure) for figure in ("chair_s", "chair_i")},
            "tables": {
                title: {
                    name: {
                        "method": one.first, "plain": one.second, "difference": vars(one.difference), "p": one.p,
                        "p_holm": one.adjusted, "verdict": one.verdict,
                    }
                    for name, one in table.items()
                }
                for title, table in tables.items()
            },
        }  # fmt: skip


def verdict(written: Comparison, matched: Comparison) -> Verdict:
    """holds: better as written, and at equal length too. by length: better as written alone. fails: worse as written.

    A method that merely says less has less room for what is not there; at equal length that advantage is gone.
    """
    if written.verdict == "better":
        return "holds" if matched.verdict == "better" else "by length"
    return "fails" if written.verdict == "worse" else "inside the noise"


def scored(
    released: Released, chair: Chair, truth: Mapping[int | str, set[str]],
    step: Callable[[str], None] = lambda name: None,
) -> tuple[list[Pair], list[str]]:  # fmt: skip
    """Every pair of which the folder has both files, and the names of those that it lacks.

    The p's of a paper are corrected for each other (Holm). Where a pair has several files a side, such as seeds, the
    n-th of one goes with the n-th of the other.
    """
    pairs: list[Pair] = []
    absent: list[str] = []
    for about in claims()["pairs"]:
        lacking = [name for name in (*about["method"], *about["plain"]) if released.path(name) is None]
        if lacking:
            absent += lacking
            continue
        method, plain = (_texts(released, about[side]) for side in ("method", "plain"))
        shared = [key for key in method if key in plain and _image(key) in truth]
        mine, theirs = ({key: part[key] for key in shared} for part in (method, plain))
        there = {key: truth[_image(key)] for key in shared}
        written = compare.compare_chair(chair.score(mine, there), chair.score(theirs, there))
        matched = compare.compare_chair(*compare.length_matched(chair, mine, theirs, there))
        pairs.append(Pair(
            about, len(shared), len(method.keys() ^ plain.keys()), {name: written[name] for name in WRITTEN},
            {name: matched[name] for name in AT_EQUAL_LENGTH},
        ))  # fmt: skip
        step(about["method"][0])
    return _corrected(pairs), list(dict.fromkeys(absent))


def _texts(released: Released, names: Sequence[str]) -> dict[int | str, str]:
    """The captions of one run or several; a seed that draws images of its own counts them on its own."""
    return {
        f"{number}/{image}": text
        for number, name in enumerate(names, start=1) for image, text in released.captions(name).items()
    }  # fmt: skip


def _image(key: int | str) -> int | str:
    name = str(key).partition("/")[2]
    return int(name) if name.isdecimal() else name


def _corrected(pairs: Sequence[Pair]) -> list[Pair]:
    """With the p's of a paper corrected for each other: those of hallucination, and those of what it costs."""
    tables = [(pair, title) for pair in pairs for title in ("written", "matched")]
    adjusted: dict[tuple[int, str, str], Comparison] = {}
    for paper in dict.fromkeys(pair.about["paper"] for pair in pairs):
        for family in (True, False):
            places = [
                (id(pair), title, name) for pair, title in tables if pair.about["paper"] == paper
                for name in getattr(pair, title) if (name in HALLUCINATION) is family
            ]  # fmt: skip
            by_id = {id(pair): pair for pair in pairs}
            flat = [getattr(by_id[number], title)[name] for number, title, name in places]
            adjusted |= dict(zip(places, compare.together(flat), strict=True))
    corrected = lambda pair, title: {name: adjusted[id(pair), title, name] for name in getattr(pair, title)}
    return [
        replace(pair, written=corrected(pair, "written"), matched=corrected(pair, "matched")) for pair in pairs
    ]  # fmt: skip
