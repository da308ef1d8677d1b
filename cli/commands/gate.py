"""`veridical gate-curve`: what a gate keeps of a decoder's gain."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from .. import options as o
from ..errors import hush_transformers, notes
from ..validate import check_names

app = typer.Typer(rich_markup_mode="rich")


@app.command(
    "gate-curve",
    epilog=o.worked(
        "veridical gate-curve -d vcd -t entropy --limit 300 --out runs/gating.md",
        "# several of each, every one with every one",
        "veridical gate-curve -d vcd -d vista:strength=0.05 -t entropy -t position --share 0.1 --share 0.3 --out g.md",
    ),
)  # fmt: skip
def gate_curve(
    out: Annotated[Path, typer.Option(help="The Markdown file; a .json and a .svg are written beside it.")],
    decoder: o.Decoders = None, detector: o.Detectors = None, model: o.Model = "embedded",
    share: Annotated[
        list[float] | None,
        typer.Option(
            help="The share of the steps that a gate lets pass; repeat the option for several.",
            show_default="0.1, 0.2, 0.3 and 0.5",
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="The number of test images.")] = 300,
    validation: Annotated[int, typer.Option(min=1, help="The number of images that choose the thresholds.")] = 200,
    batch_size: o.BatchSize = 32,
    coco: Annotated[
        Path | None, typer.Option(help="A COCO folder instead of the embedded world.", show_default=False)
    ] = None,
    split: Annotated[str | None, typer.Option(help="The split that is reported.", show_default="test")] = None,
    validation_split: Annotated[
        str | None, typer.Option(help="The split that chooses the thresholds.", show_default="validation")
    ] = None,
    synonyms: Annotated[Path | None, typer.Option(help="CHAIR's synonym file.", show_default=False)] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="The largest number of tokens of a caption.", show_default="128")
    ] = None,
    device: o.Device = "auto", dtype: o.Dtype = "auto", revision: o.Revision = None,
) -> None:  # fmt: skip
    """Measure hallucination against the share of steps that a gate lets a decoder act on."""
    decoders, detectors = decoder or ["vcd"], detector or ["entropy"]
    check_names(decoders, detectors, [])
    if coco and not validation_split:
        raise ValueError("a COCO folder needs --validation-split: thresholds are not chosen on the images reported.")
    from ...flows.benchmarks.base import Source
    from ...flows.gating.curve import SHARES, VALIDATION, GateCurve, curve
    from ...pipelines.model.spec import ModelSpec

    test = Source(None if coco is None else str(coco), split, limit, 0, None if synonyms is None else str(synonyms))
    chosen = replace(test, split=validation_split or VALIDATION, limit=validation)
    request = GateCurve(
        test, chosen, ModelSpec(model, device, dtype, revision), decoders, detectors, tuple(share or SHARES),
        batch_size, max_new_tokens,
    )  # fmt: skip
    hush_transformers()
    with notes():
        written = curve(request, out)
    typer.echo(written.read_text(encoding="utf-8"))
    typer.echo(f"written: {written}, {written.with_suffix('.json')} and {written.with_suffix('.svg')}")
