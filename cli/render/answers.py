"""Answers to single images, as text and as lines of JSON."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from ...pipelines.inputs.words import words
from ..terminal import name, safe
from .tint import faint, legend, tinted

if TYPE_CHECKING:
    from ...pipelines.results import Answer


def answers(image: Any, answered: Mapping[str, Answer], alone: bool) -> None:
    """The text of each decoder about one image. alone: one image and one decoder, so that the text needs no names."""
    if not alone:
        typer.secho(name(image), bold=True)
    errors = {answer.error for answer in answered.values()}
    if len(errors) == 1 and None not in errors:
        typer.secho(f"  error: {name(errors.pop())}", fg="red")
        return
    for decoder, answer in answered.items():
        label = f"  {decoder}: " if len(answered) > 1 else "" if alone else "  "
        if answer.error is not None:
            typer.secho(f"{label}error: {name(answer.error)}", fg="red")
            continue
        if not answer.risk:
            typer.echo(label + safe(answer.text))
        for detector, risk in answer.risk.items():
            typer.echo(label + faint(f"[{detector}] ") + _risky(answer, risk))
    if any(answer.risk for answer in answered.values()) and legend():
        typer.echo(legend())


def _risky(answer: Answer, risk: Sequence[float]) -> str:
    """Each word with its risk: "dog·0.83"; on a terminal tinted by it."""
    found = words(answer.text, answer.tokens, risk)
    parts = [
        text if word.risk is None else text + faint(f"·{word.risk:.2f}")
        for word, text in zip(found, tinted(found), strict=True)
    ]
    return " ".join(parts)


def json_line(image: Any, decoder: str, answer: Answer) -> None:
    """One JSON object on a line of its own."""
    risk = {name: [r if math.isfinite(r) else None for r in values] for name, values in answer.risk.items()}
    record = {"image": str(image), "decoder": decoder, **vars(answer), "risk": risk}
    utf8 = (sys.stdout.encoding or "utf-8").lower().replace("-", "") == "utf8"
    typer.echo(json.dumps(record, ensure_ascii=not utf8, allow_nan=False))
