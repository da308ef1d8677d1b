"""`veridical data`: data sets written or downloaded, at the user's request."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .. import options as o

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Write data sets.")


@app.command(epilog=o.worked("veridical data world --split test --count 500 --out coco-world"))
def world(
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    count: Annotated[int, typer.Option(min=1, help="Number of scenes.")] = 100,
) -> None:
    """Write scenes of the embedded world as a COCO folder: pictures, instances and captions."""
    from ...datasets.coco import write_coco
    from ..progress import progress

    with progress(f"world {split}", count, "images") as advance:

        def watched(indices: Any) -> Any:
            for index in indices:
                yield index
                advance(1)

        folder = write_coco(split, count, out, watched)
    typer.echo(f"{count} scenes in {folder}: instances_{split}.json, captions_{split}.json and {split}/")


@app.command(epilog=o.worked("veridical data nltk --out ~/nltk_data"))
def nltk(out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("nltk_data")) -> None:
    """Download what CHAIR's wordnet family needs of NLTK: tokenizer, tagger and WordNet."""
    from ..download import nltk_data

    typer.echo(f"NLTK data in {nltk_data(out)}; set NLTK_DATA={out} if that is not where NLTK looks")


@app.command(epilog=o.worked("veridical data chair --out synonyms.txt"))
def chair(out: Annotated[Path, typer.Option(help="File to write.")] = Path("chair_synonyms.txt")) -> None:
    """Download CHAIR's official synonym file and check that it is the published one."""
    from ..download import chair_synonyms

    typer.echo(f"CHAIR's synonyms in {chair_synonyms(out)}")
