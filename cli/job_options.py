"""`veridical caption` on many images: the options of the job, its start, and what is printed at its end."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import budget_options, worker_options
from .errors import BAD_INPUT, hush_transformers, notes
from .option_checks import one_of
from .terminal import echo
from .validate import check_names, refuse_results

if TYPE_CHECKING:
    from ..flows.captioning.request import Captioning
    from ..flows.captioning.watch import Watch

_JOB = "Many images"


def _option(*names: str, **settings: Any) -> Any:
    return typer.Option(*names, rich_help_panel=_JOB, **settings)


def _watch(*names: str, **settings: Any) -> Any:
    return typer.Option(*names, rich_help_panel="Watching many images", show_default=False, **settings)


Out = Annotated[
    Path | None,
    _option("--out", help="The folder for the captions of many images; the same command goes on after a stop."),
]
Form = Annotated[
    str,
    _option(
        "--format", help='The format of the captions: "parquet", "jsonl", "csv", or "coco" for its results format.',
        callback=one_of("parquet", "jsonl", "csv", "coco"),
    ),
]
ShardSize = Annotated[
    int, _option("--shard-size", min=1, help="The number of images per file; a kill loses at most one file.")
]
RetryErrors = Annotated[bool, _option("--retry-errors", help="Caption again the images with an error, and only those.")]
Add = Annotated[bool, _option("--add", help="Also caption images that have come into the folder or list.")]
Include = Annotated[
    list[str] | None,
    _option("--include", show_default=False, help='Caption only the images of a folder that fit, such as "*.jpg".'),
]
Exclude = Annotated[
    list[str] | None,
    _option("--exclude", show_default=False, help='Leave out the images of a folder that fit, such as "*_thumb*".'),
]
AttentionMaps = Annotated[
    int,
    _option(
        "--attention-maps", min=0,
        help="The number of images whose attention the report shows; it is read after all captions, in one forward "
        "pass for each caption of these.",
    ),
]  # fmt: skip
MaxPixels = Annotated[
    int,
    _option(
        "--max-pixels", min=1, max=178_956_970,
        help="The largest number of pixels of an image; larger ones become error rows.",
    ),
]  # fmt: skip
MaxBytes = Annotated[
    int, _option("--max-bytes", min=1, help="The largest size of a file in bytes; larger ones become error rows.")
]
Readers = Annotated[int, _option("--readers", min=1, help="The number of threads that read and decode images.")]
LogFile = Annotated[str | None, _watch("--log-file", help="Add JSON lines about the job to this file.")]
LogLevel = Annotated[str, _watch("--log-level", help='The least severe lines: "debug", "info", "warning" or "error".')]
MetricsFile = Annotated[
    str | None, _watch("--metrics-file", help="Write images, errors, speed and time left to this file, for Prometheus.")
]
HeartbeatFile = Annotated[str | None, _watch("--heartbeat-file", help="Write this file after every shard.")]
MaxErrorShare = Annotated[
    float | None, _watch("--max-error-share", min=0.0, max=1.0, help="Stop at a larger share of errors in this run.")
]
StallTimeout = Annotated[
    float | None, _watch("--stall-timeout", min=0.1, help="Seconds without a finished batch after which to stop.")
]


@dataclass(frozen=True)
class Continuing:
    """What a command does beside going on.

    retry_errors: caption errors again. add: take in new images. globs: whether it chooses among a folder's images.
    """

    retry_errors: bool = False
    add: bool = False
    globs: bool = False


def is_job(images: list[str], out: Path | None, json: bool, more: Continuing) -> bool:
    """Whether a command is a job; what only a job can do is refused without --out, and what it cannot with it.

    Raises:
        ValueError: says what to add or leave out.
    """
    from ..flows.captioning.images import is_source

    if not all(images):
        raise ValueError("an image has an empty name; the folder that this command runs in is called .")
    many = [image for image in images if is_source(Path(image))]
    if many and out is None:
        raise ValueError(f"{many[0]} holds many images: add --out FOLDER for their captions")
    jobs = (("--retry-errors", more.retry_errors), ("--add", more.add), ("a choice by globs", more.globs))
    alone = [name for name, on in jobs if on]
    if alone and out is None:
        raise ValueError(f"{alone[0]} is for many images: add --out FOLDER for their captions")
    if json and out is not None:
        raise ValueError("--json prints captions, --out writes them to a file: choose --format jsonl instead")
    return out is not None


def run(
    request: Captioning, out: str, more: Continuing, watch: Watch, prefect: bool | None,
    spread: worker_options.Spread, budget: float | None = None,
) -> None:  # fmt: skip
    """Start or continue a job; exit with 1 if some images have no caption. budget: of time, see `budget_options`."""
    from ..flows.captioning import images as sources
    from ..flows.captioning.growth import new_images, note
    from ..flows.captioning.job import SUMMARY, Damaged, Job, finished, refuse_other_request

    sources.check_names([*request.sources, out])
    refuse_results(Path(out))
    request.check()
    watch.check()
    spread.check(prefect is False)
    if budget is not None:
        request = budget_options.job(request, out, budget, spread)
    with suppress(Damaged, FileNotFoundError):  # a begun job, before PyTorch and Prefect are loaded
        job = Job.read(out)
        refuse_other_request(job, request)
        new = new_images(job) if spread.runner == "local" and finished(job, more.retry_errors) else None
        if new is not None and not (new and more.add):
            if new:
                echo(f"note: {note(job, new)}", err=True)
            _settle(job.out)
            _report(job.out / SUMMARY)
            return
    check_names(list(request.decoders), list(request.detectors), [], request.model.name)
    hush_transformers()
    with notes():
        summary = _run(request, out, more, watch, prefect, spread)
    if summary is not None:  # else one of several processes, another of which reports
        _report(Path(summary))


def _settle(out: Path) -> None:
    """Tell Prefect of a run whose end it could not be told of, unless somebody works in the folder."""
    from ..flows.files.lock import InUse, locked
    from ..flows.prefect import flow_runs

    if (out / flow_runs.NAME).is_file():
        with suppress(InUse), locked(out):
            flow_runs.settle(out)


def _report(path: Path) -> None:
    """Print where the captions are, and how many images have none."""
    from ..flows.files import atomic

    summary = atomic.read_json(path)
    echo(f"captions: {path.parent / summary['captions']['file']}")
    if "budget" in summary:
        echo(summary["budget"]["sentence"])
    bad = {name: counts["errors"] for name, counts in summary["decoders"].items() if counts["errors"]}
    for name, errors in bad.items():
        echo(f"Error: {name}: {errors} of {summary['images']} images have no caption.", err=True)
    if bad:
        echo(f"{path.parent / 'errors.jsonl'} says why; --retry-errors captions those alone again.", err=True)
        raise typer.Exit(BAD_INPUT if all(n == summary["images"] for n in bad.values()) else 1)


def _run(
    request: Captioning, out: str, more: Continuing, watch: Watch, prefect: bool | None, spread: worker_options.Spread
) -> str | None:  # fmt: skip
    if spread.runner == "accelerate":
        from ..flows.prefect.accelerate import caption

        return caption(request, out, more.retry_errors, watch, more.add)
    if not worker_options.under_prefect(prefect, spread.runner):
        from ..flows.captioning.run import captioning

        return captioning(request, out, more.retry_errors, watch=watch, add=more.add)
    from ..flows import caption as flows

    with spread.running(flows.overnight) as flow:
        needed = bool(prefect) or spread.runner != "local"
        return flows.run(flow, request, out, more.retry_errors, watch, more.add, needed)
