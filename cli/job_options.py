"""`veridical caption` on many images: the options of the job, and how it is started and told of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import worker_options
from .errors import BAD_INPUT, hush_transformers, notes
from .validate import check_names

_JOB = "Many images"


def _option(*names: str, **settings: Any) -> Any:
    return typer.Option(*names, rich_help_panel=_JOB, **settings)


Out = Annotated[
    Path | None,
    _option("--out", help="Work through many images into this folder; the same command goes on after a stop."),
]
Form = Annotated[str, _option("--format", help='Of the captions: "parquet" or "jsonl".')]
ShardSize = Annotated[int, _option("--shard-size", min=1, help="Images per file; a kill loses at most one file.")]
RetryErrors = Annotated[bool, _option("--retry-errors", help="Ask again for what has an error, and only for that.")]
MaxPixels = Annotated[int, _option("--max-pixels", min=1, max=178_956_970, help="Larger images become error rows.")]
MaxBytes = Annotated[int, _option("--max-bytes", min=1, help="Larger files become error rows.")]
AllowUrls = Annotated[bool, _option("--allow-urls", help="Fetch addresses that a list names; public ones only.")]
Readers = Annotated[int, _option("--readers", min=1, help="Threads that read and decode images.")]
NoPrefect = Annotated[bool, _option("--no-prefect", help="Run the same steps without Prefect.")]


def is_job(images: list[Path], out: Path | None, json: bool, retry_errors: bool, allow_urls: bool) -> bool:
    """Whether a command is a job; what only a job can do is refused without --out, and what it cannot with it.

    Raises:
        ValueError: says what to add or leave out.
    """
    from ..flows.captioning.images import is_source

    many = [image for image in images if is_source(image)]
    if many and out is None:
        raise ValueError(f"{many[0]} holds many images: add --out FOLDER for their captions")
    alone = [name for name, given in (("--retry-errors", retry_errors), ("--allow-urls", allow_urls)) if given]
    if alone and out is None:
        raise ValueError(f"{alone[0]} is for many images: add --out FOLDER for their captions")
    if json and out is not None:
        raise ValueError("--json prints captions, --out writes them to a file: choose --format jsonl instead")
    return out is not None


def run(asked: dict[str, Any], no_prefect: bool, spread: worker_options.Spread) -> None:
    """Start or continue a job; exit with 1 if some images have no caption."""
    from ..flows.captioning import images as sources
    from ..flows.evaluation import answer_file

    sources.check_names([*asked["images"], asked["out"]])
    check_names(asked["decoders"], asked["detectors"], [])
    spread.check(no_prefect)
    hush_transformers()
    with notes():
        told = _run(asked, no_prefect, spread)
    if told is None:  # one of several processes, of which another tells
        return
    path = Path(told)
    summary = answer_file.read_json(path)
    typer.echo(f"captions: {path.parent / summary['captions']['file']}")
    bad = {name: told["errors"] for name, told in summary["decoders"].items() if told["errors"]}
    for name, errors in bad.items():
        typer.echo(f"Error: {name}: {errors} of {summary['images']} images have no caption.", err=True)
    if bad:
        typer.echo(f"{path.parent / 'errors.jsonl'} says why; --retry-errors asks again for those alone.", err=True)
        raise typer.Exit(BAD_INPUT if all(n == summary["images"] for n in bad.values()) else 1)


def _run(asked: dict[str, Any], no_prefect: bool, spread: worker_options.Spread) -> str | None:
    if spread.runner == "accelerate":
        from ..flows.prefect.accelerate import caption

        return caption(asked)
    if no_prefect:
        from ..flows.captioning.run import captioning

        return captioning(**asked)
    from ..flows.caption import overnight

    with spread.running(overnight) as flow:
        return str(flow(**asked))
