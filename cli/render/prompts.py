"""The papers' prompts as `veridical list --long` shows them."""

from __future__ import annotations

import typer

from ...pipelines.inputs.prompts import MARK, PROMPTS


def prompts() -> None:
    """Each name with its words and whose they are."""
    typer.secho("prompts\n", bold=True)
    for name, prompt in PROMPTS.items():
        typer.secho(f"{MARK}{name}", fg="cyan")
        for kind, text in (("caption", prompt.caption), ("question", prompt.frame)):
            if text is not None:
                typer.echo(f"  {kind}: {text!r}")
        typer.echo(f"  {prompt.source}\n")
