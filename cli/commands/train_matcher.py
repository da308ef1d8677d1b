"""`veridical train-matcher`: the shipped matcher, trained again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import options as o

app = typer.Typer(rich_markup_mode="rich")


@app.command(
    "train-matcher",
    epilog=o.worked(
        "veridical train-matcher --out my-matcher",
        "# and mask with it", "veridical caption photo.png -d agla:matcher=open_clip:my-matcher",
    ),
)  # fmt: skip
def train_matcher(
    out: Annotated[Path, typer.Option(help="The folder for the finished matcher.")],
    images: Annotated[
        int | None, typer.Option(min=1, help="The number of scenes.", show_default="the recipe's")
    ] = None,
    device: Annotated[str, typer.Option(help='"auto", "cpu" or "cuda".')] = "auto",
    examined: Annotated[int, typer.Option(min=0, help="The number of test scenes for the card; 0 for none.")] = 200,
) -> None:
    """Train the open_clip model that AGLA masks scenes of the embedded world with; minutes on one core."""
    from ...flows.training.matcher.run import train_matcher as train

    typer.echo(f"matcher: {train(out, images, device, examined)}")
