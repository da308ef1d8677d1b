"""`veridical reproduce`: a run from its manifest, or a paper's figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import options as o
from ..errors import hush_transformers, notes

if TYPE_CHECKING:
    from ...flows.evaluation.published import Run
    from ...flows.evaluation.request import Evaluation

app = typer.Typer(rich_markup_mode="rich")


@app.command(
    epilog=o.worked(
        "# run it again and see whether anything differs", "veridical reproduce runs/llava",
        "# what papers report", "veridical reproduce --list",
        "veridical reproduce --paper vista --model llava-hf/llava-1.5-7b-hf --coco coco --synonyms chair_synonyms.txt "
        "--out runs/vista",
        "# what released captions and answers say of published claims",
        "veridical reproduce --released released --coco coco --synonyms chair_synonyms.txt --repope repope "
        "--out literature.md",
    )
)  # fmt: skip
def reproduce(
    results: Annotated[
        Path | None, typer.Argument(help="The folder of an evaluation.", metavar="RESULTS", show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The folder for the new run.", show_default="RESULTS-again")] = None,
    paper: Annotated[
        str | None, typer.Option(
            help="Run the protocol of this paper instead: a short name or an arXiv number.", show_default=False,
        )
    ] = None,
    model: Annotated[
        str | None, typer.Option(
            "--model", "-m", help="The model of the paper: an id on the Hub or a short name.", show_default=False,
        )
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="Load this model instead.", show_default="the one that --model names")
    ] = None,
    benchmark: Annotated[
        str | None, typer.Option(help="Run this benchmark alone: chair or pope.", show_default="both")
    ] = None,
    coco: Annotated[Path | None, typer.Option(help="The folder of COCO on this machine.", show_default=False)] = None,
    synonyms: Annotated[Path | None, typer.Option(help="CHAIR's synonym file.", show_default=False)] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The number of images.", show_default="the paper's")] = None,
    figures: Annotated[
        Path | None, typer.Option(help="A file of other published figures.", show_default="the project's")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The seed of a paper's images and sampling.")] = 0,
    batch_size: o.BatchSize = 16, device: o.Device = "auto", dtype: o.Dtype = "auto",
    released: Annotated[
        Path | None, typer.Option(help="The folder that `data released` wrote.", show_default=False)
    ] = None,
    repope: Annotated[
        Path | None, typer.Option(help="The folder that `data repope` wrote, with --released.", show_default=False)
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(
            help="The folder that keeps the mentions of captions, with --released.", show_default="the platform's",
        )
    ] = None,
    listing: Annotated[bool, typer.Option("--list", help="Show what papers report and what can be run.")] = False,
    json: o.Json = False,
) -> None:  # fmt: skip
    """Repeat a run from its manifest: exits with 0 if it is equal, 1 if anything differs, 2 if it cannot be run.

    With --paper: the paper's protocol with ours, the paper's and independent figures side by side; exits with 0 if
    every figure of the paper lies in our interval, else with 1.

    With --released: captions and answers that published methods released, plain and method, through one scorer; writes
    a page of what is left of their claims (--out). --coco is then a COCO folder or a file of ready-made sets.
    """
    from ...flows.evaluation import published
    from ..render import scores

    path = figures or published.FILE
    if listing:
        columns = ("paper", "model", "benchmark", "decoding", "methods (not here)", "can be run")
        scores.plain_table("", columns, published.available(path), left=len(columns), whole=4)
        return
    if sum(one is not None for one in (results, paper, released)) != 1:
        raise ValueError(
            "needed: either a folder of RESULTS, or --paper NAME (and --model), or --released FOLDER; --list shows the "
            "papers."
        )
    if released is not None:
        _literature(released, coco, synonyms, repope, cache, out, json)
        return
    hush_transformers()
    with notes():
        if results is not None:
            _again(results, out, coco, synonyms, device, json)
        else:
            if model is None or out is None:
                raise ValueError(
                    f"--paper {paper} needs --model and --out; `veridical reproduce --list` shows the models."
                )
            from ...flows.benchmarks.base import Source
            from ...flows.evaluation.request import Evaluation
            from ...pipelines.model.spec import ModelSpec

            runs = published.plan(paper or "", model, None, benchmark, path)
            source = Source(
                None if coco is None else str(coco), seed=seed, synonyms=None if synonyms is None else str(synonyms)
            )
            loaded = ModelSpec(checkpoint or _hub_id(model, path), device, dtype)
            base = Evaluation(loaded, source=source, batch_size=batch_size)
            _beside(runs, model, base, out, limit, path, json)


def _again(results: Path, out: Path | None, coco: Path | None, synonyms: Path | None, device: str, json: bool) -> None:
    from ...flows.evaluation import reproduce as reproducing
    from ..render import reproduction, scores

    text = lambda path: None if path is None else str(path)
    found = reproducing.reproduce(results, out, None if device == "auto" else device, text(coco), text(synonyms))
    stale = bool(found.figures) and reproducing.stale(results)
    if json:
        scores.as_json({**found.record(), "figures do not follow from answers": stale})
    else:
        reproduction.repeated(found, stale)
    if not found.equal:
        raise typer.Exit(1)


def _hub_id(model: str, path: Path) -> str:
    """A Hub id of a model of the published figures; "" where none is known."""
    from ...flows.evaluation import published

    return model if "/" in model else next(iter(published.hub_ids(model, path)), "")


def _beside(
    runs: Sequence[Run], model: str, base: Evaluation, out: Path, limit: int | None, path: Path, json: bool
) -> None:
    from ...flows.evaluation import published
    from ..render import reproduction, scores

    if not json:
        reproduction.planned(runs)
    runs = [one for one in runs if one.obstacle is None]
    if not runs:
        raise ValueError(f"none of the paper's runs on {model} can be run here; the notes above say why.")
    if not base.model.name:
        raise ValueError(f"no Hub id of {model} is known; name a folder or Hub id with --checkpoint.")
    every = []
    for one in runs:
        folder = published.run(one, base, out, limit)
        lines = published.beside(one, folder, model, path)
        every += lines
        if not json:
            reproduction.beside(one.name, lines)
    if json:
        scores.as_json({"model": base.model.name, "lines": [vars(line) for line in every]})
    elif limit is not None:
        typer.echo(f"note: {limit} images instead of the paper's: our intervals are wider for it", err=True)
    if not all(line.inside for line in every):
        raise typer.Exit(1)


def _literature(
    released: Path, coco: Path | None, synonyms: Path | None, repope: Path | None, cache: Path | None,
    out: Path | None, json: bool,
) -> None:  # fmt: skip
    from collections import Counter

    from ...flows.literature.run import literature
    from ..render import scores

    if coco is None or synonyms is None:
        raise ValueError(
            "--released needs --coco (a COCO folder, or ready-made sets) and --synonyms (`veridical data chair`)."
        )
    found = literature(released, coco, synonyms, repope, cache, out)
    if json:
        scores.as_json(found.record())
        return
    verdicts = Counter(pair.verdict("chair_i") for pair in found.pairs)
    rows = [(name, str(verdicts[name])) for name in ("holds", "by length", "inside the noise", "fails")]
    scores.plain_table(f"CHAIR_I of {len(found.pairs)} pairs", ("verdict", "pairs"), rows)
    left_out = [f"{name}: {line}" for name, lines in found.skipped.items() for line in lines]
    scores.notes([f"{name} is absent" for name in found.absent], left_out)
    if out is not None:
        typer.echo(f"the page is {out}")
