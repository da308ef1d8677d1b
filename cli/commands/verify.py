"""`veridical verify`: the files of a captioning job, checked against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import options as o
from ..terminal import echo

app = typer.Typer(rich_markup_mode="rich")


@app.command(
    epilog=o.worked(
        "veridical verify runs/photos",
        "# remove what is damaged; the job then makes it again", "veridical verify runs/photos --repair",
    )
)  # fmt: skip
def verify(
    folder: Annotated[Path, typer.Argument(help="The folder of `veridical caption … --out`.", metavar="DIR")],
    repair: Annotated[bool, typer.Option("--repair", help="Remove damaged lines and files.")] = False,
    json: o.JsonObject = False,
) -> None:
    """Check the files of a captioning job. Exits with 1 if something is damaged and was not repaired."""
    from ...flows.captioning.verify import verify as check

    found = check(str(folder), repair)
    if json:
        from ..render import scores

        scores.as_json({**vars(found), "finished": found.finished})
    for fault in found.faults if not json else ():
        echo(f"damaged: {fault}")
    for done in found.repaired if not json else ():
        echo(f"repaired: {done}")
    state = "finished" if found.finished else f"{found.missing} of {found.shards} shards are to be made"
    if not json:
        echo(f"{folder}: {len(found.faults)} faults; {state}")
    if not json and (found.missing or (found.repaired and not found.finished)):
        echo("The command that began the job goes on from here.")
    if len(found.faults) > len(found.repaired):
        raise typer.Exit(1)
