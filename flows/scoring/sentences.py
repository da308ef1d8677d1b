"""A comparison in one sentence: what a decoder does to hallucination, at what price, and whether it is only brevity."""

from __future__ import annotations

from collections.abc import Mapping

from ...metrics.compare import Comparison
from .compare import Found

EQUAL = "at equal length"


def sentence(found: Found) -> str:
    """What the verdicts of a comparison say of a system against its baseline, with each difference's interval.

    A difference inside the noise is never called one. Captions: CHAIR_i, recall, and CHAIR_i at equal length.
    Questions: F1 and the share of yes. "" where the benchmark has no paired comparison.
    """
    if "" in found.tables and EQUAL in found.tables:
        return _captions(found.tables[""], found.tables[EQUAL])
    title = next(reversed(found.tables), None)  # of several splits, all together
    return "" if title is None else _questions(found.tables[title])


def change(one: Comparison) -> str:
    """A difference with its interval: "−0.068 [−0.080, −0.057]"."""
    d = one.difference
    return f"{d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}]".replace("-", "−")


def _captions(written: Mapping[str, Comparison], equal: Mapping[str, Comparison]) -> str:
    wrong, found, left = written["chair_i"], written["recall"], equal["chair_i"]
    parts = [
        {"better": "hallucinates less", "worse": "hallucinates more"}.get(wrong.verdict, "no other hallucination shown")
        + f" (CHAIR_i {change(wrong)})",
        {"better": "finds more", "worse": "says less"}.get(found.verdict, "no other recall shown")
        + f" (recall {change(found)})",
    ]  # fmt: skip
    if wrong.verdict in ("better", "worse"):
        stays = "as well" if left.verdict == wrong.verdict else "nothing of it is shown"
        parts.append(f"{EQUAL} {stays} ({change(left)})")
    return ", ".join(parts)


def _questions(table: Mapping[str, Comparison]) -> str:
    parts: list[str] = []
    for name, better, worse in (("f1", "answers better", "answers worse"), ("accuracy", "is right more", "less")):
        if name in table and not parts:
            one = table[name]
            words = {"better": better, "worse": worse}.get(one.verdict, "no other answers shown")
            parts.append(f"{words} ({name} {change(one)})")
    if (yes := table.get("yes_ratio")) is not None:
        direction = "more often" if yes.difference.value > 0 else "less often"
        shown = "no other share of yes shown" if yes.verdict == "inside the noise" else f"says yes {direction}"
        parts.append(f"{shown} (yes_ratio {change(yes)})")
    return ", ".join(parts)
