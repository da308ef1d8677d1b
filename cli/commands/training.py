"""`veridical train-embedded` and `train-matcher`: the shipped model and its matcher, trained again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import options as o

app = typer.Typer(rich_markup_mode="rich")


@app.command(
    "train-embedded",
    epilog=o.worked(
        "veridical train-embedded --out my-model",
        "# after a stop", "veridical train-embedded --out my-model --resume",
        "# a caption by it", "veridical caption photo.png --model my-model",
    ),
)  # fmt: skip
def train_embedded(
    out: Annotated[Path, typer.Option(help="The folder for the finished model.")],
    state: Annotated[
        Path | None, typer.Option(help="The folder for the state of the training.", show_default="OUT-training")
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="The number of scenes in the first stage.", show_default="the recipe's")
    ] = None,
    lessons: Annotated[
        int | None, typer.Option(min=1, help="The number of scenes in the second stage.", show_default="the recipe's")
    ] = None,
    device: Annotated[str, typer.Option(help='"auto", "cpu" or "cuda".')] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    examined: Annotated[int, typer.Option(min=0, help="The number of test scenes for the card; 0 for none.")] = 500,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the model: faster on a CPU, and needs a C++ compiler.")
    ] = False,
) -> None:
    """Train the embedded model on the embedded world; one to two hours on two cores. Can be stopped and resumed."""
    from ...flows.training.embedded.run import train

    state = state or out.with_name(out.name + "-training")
    typer.echo(f"model: {train(out, state, images, lessons, device, resume, examined, compiled)}")


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
