"""How answers show themselves in a notebook: as HTML, every text escaped, words tinted by risk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from .inputs.words import shades, words

STRONGEST = 0.6  # opacity of the tint of the largest risk: text stays readable on it, light and dark
TINT = "214, 39, 40"


def page(lines: Sequence[str]) -> str:
    return f'<div class="veridical">{"".join(lines)}</div>'


def tinted(text: str, tokens: Sequence[str], risk: Sequence[float | None], name: str) -> str:
    """A text whose words are tinted by a detector's risk; the number appears where the pointer rests."""
    found = words(text, tokens, risk)
    out, here = [], 0
    for word, shade in zip(found, shades([word.risk for word in found]), strict=True):
        out.append(escape(text[here : word.start]))
        here = word.end
        if word.risk is None:
            out.append(escape(word.text))
            continue
        colour = f"rgba({TINT}, {STRONGEST * shade:.2f})"
        out.append(
            f'<span style="background: {colour}; border-radius: 3px" title="{escape(name)} {word.risk:.3f}">'
            f"{escape(word.text)}</span>"
        )
    return f"<p><small>{escape(name)}</small> {''.join(out)}{escape(text[here:])}</p>"


def plain(text: str, acted: Mapping[str, Mapping[str, float]]) -> str:
    """A text without risks, and what each method did."""
    did = "; ".join(
        f"{name} acted at {counts['acted']:.0f} of {counts['steps']:.0f} steps" for name, counts in acted.items()
    )
    return (f"<p>{escape(text)}</p>" if text else "") + (f"<p><small>{escape(did)}</small></p>" if did else "")


def failed(error: str) -> str:
    return f"<p><b>error:</b> {escape(error)}</p>"
