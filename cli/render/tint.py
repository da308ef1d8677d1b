"""Words tinted by risk on a terminal; plain text where the output is no terminal, or NO_COLOR is set."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer

from ...pipelines.inputs.words import Word, shades
from ..terminal import safe

LEVELS = (None, 179, 208, 202, 196)  # of the 256 colours of terminals: plain, then from yellow to red


def coloured() -> bool:
    """Whether standard output takes colours (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def tinted(words: Sequence[Word]) -> list[str]:
    """The text of each word in the colour of its risk; the riskiest are bold too."""
    if not coloured():
        return [safe(word.text) for word in words]
    out = []
    for word, shade in zip(words, shades([word.risk for word in words]), strict=True):
        level = min(int(shade * len(LEVELS)), len(LEVELS) - 1)
        colour = LEVELS[level]
        text = safe(word.text)
        out.append(text if colour is None else typer.style(text, fg=colour, bold=level == len(LEVELS) - 1))
    return out


def faint(text: str) -> str:
    return typer.style(text, dim=True) if coloured() else text


def legend() -> str:
    """The colours from no risk to the largest, for a line under a text; "" without colours."""
    if not coloured():
        return ""
    steps = "".join(typer.style("■", fg=colour) for colour in LEVELS if colour is not None)
    return faint("risk: low ") + steps + faint(" high, by the detector's own scale")
