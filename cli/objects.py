"""`veridical objects`: a file of what is in which image, for methods that want to know."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options as o

app = typer.Typer(rich_markup_mode="rich")


@app.command(
    epilog=o.worked(
        "# with the matcher that is shipped for the embedded world",
        "veridical objects *.png --by embedded --names dog,cat,book --threshold 0.3 --out objects.jsonl",
        "# as MARINE's paper begins: DETR, where it is sure",
        "veridical objects *.jpg --by detector:facebook/detr-resnet-50 --threshold 0.95 --out objects.jsonl",
        "# then", "veridical caption *.jpg -d marine:objects=objects.jsonl",
    )
)  # fmt: skip
def objects(
    images: o.Images,
    by: Annotated[
        list[str],
        typer.Option(
            help='What finds objects: "detector:" and a folder or Hub id of an object detector of transformers, or a '
            'matcher: "embedded", "open_clip:…", "blip:…". Repeat the option to keep what all of them find.',
            show_default=False,
        ),
    ],
    threshold: Annotated[
        list[float],
        typer.Option(
            help="The score, or a matcher's cosine, that is enough; one for all, or one for each --by.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="The file that is written; it must not exist.", show_default=False)],
    names: Annotated[
        str | None,
        typer.Option(help="The names that a matcher looks for, or that a detector's are kept to, with commas."),
    ] = None,
    device: o.Device = "auto", batch_size: o.BatchSize = 8,
) -> None:  # fmt: skip
    """Find the objects in images and write a file of them, a line of JSON for each image.

    Nothing is downloaded but the model that --by names. An image that cannot be read is left out, and the command exits
    with 1.
    """
    from ..pipelines.matching.objects import check_finder, confirmed, load_finder

    wanted = [name.strip() for name in (names or "").split(",") if name.strip()]
    if len(threshold) not in (1, len(by)):
        raise ValueError(f"--threshold is given {len(threshold)} times for {len(by)} --by; give one, or as many.")
    if out.exists():
        raise ValueError(f"{out} exists; give another file, or remove it.")
    for source in by:
        check_finder(source, wanted)
    from ..flows.files.atomic import write_text
    from ..pipelines.inputs.images import BadImage, read_image
    from ..pipelines.inputs.objects_file import objects_line

    place = _device(device)
    limits = threshold * len(by) if len(threshold) == 1 else threshold
    finders = [load_finder(source, wanted, limit, place) for source, limit in zip(by, limits, strict=True)]
    lines, bad = [], 0
    for start in range(0, len(images), batch_size):
        read = {}
        for path in images[start : start + batch_size]:
            try:
                read[path] = read_image(path)
            except BadImage as error:
                typer.echo(str(error), err=True)
                bad += 1
        if read:
            found = confirmed([find(list(read.values())) for find in finders])
            lines += [objects_line(path, image, mine) for (path, image), mine in zip(read.items(), found, strict=True)]
    write_text(out, "".join(line + "\n" for line in lines))
    typer.echo(f"{out} has the objects of {len(lines)} images: -d marine:objects={out}")
    if bad:
        raise typer.Exit(1)


def _device(wanted: str) -> str:
    import torch

    return ("cuda" if torch.cuda.is_available() else "cpu") if wanted == "auto" else wanted
