"""`veridical check`: is this model understood here, and do the methods hold on it?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ...pipelines.model.spec import ModelSpec
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
        "# how long a job will take, from a folder of images like its own",
        "veridical check embedded --images 10000 -d greedy -d vcd -b 16 --image photos",
    )
)  # fmt: skip
def check(
    model: Annotated[str, typer.Argument(help='"embedded", a folder, or a Hub id.', show_default=False)],
    image: Annotated[
        Path | None,
        typer.Option(
            help="The image that is used; with --images also a folder.", show_default="a scene of the embedded world"
        ),
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
    images: Annotated[
        int | None,
        typer.Option(
            min=1, show_default=False,
            help="Check nothing, and predict how long `caption --out` takes for this number of images.",
        ),
    ] = None,
    batch_size: o.BatchSize = 8, max_new_tokens: o.MaxNewTokens = 128,
    json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
    device: o.Device = "auto", dtype: o.Dtype = "auto", revision: o.Revision = None,
    quantization: o.Quantization = None, attention: o.Attention = None,
) -> None:  # fmt: skip
    """Check a model: where its image is, that methods hold, what they cost. Prints a report for a bug report.

    With -d or -t only the methods that are named are checked. With --images the time of a job is predicted, from costs
    that are counted and a short measurement on this machine.

    Exits with 1 if something does not hold, with 2 if the
    model cannot be loaded.
    """
    from ...pipelines.registry import DECODERS, DETECTORS

    spec = ModelSpec(model, device, dtype, revision, quantization, attention)
    if images is not None:
        if detector or quick:
            raise typer.BadParameter("--images predicts the time of decoders alone: leave -t and --quick out")
        _forecast(spec, decoder or ["greedy"], images, image, batch_size, max_new_tokens, json)
        return
    some = decoder or detector
    decoders = list(dict.fromkeys((decoder or []) if some else DECODERS.names))
    detectors = list(dict.fromkeys((detector or []) if some else DETECTORS.names))
    check_names(decoders, detectors, [])
    from ...datasets.world import scene
    from ...flows.checkup import run as checks
    from ...flows.files.progress import progress
    from ...pipelines.inputs.images import read_image
    from ...pipelines.model.spec import load
    from ..render import checkup

    checked = scene("test", 1).image if image is None else read_image(image)
    hush_transformers()
    count = 1 + len(decoders) + len(detectors)
    with notes(), progress("check", count, "steps", passing=True) as advance:
        lvlm = load(spec)
        report = checks.check(lvlm, checked, decoders, detectors, quick, advance)
    if json:
        from json import dumps

        typer.echo(dumps(report, ensure_ascii=False, allow_nan=False))
    else:
        typer.echo(checkup.text(report))
    if not report["holds"]:
        raise typer.Exit(1)


def _forecast(
    spec: ModelSpec, decoders: list[str], images: int, like: Path | None, batch_size: int, tokens: int, json: bool
) -> None:  # fmt: skip
    check_names(decoders, [], [])
    from ...datasets.prompts import DETAIL_PROMPT
    from ...flows.checkup import forecast
    from ...flows.files.progress import progress
    from ...pipelines.model.spec import load
    from ..render import checkup

    job = forecast.Job(images, _sample(like, max(forecast.SAMPLE, batch_size)), DETAIL_PROMPT, batch_size, tokens)
    hush_transformers()
    with notes(), progress("forecast", len(decoders), "decoders", passing=True) as advance:
        lvlm, found = load(spec), []
        for name in decoders:
            found.append(forecast.forecast(lvlm, job, name))
            advance(1)
    if json:
        from json import dumps

        typer.echo(dumps(found, ensure_ascii=False, allow_nan=False))
    else:
        typer.echo(checkup.forecasts(found))


def _sample(like: Path | None, count: int) -> list[Any]:
    """Images like those of a job: of a folder, spread over it; one image; or scenes of the embedded world."""
    from ...datasets.world import scene
    from ...flows.captioning import images as sources
    from ...pipelines.inputs.images import read_image

    if like is None:
        return [scene("validation", index).image for index in range(count)]
    if not like.is_dir():
        return [read_image(like)]
    items = sources.find([str(like)]).items
    step = max(1, len(items) // count)
    return [read_image(item.path) for item in items[::step][:count]]
