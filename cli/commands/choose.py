"""`veridical choose`: a setting for a user's images, with a guarantee on how much it hallucinates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import options as o
from ..errors import hush_transformers, notes
from ..validate import check_names

app = typer.Typer(rich_markup_mode="rich")


@app.command(
    epilog=o.worked(
        "veridical choose --level 0.15 --recall-loss 0.05 --out chosen.json",
        "# on your images, with annotations in COCO's format",
        "veridical choose --coco coco --synonyms chair_synonyms.txt -m llava-hf/llava-1.5-7b-hf -t entropy -d vcd "
        "--level 0.1 --out chosen.json",
        "# and then", "veridical caption photos --setting chosen.json --out runs/photos",
    )
)  # fmt: skip
def choose(
    out: Annotated[Path, typer.Option(help="The setting file, .json; captions are kept in a folder of its name.")],
    level: Annotated[
        float, typer.Option(help="The largest expected share of hallucinated mentions in a caption.")
    ] = 0.1,
    confidence: Annotated[float, typer.Option(help="The confidence with which the level is kept.")] = 0.9,
    in_expectation: Annotated[
        bool, typer.Option("--in-expectation", help="Control the expectation itself, without a confidence.")
    ] = False,
    recall_loss: Annotated[
        float, typer.Option(help="The tolerable loss of recall against plain decoding; 0.05 is five points.")
    ] = 0.05,
    seconds: Annotated[
        float | None, typer.Option(help="The most seconds per image.", show_default="any")
    ] = None,
    decoder: o.Decoders = None,
    detector: Annotated[
        str, typer.Option("--detector", "-t", metavar="NAME", help="The detector whose risk drops sentences.")
    ] = "lookback_lens",
    gate_share: Annotated[
        list[float] | None,
        typer.Option(help="Try decoders behind a gate at this share of steps too; repeat the option for several.",
                     show_default=False),
    ] = None,
    model: o.Model = "embedded",
    coco: Annotated[
        Path | None, typer.Option(help="A COCO folder instead of the embedded world.", show_default=False)
    ] = None,
    split: Annotated[str | None, typer.Option(help="The split of either.", show_default="validation")] = None,
    synonyms: Annotated[Path | None, typer.Option(help="CHAIR's synonym file.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, help="The number of images.")] = 600,
    calibration_share: Annotated[
        float, typer.Option(help="The share of the images that choose; the others certify.", show_default="a third")
    ] = 1 / 3,
    seed: Annotated[int, typer.Option(min=0, help="The seed that draws the images and divides them.")] = 0,
    batch_size: o.BatchSize = 32,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="The largest number of tokens of a caption.", show_default="128")
    ] = None,
    device: o.Device = "auto", dtype: o.Dtype = "auto", revision: o.Revision = None,
    quantization: o.Quantization = None, attention: o.Attention = None,
) -> None:  # fmt: skip
    """Choose decoder, gate and threshold for your images, with a guarantee that holds for any distribution.

    Exits with 1 if nothing can be claimed; the file then says why.
    """
    check_names(decoder or [], [detector], [])
    from ...flows.benchmarks.base import Source
    from ...flows.choosing.request import Choice
    from ...pipelines.model.spec import ModelSpec

    source = Source(
        None if coco is None else str(coco), split or (None if coco else "validation"), limit, seed,
        None if synonyms is None else str(synonyms),
    )  # fmt: skip
    spec = ModelSpec(model, device, dtype, revision, quantization, attention)
    candidates = {"decoders": tuple(decoder)} if decoder else {}
    request = Choice(
        spec, source, level, None if in_expectation else confidence, recall_loss, seconds, detector=detector,
        gate_shares=tuple(gate_share or ()), calibration_share=calibration_share, seed=seed, batch_size=batch_size,
        max_new_tokens=max_new_tokens, **candidates,
    )  # fmt: skip
    from ...flows.choosing import run

    hush_transformers()
    with notes():
        found = run.choose(request, out)
    for name, one in found["figures"].items():
        typer.echo(f"{name:>14}  {one['value']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}] (n={one['n']})")
    typer.echo(f"setting: {found['setting'] or 'none'}")
    typer.echo(found["guarantee"])
    if not found["claim"]:
        raise typer.Exit(1)
    typer.echo(f"veridical caption IMAGES --setting {out}")
