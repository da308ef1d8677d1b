"""Which method works on which family: a table that the tests make by running every pair once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

import veridical
from veridical.pipelines.registry import DECODERS, DETECTORS

from ..contract.setting import difference
from ..contract.table import entry
from .setting import setting
from .tiny_families import FAMILIES

YES = "yes"

# (family, or "*" for all; method) -> why the pair makes no sense. Running it raises an error that says the same; the
# tests hold both to it.
CANNOT: dict[tuple[str, str], str] = {
    (family, "imbalanced"): "reads the class token's attention in a CLIP vision encoder, whole pictures"
    for family in FAMILIES
    if family != "llava"
}


def half_dark(inputs: Mapping[str, Tensor]) -> Tensor:
    """A view for AGLA: every picture dimmed, tiles that are padding still zero."""
    return 0.3 * inputs["pixel_values"]


# Acting settings where a decoder's own defaults cannot show on models of 64 dimensions without a processor. φ never
# exceeds √64 = 8 there, so that VAR's τ = 20 finds no sink, rightly.
ACTING: dict[str, Callable[[], Any]] = {
    "var": lambda: "var:tau=2,min_nonsink=0,min_image=0,skip_first=1",
    "icd": lambda: "icd:prefix_ids=(20,21,22,23)",
    "agla": lambda: DECODERS.type("agla")(view=half_dark),
}


def acting(name: str) -> Any:
    """An instance that must show on the tiny models: registered names enter by themselves."""
    return DECODERS.make(ACTING[name]() if name in ACTING else entry(name).acting or name)


def reason(family: str, method: str) -> str | None:
    """Why this pair makes no sense, or None."""
    return CANNOT.get((family, method)) or CANNOT.get(("*", method))


@cache
def outcome(family: str, method: str) -> str:
    """ "yes", or what went wrong: the pair is run once, in float64.

    A decoder must move the logits of every sample (or leave them, if that is what it is for); a detector must give
    every token a finite risk, the same in one teacher-forced pass as while generating.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _decoder(family, method) if method in DECODERS.names else _detector(family, method)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"


def _decoder(family: str, method: str) -> str:
    case = setting(family, torch.float64)
    made = case.once(method, acting(method)).logits
    moved = [difference_of_some_token(*pair) for pair in zip(made, case.plain(), strict=True)]
    if entry(method).acts:
        return YES if min(moved) > 1e-3 else f"moves logits by {min(moved):.1e} only"
    return YES if max(moved) == 0 else f"moves logits by {max(moved):.1e}, and should not"


def difference_of_some_token(a: Tensor, b: Tensor) -> float:
    """The largest difference of logits; a cut token is a difference of 1."""
    return float((a - b).nan_to_num(0.0, posinf=1.0, neginf=-1.0).abs().max())


def _detector(family: str, method: str) -> str:
    case = setting(family, torch.float64)
    made = veridical.generate(case.lvlm, case.inputs, [], [method], max_new_tokens=3, do_sample=False)
    forced = veridical.score(case.lvlm, case.inputs, made.ids, [method])[method]
    if not made.risk[method].isfinite().all():
        return "a risk that is no number"
    error = difference(made.risk[method], forced)
    return YES if error <= 1e-5 else f"teacher-forced risk differs by {error:.1e}"


def methods() -> list[str]:
    """Every registered decoder and detector at this moment."""
    return [*DECODERS.names, *DETECTORS.names]


def cells(families: Iterable[str] = tuple(FAMILIES)) -> dict[tuple[str, str], str]:
    """(family, method) -> "yes", or the reason why not."""
    return {
        (family, method): reason(family, method) or outcome(family, method)
        for family in families
        for method in methods()
    }


def table() -> str:
    """The support table in Markdown: a row per family, a column per method, reasons below."""
    found, columns = cells(), methods()
    notes = list(dict.fromkeys(value for value in found.values() if value != YES))
    mark = lambda value: YES if value == YES else f"no [{notes.index(value) + 1}]"
    lines = ["| family | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    for family in FAMILIES:
        lines.append(f"| {family} | " + " | ".join(mark(found[family, method]) for method in columns) + " |")
    return "\n".join([*lines, *(f"\n[{number}] {note}" for number, note in enumerate(notes, 1))])
