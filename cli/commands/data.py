"""`veridical data`: data sets written or downloaded, at the user's request."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .. import options as o

GITHUB = "https://raw.githubusercontent.com"
app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Write data sets.")


@app.command(epilog=o.worked("veridical data world --split test --count 500 --out coco-world"))
def world(
    out: Annotated[Path, typer.Option(help="The folder to write to.")],
    split: Annotated[str, typer.Option(help="The split: train, validation or test.")] = "test",
    count: Annotated[int, typer.Option(min=1, help="The number of scenes.")] = 100,
) -> None:
    """Write scenes of the embedded world as a COCO folder: images, instances and captions."""
    from ...datasets.coco import write_coco
    from ...flows.files.progress import progress

    with progress(f"world {split}", count, "images") as advance:

        def watched(indices: Any) -> Any:
            for index in indices:
                yield index
                advance(1)

        folder = write_coco(split, count, out, watched)
    typer.echo(f"{count} scenes in {folder}: instances_{split}.json, captions_{split}.json and {split}/")


@app.command(epilog=o.worked("veridical data pairs --out pairs", "veridical fit vti --pairs pairs/pairs.jsonl --out v"))
def pairs(
    out: Annotated[Path, typer.Option(help="The folder to write to.")],
    split: Annotated[str, typer.Option(help="The split: train, validation or test.")] = "train",
    count: Annotated[int, typer.Option(min=2, help="The number of scenes.")] = 200,
) -> None:
    """Write scenes of the embedded world with a true and a hallucinated caption each, for `veridical fit`."""
    from ...flows.files.progress import progress
    from ...flows.fitting.pairs import write_world_pairs

    with progress(f"pairs {split}", count, "images") as advance:
        path = write_world_pairs(out, count, split, advance)
    typer.echo(f"{count} pairs in {path}")


@app.command(epilog=o.worked("veridical data nltk --out ~/nltk_data"))
def nltk(out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("nltk_data")) -> None:
    """Download what CHAIR's wordnet family needs of NLTK: tokenizer, tagger and WordNet."""
    from ...flows.files.downloads import nltk_data

    typer.echo(f"NLTK data in {nltk_data(out)}; set NLTK_DATA={out} if that is not where NLTK looks")


@app.command(epilog=o.worked("veridical data chair --out chair_synonyms.txt"))
def chair(out: Annotated[Path, typer.Option(help="The file to write.")] = Path("chair_synonyms.txt")) -> None:
    """Download CHAIR's official synonym file and check that it is the published one."""
    from ...flows.files.downloads import chair_synonyms

    typer.echo(f"CHAIR's synonyms in {chair_synonyms(out)}")


@app.command(epilog=o.worked("veridical data repope --out repope", "veridical score repope answers.jsonl"))
def repope(
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("repope"),
    host: Annotated[str, typer.Option("--from", help="The server with the repositories' files.")] = GITHUB,
) -> None:
    """Download RePOPE's labels and POPE's questions on COCO, and check that they are the published ones."""
    from ...flows.files.published_data import repope as fetch

    typer.echo(f"RePOPE's and POPE's questions in {fetch(out, host)}")


@app.command(
    epilog=o.worked(
        "veridical data released --out released", "# some alone", "veridical data released --out released opera halc",
    )
)  # fmt: skip
def released(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names or their beginnings, such as opera.", show_default="all")
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("released"),
    host: Annotated[str, typer.Option("--from", help="The server with the repositories' files.")] = GITHUB,
) -> None:
    """Download captions and answers that published methods released (36 MB), for `reproduce --released`.

    Each comes from its authors' repository at a fixed commit, under its SHA-256. Several repositories state no licence:
    their files are to be read, not to be passed on.
    """
    from ...flows.files.progress import progress
    from ...flows.files.published_data import released as fetch
    from ...flows.literature.folder import index

    chosen = [name for name in index() if not names or name.startswith(tuple(names))]
    with progress("released files", len(chosen), "files") as advance:
        fetched, there = fetch(out, host, names or (), advance)
    typer.echo(f"{fetched} files fetched, {there} were there; folder {out}")


@app.command(
    epilog=o.worked(
        "# the images of `evaluate --coco coco`", "veridical data coco --out coco",
        "# the 500 smallest ids", "veridical data coco --out coco --images first-500-sorted",
        "veridical evaluate --coco coco --images first-500-sorted --synonyms chair_synonyms.txt --out runs/coco",
    )
)  # fmt: skip
def coco(
    out: Annotated[Path, typer.Option(help="The folder to write to.")],
    split: Annotated[str, typer.Option(help="The split: val2014, train2014, val2017 or train2017.")] = "val2014",
    images: Annotated[
        str | None,
        typer.Option(
            help='The images: "first-500-sorted", or a file of ids or names.',
            show_default="what evaluate draws for chair and pope",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="The number of images.", show_default="500, or all of --images")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The seed of the draw.")] = 0,
    host: Annotated[
        str, typer.Option("--from", help="The server with COCO's files; over https.")
    ] = "https://s3.amazonaws.com/images.cocodataset.org",
    verify: Annotated[bool, typer.Option("--verify", help="Read every file again and compare checksums.")] = False,
) -> None:  # fmt: skip
    """Download COCO: the annotations (253 MB, of which one split is kept), and only the images that are needed.

    Files that are there are not fetched again. The archive of annotations must have the published SHA-256; an image
    must have the size in pixels of the annotations and the MD5 that the server names. The images remain under their
    photographers' terms.
    """
    from ...datasets.coco import FIRST
    from ...flows.files import coco as coco_download
    from ...flows.files.progress import progress
    from ...flows.scoring import files
    from ..validate import number_of

    limit = limit or number_of(images)
    listed = images if images is None or FIRST.fullmatch(images) else files.read_ids(Path(images))
    done = coco_download.fetch(out, split, listed, limit, seed, host, verify, progress)
    typer.echo(
        f"{done.images} images of {split} in {out}: {done.fetched} fetched, {done.found} were there; checksums in "
        f"{out / coco_download.LEDGER}"
    )


@app.command(epilog=o.worked("veridical data photos", "veridical demo"))
def photos(
    out: Annotated[
        Path | None,
        typer.Option(help="The folder to write to.", show_default="where veridical.datasets.photos() looks"),
    ] = None,
    host: Annotated[
        str, typer.Option("--from", help="The server with COCO's files; over https.")
    ] = "https://s3.amazonaws.com/images.cocodataset.org",
) -> None:
    """Download 54 photos of COCO that are all under CC BY 2.0 (about 9 MB), with boxes and credits.

    They are examples of `veridical demo`, and `veridical.datasets.photos()` reads them.
    """
    from ...datasets.coco_photos.photos import index
    from ...flows.files.photos import fetch
    from ...flows.files.progress import progress

    with progress("photos", len(index()["images"]), "photos") as advance:
        folder, fetched, there = fetch(out, host, advance)
    typer.echo(f"{fetched} photos fetched, {there} were there; folder {folder}, credits in {folder / 'CREDITS.md'}")
