"""The command line, `veridical …`, put together from the groups in `cli.commands`.

Everything heavy is imported inside the command that needs it, so that help appears at once.
"""

from __future__ import annotations

import codecs
import io
import sys
from typing import Annotated

import typer

from . import objects
from . import options as o
from .commands import (
    answer,
    caption,
    check,
    choose,
    compare,
    data,
    detect,
    detectors,
    evaluate,
    gate,
    reproduce,
    schedule,
    score,
    status,
    training,
    verify,
)  # fmt: skip
from .demo import command as demo
from .errors import Reported, hush

app = typer.Typer(
    cls=Reported, rich_markup_mode="rich", no_args_is_help=True, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)  # fmt: skip


def main() -> None:
    """Entry point of the `veridical` program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and codecs.lookup(stream.encoding).name != "utf-8":
            stream.reconfigure(errors="replace")  # a terminal without arrows shows "?", and the program goes on
    try:
        app()
    except SystemExit as ended:
        if telemetry := sys.modules.get("veridical.flows.prefect.telemetry"):
            sys.stdout.flush()
            sys.stderr.flush()
            telemetry.leave(ended.code if isinstance(ended.code, int) else 1)
        raise


def _show_version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        typer.echo(f"veridical {__version__}")
        raise typer.Exit


@app.callback(
    epilog=o.worked(
        "# describe an image, plainly and with a method", "veridical caption photo.jpg -d greedy -d vcd",
        "# score methods on the embedded model", "veridical evaluate -d greedy -d vcd --limit 50 --out runs/first",
    )
)  # fmt: skip
def veridical(
    debug: Annotated[
        bool, typer.Option("--debug", envvar="VERIDICAL_DEBUG", help="Show tracebacks and the libraries' logs.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Mitigate, detect and score the words of vision-language models that the image does not support."""
    hush(debug)


@app.command(
    "list",
    epilog=o.worked("veridical list", "# with every field and its default", "veridical list --long"),
)
def list_methods(
    long: Annotated[
        bool, typer.Option("--long", "-l", help="Show fields, defaults, families, and where paper and code differ.")
    ] = False,
    json: o.JsonObject = False,
) -> None:
    """Show the registered decoders, procedures, detectors and benchmarks. Procedures stand where decoders are named."""
    from ..pipelines.registry import DECODERS, DETECTORS, PROCEDURES
    from .render import methods

    if json:
        from .render import scores

        scores.as_json(methods.record(DECODERS, PROCEDURES, DETECTORS))
        return
    methods.methods(DECODERS, ("changes", "cost", "cited"), long)
    methods.methods(PROCEDURES, ("changes", "cost", "cited"), long)
    methods.methods(DETECTORS, ("reads", "cited"), long)
    methods.benchmarks(long)
    if long:
        from .render.prompts import prompts

        prompts()


COMMANDS = (
    answer, caption, check, choose, compare, demo, detect, detectors, evaluate, gate, objects, reproduce, score, status,
    training, verify,
)  # fmt: skip
for group in COMMANDS:
    app.add_typer(group.app)
app.add_typer(data.app, name="data")
app.add_typer(schedule.app, name="schedule")
