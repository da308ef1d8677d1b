"""Which decoders and procedures make no sense together, and why: refused before anything runs.

A pair is refused where what the second computes has lost its meaning, or where one method contains what the other does;
it is warned of where it is defined but not what either paper measured. What a method does is data of its class (see
`method.Decoder`), so that methods of other packages count too. A method at its neutral strength is in nobody's way.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

from .method import NO_IMAGE
from .registry import name_of as _name


class DoubtfulPair(UserWarning):
    """Two decoders that can run together, though no paper says what that means."""


def refuse(decoders: Sequence[Any]) -> None:
    """Raise ValueError for the first pair whose meaning is broken; the message says why."""
    for broken, reason in verdicts(decoders):
        if broken:
            raise ValueError(reason)


def check(decoders: Sequence[Any], stacklevel: int = 2) -> None:
    """As `refuse`, and warn of the doubtful pairs with `DoubtfulPair`. stacklevel: 2 points at the caller."""
    refuse(decoders)
    for _, reason in verdicts(decoders):
        warnings.warn(reason, DoubtfulPair, stacklevel=stacklevel)


def verdicts(decoders: Sequence[Any]) -> Iterator[tuple[bool, str]]:
    """(broken, reason) of every pair that is refused or doubtful, in the order in which they are declared."""
    acting = [inner for d in decoders if (inner := getattr(d, "stands_for", d)) is not None]
    for first, second in combinations(acting, 2):
        broken = _broken(first, second)
        if broken:
            yield True, f"{_name(first)}+{_name(second)}: {broken}"
            continue
        for reason in _doubtful(first, second):
            yield False, reason


def _broken(first: Any, second: Any) -> str | None:
    a, b = _name(first), _name(second)
    if getattr(first, "two_images", False) and _on(second, "one_image") and getattr(second, "view", None) is None:
        return (
            f"{a} asks about two images at once, the whole and a crop, and {b}'s matcher compares one image with its "
            f"prompt; leave one of them out, or give {type(second).__name__}(view=…), a callable that masks both"
        )
    if a != b and _reference(first) == _reference(second) == NO_IMAGE:
        return (
            f"both push away from {NO_IMAGE}, so that the same text is subtracted twice; one of them with a larger "
            "weight says the same (gamma=1 switches the guidance of pai and imbalanced off)"
        )
    if a != b and _on(first, "steers") and _on(second, "steers"):
        return "both steer every layer by the same vectors; use one of them with a larger strength"
    if a != b and _on(first, "mixes") and _on(second, "mixes") and first.window == second.window:
        share = 1 - (1 - first.gamma) * (1 - second.gamma)
        return f"both mix the same early logits in; that is one of them with gamma={share:.3g}"
    if _differs(first):
        if _differs(second):
            return "the first is already a difference between layers, from which an early layer would be taken again"
        if _reference(second) is not None or _on(second, "mixes") or _on(second, "early"):
            return (
                f"{a} leaves a difference of two log-probabilities, and the second would weigh it against logits from "
                f"which nothing was taken; put {a} last ({b}+{a}) or leave one out"
            )
    if _differs(second) and getattr(second, "mode", "") == "official" and _rules_out(first):
        return (
            f"{a} rules tokens out, and to them the released code's divergence KL(m ‖ p) is infinite for every layer, "
            f"so that none could be chosen; use {b}'s mode=paper"
        )
    return None


def _doubtful(first: Any, second: Any) -> Iterator[str]:
    a, b = _name(first), _name(second)
    one, other = _reference(first), _reference(second)
    if _plausibility(first) and _plausibility(second):
        yield (
            f"{first!r} and {second!r} each cut by plausibility; the second cut sees logits that the first has changed"
        )
    if one is not None and other is not None:
        yield f"{a}+{b}: two contrasts; {b} weighs what {a} has made against {other}, which {a} has not touched"
    elif one is not None and _on(second, "early"):
        yield f"{a}+{b}: {b} compares early layers, which know no contrast, with what {a} has made of the last"
    elif _raises(first) and other is not None:
        yield f"{a}+{b}: {a} makes logits higher than those of {other}, which {b} weighs them against"
    if (_raises(first) and _on(second, "mixes")) or (_on(first, "mixes") and _raises(second)):
        yield f"{a}+{b}: both add what earlier layers say"
    for penalty, beside in ((first, second), (second, first)):
        if a != b and _on(penalty, "ahead"):
            name = _name(penalty)
            if _on(beside, "inside"):
                yield f"{a}+{b}: {name}'s penalty is of the plain model's attention, whatever {_name(beside)} edits"
            if penalty is first and other is not None:
                yield f"{a}+{b}: {b} can choose only among the {first.candidates} tokens that {name} has tried"
    if a == b and one is None and all(any(_on(d, what) for what in EFFECTS) for d in (first, second)):
        yield f"{a} twice: each finds its targets on the plain model; one of larger strength may be what is meant"


# -- what a decoder does, from its class and its settings ----------------------------------------------------------
EFFECTS = ("inside", "mixes", "early", "ahead")


def _on(decoder: Any, effect: str) -> bool:
    """Whether the fields that switch an effect on do so."""
    fields = getattr(decoder, effect, ())
    return bool(fields) and decoder.on(*fields)


def _reference(decoder: Any) -> str | None:
    """What a decoder's logits are read against, None without a contrast."""
    return getattr(decoder, "reference", None)


def _differs(decoder: Any) -> bool:
    """Whether it leaves a difference in the place of logits."""
    return getattr(decoder, "difference", False) and _on(decoder, "early")


def _raises(decoder: Any) -> bool:
    """Whether it adds the logits of earlier layers to the last."""
    return getattr(decoder, "raises", False) and _on(decoder, "early")


def _plausibility(decoder: Any) -> bool:
    """Whether it cuts by a share of the largest probability."""
    return bool(getattr(decoder, "cuts", getattr(decoder, "beta", 0)))


def _rules_out(decoder: Any) -> bool:
    """Whether it rules tokens out, by plausibility or by a list of candidates."""
    return _plausibility(decoder) or _on(decoder, "early") or _on(decoder, "ahead")
