"""`veridical check`: is this model understood here, and do the methods hold on it?"""

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
        "veridical check embedded",
        "# a small real model, before a long run", "veridical check HuggingFaceTB/SmolVLM-256M-Instruct --quick",
        "# the methods that you use, on your image",
        "veridical check llava-hf/llava-1.5-7b-hf --image photo.jpg -d vcd -d vista",
    )
)  # fmt: skip
def check(
    model: Annotated[str, typer.Argument(help='"embedded", a folder, or a Hub id.', show_default=False)],
    image: Annotated[
        Path | None, typer.Option(help="The image that is used.", show_default="a scene of the embedded world")
    ] = None,
    decoder: Annotated[
        list[str] | None, typer.Option("--decoder", "-d", help="Check these methods alone.", show_default="all")
    ] = None,
    detector: Annotated[
        list[str] | None, typer.Option("--detector", "-t", help="Check these methods alone.", show_default="all")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Check fewer tokens, and measure neither time nor memory.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
    device: o.Device = "auto", dtype: o.Dtype = "auto", revision: o.Revision = None,
    quantization: o.Quantization = None, attention: o.Attention = None,
) -> None:  # fmt: skip
    """Check a model: where its image is, that methods hold, what they cost. Prints a report for a bug report.

    With -d or -t only the methods that are named are checked. Exits with 1 if something does not hold, with 2 if the
    model cannot be loaded.
    """
    from ...pipelines.registry import DECODERS, DETECTORS

    some = decoder or detector
    decoders = list(dict.fromkeys((decoder or []) if some else DECODERS.names))
    detectors = list(dict.fromkeys((detector or []) if some else DETECTORS.names))
    check_names(decoders, detectors, [])
    from ...datasets.world import scene
    from ...flows.checkup import run as checks
    from ...flows.files.progress import progress
    from ...pipelines.inputs.images import read_image
    from ...pipelines.model.spec import ModelSpec, load
    from ..render import checkup

    checked = scene("test", 1).image if image is None else read_image(image)
    hush_transformers()
    count = 1 + len(decoders) + len(detectors)
    with notes(), progress("check", count, "steps", passing=True) as advance:
        lvlm = load(ModelSpec(model, device, dtype, revision, quantization, attention))
        report = checks.check(lvlm, checked, decoders, detectors, quick, advance)
    if json:
        from json import dumps

        typer.echo(dumps(report, ensure_ascii=False, allow_nan=False))
    else:
        typer.echo(checkup.text(report))
    if not report["holds"]:
        raise typer.Exit(1)
