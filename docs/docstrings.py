"""Docstrings for the site: examples and formulas stand as they are, instead of being read as Markdown."""

import re
from typing import Any

from griffe import Extension

EXAMPLE = re.compile(r"^ *>>> ")
# A line of a formula: it has a sign that prose has not, and does not end as a sentence does.
FORMULA = re.compile(r"(?=.*[=∈≥≤·Σ√→←]).*[^.:;,]$")


def shown(text: str) -> str:
    """A docstring whose paragraphs that are examples or formulas are blocks of code."""
    return "\n\n".join(map(_paragraph, re.split(r"\n\s*\n", text)))


def _paragraph(text: str) -> str:
    lines = text.splitlines()
    if EXAMPLE.match(text):
        return "\n".join(["```pycon", *lines, "```"])
    if lines and all(FORMULA.match(line) and not line.startswith((" ", "-", "|")) for line in lines):
        return "\n".join(["```text", *lines, "```"])
    return text


class Docstrings(Extension):
    """griffe hands on every object once it is read."""

    def on_object(self, *, obj: Any, **others: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = shown(obj.docstring.value)
