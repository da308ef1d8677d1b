"""`veridical evaluate`: decoders on benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .. import options as o
from ..failures import hush_transformers, notes
from .names import check_names

app = typer.Typer(rich_markup_mode="rich")


@app.command(
    epilog=o.worked(
        "# the embedded model on its own world",
        "veridical evaluate -d greedy -d vcd -d vista:strength=0.05 --limit 100 --out runs/first",
        "# another model on COCO",
        "veridical evaluate -m llava-hf/llava-1.5-7b-hf --coco coco --synonyms synonyms.txt --out runs/llava",
        "# stopped? the same command goes on where it was",
    )
)  # fmt: skip
def evaluate(
    out: Annotated[Path, typer.Option(help="Folder for answers, results and report.")],
    model: o.Model = "embedded", decoder: o.Decoders = None, detector: o.Detectors = None,
    benchmark: Annotated[
        list[str] | None, typer.Option(help="What to measure; repeat it for several.", show_default="pope and chair")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Number of images.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Of images drawn, negatives and sampling.")] = 0,
    batch_size: o.BatchSize = 16,
    coco: Annotated[
        Path | None, typer.Option(help="A COCO folder instead of the embedded world.", show_default=False)
    ] = None,
    split: Annotated[
        str | None, typer.Option(help='Such as "val2014".', show_default="test, or the folder's only one")
    ] = None,
    synonyms: Annotated[
        Path | None, typer.Option(help="CHAIR's synonym file, for real COCO.", show_default="the world's vocabulary")
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest text, in tokens.", show_default="the benchmark's")
    ] = None,
    sample: o.Sample = False, temperature: o.Temperature = None, top_p: o.TopP = None, num_beams: o.Beams = 1,
    device: o.Device = "auto", dtype: o.Dtype = "auto", revision: o.Revision = None,
    no_prefect: Annotated[bool, typer.Option("--no-prefect", help="Run the same steps without Prefect.")] = False,
) -> None:  # fmt: skip
    """Score decoders on benchmarks: answers, results.json, manifest.json and report.html in one folder."""
    generation = o.generation(sample, temperature, top_p, num_beams)
    if max_new_tokens is not None:
        generation["max_new_tokens"] = max_new_tokens
    asked: dict[str, Any] = {
        "model": model, "decoders": decoder or ["greedy"], "detectors": detector or [],
        "benchmarks": benchmark or ["pope", "chair"], "limit": limit, "seed": seed, "out": str(out),
        "batch_size": batch_size, "coco": None if coco is None else str(coco), "split": split,
        "synonyms": None if synonyms is None else str(synonyms), "device": device, "dtype": dtype,
        "revision": revision, "generation": generation,
    }  # fmt: skip
    from .. import show, steps

    check_names(asked["decoders"], asked["detectors"], asked["benchmarks"])
    hush_transformers()
    with notes():
        if no_prefect:
            steps.evaluation(**asked)
        else:
            from ..evaluate import evaluate as flow

            flow(**asked)
    show.results(out)
