"""`veridical reproduce`: a run from its manifest, or a paper's figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .. import options as o
from ..errors import hush_transformers, notes

app = typer.Typer(rich_markup_mode="rich")


@app.command(
    epilog=o.worked(
        "# run it again and see whether anything differs", "veridical reproduce runs/llava",
        "# what papers report", "veridical reproduce --list",
        "veridical reproduce --paper vista --model llava-hf/llava-1.5-7b-hf --coco coco --synonyms synonyms.txt "
        "--out runs/vista",
    )
)  # fmt: skip
def reproduce(
    results: Annotated[
        Path | None, typer.Argument(help="Folder of an evaluation.", metavar="RESULTS", show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the new run.", show_default="RESULTS-again")] = None,
    paper: Annotated[
        str | None, typer.Option(help="Short name or arXiv number: run its protocol instead.", show_default=False)
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Of the paper: a Hub id or short name.", show_default=False)
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="Load this model instead.", show_default="the one that --model names")
    ] = None,
    benchmark: Annotated[str | None, typer.Option(help="This alone: chair or pope.", show_default="both")] = None,
    coco: Annotated[Path | None, typer.Option(help="Where COCO lies here.", show_default=False)] = None,
    synonyms: Annotated[Path | None, typer.Option(help="CHAIR's synonym file.", show_default=False)] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Images.", show_default="the paper's")] = None,
    figures: Annotated[Path | None, typer.Option(help="Other published figures.", show_default="the project's")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of a paper's images and sampling.")] = 0,
    batch_size: o.BatchSize = 16, device: o.Device = "auto", dtype: o.Dtype = "auto",
    listing: Annotated[bool, typer.Option("--list", help="Show what papers report and what can be run.")] = False,
    json: o.Json = False,
) -> None:  # fmt: skip
    """Repeat a run from its manifest: exits with 0 if it is equal, 1 if anything differs, 2 if it cannot be run.

    With --paper: the paper's protocol with ours, the paper's and independent figures side by side; exits with 0 if
    every figure of the paper lies in our interval, else with 1.
    """
    from ...flows.evaluation import published
    from ..render import scores

    path = figures or published.FILE
    if listing:
        columns = ("paper", "model", "benchmark", "decoding", "methods (not here)", "can be run")
        scores.plain_table("", columns, published.available(path), left=len(columns), whole=4)
        return
    if (results is None) is (paper is None):
        raise ValueError("needed: either a folder of RESULTS, or --paper NAME (and --model); --list shows the papers.")
    hush_transformers()
    with notes():
        if results is not None:
            _again(results, out, coco, synonyms, device, json)
        else:
            if model is None or out is None:
                raise ValueError(
                    f"--paper {paper} needs --model and --out; `veridical reproduce --list` shows the models."
                )
            options = {"seed": seed, "batch_size": batch_size, "device": device, "dtype": dtype}
            runs = published.plan(paper or "", model, None, benchmark, path)
            _beside(runs, model, checkpoint, out, coco, synonyms, limit, path, json, options)


def _again(results: Path, out: Path | None, coco: Path | None, synonyms: Path | None, device: str, json: bool) -> None:
    from ...flows.evaluation import reproduce as reproducing
    from ..render import reproduction, scores

    given = {"coco": coco, "synonyms": synonyms, "device": None if device == "auto" else device}
    changes = {name: str(value) for name, value in given.items() if value is not None}
    found = reproducing.reproduce(results, out, **changes)
    stale = bool(found.figures) and reproducing.stale(results)
    if json:
        scores.as_json({**found.record(), "figures do not follow from answers": stale})
    else:
        reproduction.repeated(found, stale)
    if not found.equal:
        raise typer.Exit(1)


def _beside(
    runs: Any, model: str, checkpoint: str | None, out: Path, coco: Path | None, synonyms: Path | None,
    limit: int | None, path: Path, json: bool, options: dict[str, Any],
) -> None:  # fmt: skip
    from ...flows.evaluation import published
    from ..render import reproduction, scores

    if not json:
        reproduction.planned(runs)
    runs = [one for one in runs if one.obstacle is None]
    if not runs:
        raise ValueError(f"none of the paper's runs on {model} can be made here; the notes above say why.")
    known = [model] if "/" in model else [*published.hub_ids(model, path)]
    if not checkpoint and not known:
        raise ValueError(f"no Hub id of {model} is known; name a folder or Hub id with --checkpoint.")
    loaded = checkpoint or known[0]
    told = []
    for one in runs:
        folder = published.run(one, loaded, out, coco, synonyms, limit, **options)
        lines = published.beside(one, folder, model, path)
        told += lines
        if not json:
            reproduction.beside(one.name, lines)
    if json:
        scores.as_json({"model": loaded, "lines": [vars(line) for line in told]})
    elif limit is not None:
        typer.echo(f"note: {limit} images instead of the paper's: our intervals are wider for it", err=True)
    if not all(line.inside for line in told):
        raise typer.Exit(1)
