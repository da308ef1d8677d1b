"""Which decoders and procedures make no sense together, and why: said before anything runs.

A pair is refused where what the second computes has lost its meaning, or where one method contains what the other does;
it is warned of where it is defined but not what either paper measured. A method at its neutral strength is in nobody's
way.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import Any

from .chain import name_of as _name
from .registry import DECODERS

NO_IMAGE = "the prompt without its image"
# name -> (whether its contrast is on, what it is read against)
CONTRASTS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "vcd": (lambda d: d.alpha != 0, "a noised picture"),
    "icd": (lambda d: d.alpha != 0, "a disturbed prompt"),
    "m3id": (lambda d: d.lam != 0, NO_IMAGE),
    "avc": (lambda d: d.alpha != 0, "the blind image tokens"),
    "agla": (lambda d: d.alpha != 0, "a masked picture"),
    "rbd": (lambda d: bool(d.visual or d.textual), "a noised picture and significant tokens"),
    "pai": (lambda d: d.gamma != 1, NO_IMAGE),
    "imbalanced": (lambda d: d.gamma != 1, NO_IMAGE),
}
# name -> whether it changes what goes on inside the model
INSIDE: dict[str, Callable[[Any], bool]] = {
    "var": lambda d: d.move != 0,
    "vhr": lambda d: d.alpha != 1,
    "vsv": lambda d: d.strength != 0,
    "vista": lambda d: d.strength != 0,
    "pai": lambda d: d.alpha != 0,
    "imbalanced": lambda d: bool(d.local or d.summary),
}


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
    for first, second in combinations([inner for d in decoders if (inner := _inner(d)) is not None], 2):
        broken = _broken(first, second)
        if broken:
            yield True, f"{_name(first)}+{_name(second)}: {broken}"
            continue
        for reason in _doubtful(first, second):
            yield False, reason


def _broken(first: Any, second: Any) -> str | None:
    a, b = _name(first), _name(second)
    if a == "vicrop" and b == "agla" and second.view is None and (second.alpha or second.beta):
        return (
            "vicrop asks about two pictures at once, the whole and a crop, and agla's matcher compares one picture "
            "with its prompt; leave one of them out, or give AGLA(view=…), a callable that masks both"
        )
    if a != b and _reference(first) == _reference(second) == NO_IMAGE:
        return (
            f"both push away from {NO_IMAGE}, so that the same text is subtracted twice; one of them with a larger "
            "weight says the same (gamma=1 switches the guidance of pai and imbalanced off)"
        )
    if a != b and _steers(first) and _steers(second):
        return "both steer every layer by the same vectors; use one of them with a larger strength"
    if a != b and _mixes(first) and _mixes(second) and first.window == second.window:
        share = 1 - (1 - first.gamma) * (1 - second.gamma)
        return f"both mix the same early logits in; that is one of them with gamma={share:.3g}"
    if a == "dola" and _active(first):
        if b == "dola" and _active(second):
            return "the first is already a difference between layers, from which an early layer would be taken again"
        if _reference(second) is not None or _mixes(second) or (b == "deco" and _active(second)):
            return (
                "dola leaves a difference of two log-probabilities, and the second would weigh it against logits from "
                f"which nothing was taken; put dola last ({b}+dola) or leave one out"
            )
    if b == "dola" and _active(second) and second.mode == "official" and _cuts(first):
        return (
            f"{a} rules tokens out, and to them the released code's divergence KL(m ‖ p) is infinite for every layer, "
            "so that none could be chosen; use dola's mode=paper"
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
    elif one is not None and b in ("dola", "deco") and _active(second):
        yield f"{a}+{b}: {b} compares early layers, which know no contrast, with what {a} has made of the last"
    elif a == "deco" and _active(first) and other is not None:
        yield f"{a}+{b}: deco makes logits higher than those of {other}, which {b} weighs them against"
    if {a, b} in ({"deco", "sla"}, {"deco", "vista"}) and all(_mixes(d) or _active(d) for d in (first, second)):
        yield f"{a}+{b}: both add what earlier layers say"
    if "helpd" in (a, b) and a != b:
        penalty, beside = (first, second) if a == "helpd" else (second, first)
        if _active(penalty) and _inside(beside):
            yield f"{a}+{b}: helpd's penalty looks at the plain model's attention, whatever {_name(beside)} edits"
        if a == "helpd" and _active(first) and other is not None:
            yield f"{a}+{b}: {b} can choose only among the {first.candidates} tokens that helpd has tried"
    on = all(_inside(d) or _mixes(d) or _active(d) for d in (first, second))
    if a == b and on and one is None:
        yield f"{a} twice: each finds its targets on the plain model; one of larger strength may be what is meant"


# -- what a decoder does, from its settings ------------------------------------------------------------------------
def _inner(decoder: Any) -> Any:
    """A gate stands for what it gates, and for nothing (None) if it never opens."""
    if _name(decoder) != "gate":
        return decoder
    return None if float(decoder.threshold) == math.inf else DECODERS.make(decoder.decoder)


def _reference(decoder: Any) -> str | None:
    """What a decoder's logits are read against, None without a contrast."""
    on, reference = CONTRASTS.get(_name(decoder), (lambda _: False, ""))
    return reference if on(decoder) else None


def _inside(decoder: Any) -> bool:
    return INSIDE.get(_name(decoder), lambda _: False)(decoder)


def _steers(decoder: Any) -> bool:
    return _name(decoder) in ("vsv", "vista") and decoder.strength != 0


def _mixes(decoder: Any) -> bool:
    return _name(decoder) in ("sla", "vista") and decoder.gamma != 0


def _active(decoder: Any) -> bool:
    """For the methods without a contrast or edits inside: whether they are on."""
    on = {"dola": lambda d: d.layers != (), "deco": lambda d: d.alpha != 0, "helpd": lambda d: d.weight != 0}
    return on.get(_name(decoder), lambda _: False)(decoder)


def _plausibility(decoder: Any) -> bool:
    """Whether it cuts by a share of the largest probability."""
    if _name(decoder) in ("pai", "imbalanced") and decoder.gamma == 1:
        return False
    if _name(decoder) == "dola":
        return _active(decoder) and bool(decoder.relative_top)
    return bool(getattr(decoder, "beta", 0))


def _cuts(decoder: Any) -> bool:
    """Whether it rules tokens out, by plausibility or by a list of candidates."""
    return _plausibility(decoder) or (_name(decoder) in ("deco", "helpd", "dola") and _active(decoder))
