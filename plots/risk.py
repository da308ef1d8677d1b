"""The risk of every word along a caption."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .axis import COLOURS, axis_of

if TYPE_CHECKING:
    from ..pipelines.results import Answer


def risk_along_caption(answer: Answer, detector: str | None = None, ax: Any = None) -> Any:
    """The risk of each word of an answer, in the order of the text; a word is as risky as its riskiest token.

    Args:
        answer: with the risks of one detector or more. detector: its name; None draws all, a line each.
        ax: the axis to draw on, which is returned.

    Raises:
        ValueError: an answer without risks, or without those of this detector.
    """
    from ..pipelines.inputs.words import words

    if not answer.risk or (detector is not None and detector not in answer.risk):
        known = ", ".join(answer.risk) or "none: name detectors when you ask for the answer"
        raise ValueError(f"the answer has no risks{f' of {detector!r}' if detector else ''}; there are {known}.")
    ax, names = axis_of(ax), list(answer.risk) if detector is None else [detector]
    for number, name in enumerate(names):
        found = words(answer.text, answer.tokens, answer.risk[name])
        risks = [float("nan") if word.risk is None else word.risk for word in found]
        ax.plot(range(len(found)), risks, "o-", color=COLOURS[number % len(COLOURS)], markersize=3, label=name)
    texts = [word.text for word in found]
    ax.set_xticks(range(len(texts)), texts, rotation=90, fontsize=7)
    ax.set_xlim(-0.5, len(texts) - 0.5)
    ax.set_ylabel("risk")
    ax.legend(frameon=False, fontsize=8)
    return ax
