"""Models made or changed: three `train-…` commands, `fit` of directions, `bake` into a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .. import options as o
from ..errors import hush_transformers, notes
from ..validate import check_names

app = typer.Typer(rich_markup_mode="rich")

State = Annotated[
    Path | None, typer.Option(help="The folder for the state of the training.", show_default="OUT-training")
]
LessonScenes = Annotated[
    int | None, typer.Option(min=1, help="The number of scenes in the second stage.", show_default="the recipe's")
]
Device = Annotated[str, typer.Option(help='"auto", "cpu" or "cuda".')]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")]
Examined = Annotated[int, typer.Option(min=0, help="The number of test scenes for the card; 0 for none.")]


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
    state: State = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="The number of scenes in the first stage.", show_default="the recipe's")
    ] = None,
    lessons: LessonScenes = None,
    device: Device = "auto",
    resume: Resume = False,
    examined: Examined = 500,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the model: faster on a CPU, and needs a C++ compiler.")
    ] = False,
) -> None:
    """Train the embedded model on the embedded world; one to two hours on two cores. Can be stopped and resumed."""
    from ...flows.training.embedded.run import train

    state = state or out.with_name(out.name + "-training")
    typer.echo(f"model: {train(out, state, images, lessons, device, resume, examined, compiled)}")


@app.command(
    "train-organism",
    epilog=o.worked(
        "veridical train-organism --out my-organism",
        "# after a stop", "veridical train-organism --out my-organism --resume",
        "# on from the shipped weights", "veridical train-organism --out my-organism --images 0 --lessons 12000",
    ),
)  # fmt: skip
def train_organism(
    out: Annotated[Path, typer.Option(help="The folder for what is trained; --model takes it.")],
    state: State = None,
    images: Annotated[
        int | None,
        typer.Option(
            min=0, help="The number of scenes in the first stage; 0 starts from the shipped weights.",
            show_default="the recipe's",
        ),
    ] = None,
    lessons: LessonScenes = None,
    device: Device = "auto",
    resume: Resume = False,
    examined: Examined = 500,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the layers: faster on a CPU, and needs a C++ compiler.")
    ] = False,
) -> None:  # fmt: skip
    """Train embedded-smollm2: SmolLM2 learns to see the embedded world; hours on one core. Can be resumed."""
    from ...flows.training.organism.run import train

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
    device: Device = "auto",
    examined: Examined = 200,
) -> None:
    """Train the open_clip model that AGLA masks scenes of the embedded world with; minutes on one core."""
    from ...flows.training.matcher.run import train_matcher as train

    typer.echo(f"matcher: {train(out, images, device, examined)}")


@app.command(
    epilog=o.worked(
        "veridical fit nullu --out my-nullu", "# and use it", "veridical caption photo.png -d nullu:weights=my-nullu",
        "# another model, pairs of your own",
        "veridical fit vti -m llava-hf/llava-1.5-7b-hf --pairs pairs.jsonl --out my-vti",
    )
)  # fmt: skip
def fit(
    decoder: Annotated[str, typer.Argument(help="The decoder that is fitted: nullu, vti or adhh.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The folder for what is found.")],
    model: o.Model = "embedded",
    pairs: Annotated[
        Path | None, typer.Option(
            help="A file of pairs: JSON lines with image, truthful and hallucinated.",
            show_default="scenes of the embedded world",
        )
    ] = None,
    count: Annotated[
        int | None, typer.Option(min=2, help="The number of pairs.", show_default="200, or the whole file")
    ] = None,
    image: Annotated[bool, typer.Option("--image", help="Fit vti's vision tower too; images of one size.")] = False,
    top: Annotated[int, typer.Option(min=1, help="The number of heads that adhh watches.")] = 20,
    synonyms: Annotated[
        Path | None, typer.Option(help="CHAIR's synonym file, for adhh.", show_default="the world's vocabulary")
    ] = None,
    device: o.Device = "auto", dtype: o.Dtype = "auto", revision: o.Revision = None,
    quantization: o.Quantization = None, attention: o.Attention = None,
) -> None:  # fmt: skip
    """Find what a decoder needs to know of a model once, on pairs of a true and a hallucinated caption."""
    from ...flows.fitting import run
    from ...flows.fitting.pairs import read_pairs, world_pairs
    from ...pipelines.model.spec import ModelSpec, load

    if decoder not in run.FITTED:
        raise ValueError(f"{decoder} is not fitted on pairs of captions; possible: {', '.join(run.FITTED)}.")
    if image and decoder != "vti":
        raise ValueError(f"--image fits the vision tower for vti; {decoder} has no such part: leave it out.")
    found = world_pairs(count or 200) if pairs is None else read_pairs(pairs, count)
    extra: dict[str, dict[str, Any]] = {
        "vti": {"image": image},
        "adhh": {"top": top, "synonyms": None if synonyms is None else str(synonyms)},
    }
    hush_transformers()
    with notes():
        lvlm = load(ModelSpec(model, device, dtype, revision, quantization, attention))
        folder = run.fit(lvlm, decoder, found, out, **extra.get(decoder, {}))
    typer.echo(f'{decoder}, fitted on {len(found)} pairs: {folder}; use it as "{decoder}:weights={folder}"')


@app.command(
    epilog=o.worked(
        "veridical bake embedded -d nullu --out embedded-nullu",
        "# it is an ordinary checkpoint", "veridical caption photo.png --model embedded-nullu",
        "# heads by layer and head", 'veridical bake embedded -d "vhr:heads=((2,3),(5,1))" --out embedded-vhr',
    )
)  # fmt: skip
def bake(
    model: Annotated[str, typer.Argument(help='"embedded", a folder, or a Hub id.', show_default=False)],
    out: Annotated[Path, typer.Option(help="The folder for the checkpoint; new or empty.")],
    decoder: Annotated[
        list[str], typer.Option(
            "--decoder", "-d", metavar="NAME[:FIELD=VALUE,...]", show_default=False,
            help='The method that is baked: nullu, or vhr or spin with fixed heads. Join several with "+".',
        )
    ],
    device: o.Device = "auto", dtype: o.Dtype = "auto", revision: o.Revision = None, attention: o.Attention = None,
) -> None:  # fmt: skip
    """Write a checkpoint with a method in its weights, for any server, and check that it does what the method does.

    It is exact or refused: a method whose edit depends on the input cannot be in weights that are the same for all.
    """
    from ...pipelines.model.baking import bake as write
    from ...pipelines.model.spec import ModelSpec, load
    from ...pipelines.registry import split_chain

    names = [part for one in decoder for part in split_chain(one)]
    check_names(names, [], [])
    hush_transformers()
    with notes():
        lvlm = load(ModelSpec(model, device, dtype, revision, None, attention))
        found = write(lvlm, names, out)
    typer.echo(
        f"{found.folder}: {len(found.changed)} tensors changed; logits of checkpoint and hooks differ by "
        f"{found.error:.1e} of 1 + |logit|, KL {found.kl:.1e} nats, {found.flips} likeliest tokens"
    )
