"""`veridical compare`: systems side by side, ranked only where they differ by more than the noise."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .. import options as o
from . import score as s

app = typer.Typer(rich_markup_mode="rich")


@app.command(
    epilog=o.worked(
        "# every decoder of a run against the first", "veridical compare runs/llava",
        "# two runs", "veridical compare runs/before runs/after -d vcd",
        "# files that other programs wrote",
        "veridical compare opera.jsonl vcd.jsonl --ground-truth coco --synonyms chair_synonyms.txt",
        "veridical compare a.jsonl b.jsonl --questions coco_pope_popular.json --protocol vcd",
        "# for a paper", "veridical compare runs/llava --format latex",
        "# three seeds of the same", "veridical compare runs/seed-0 runs/seed-1 runs/seed-2 --runs",
    )
)  # fmt: skip
def compare(
    results: Annotated[
        list[Path],
        typer.Argument(help="Result folders of `evaluate` or `caption`, or files of captions or answers.",
                       show_default=False),
    ],
    decoder: Annotated[
        list[str] | None, typer.Option("--decoder", "-d", show_default="all",
                                       help="Compare these decoders alone; the first is the baseline.")
    ] = None,
    runs: Annotated[bool, typer.Option("--runs", help="Treat the folders as repeated runs: mean ± sd.")] = False,
    ground_truth: Annotated[
        list[Path] | None, typer.Option("--ground-truth", "-g",
                                        help="The ground truth of files of captions, as for `score chair`.",
                                        show_default=False)
    ] = None,
    synonyms: s.Synonyms = None, family: s.Family = None, truth_family: s.TruthFamily = None,
    drop_last_sentence: s.DropLast = False, at_full_stop: s.AtFullStop = False, images: s.Images = None,
    questions: Annotated[
        Path | None, typer.Option(
            "--questions", "-q", help="The questions of files of answers, as for `score pope`.", show_default=False,
        )
    ] = None,
    protocol: s.Protocol = "official", by_order: s.ByOrder = False, field: s.Field = None,
    skip_bad: s.SkipBad = False, json: s.Json = False, form: o.Format = "text",
) -> None:  # fmt: skip
    """Differences from the first system with paired 95 % intervals; what lies inside the noise is not ranked.

    All verdicts on a benchmark hold together: the chance that one or more of them is false is at most 5 %.

    Exits with 0 if all are comparable, with 1 if prompts, protocols, images or token budgets differ (the comparison is
    printed all the same), with 2 if nothing could be compared.
    """
    from ...flows.scoring import caption_files, files
    from ...flows.scoring import compare as comparing
    from ...flows.scoring import runs as repetitions
    from ...metrics.captions_table import file_of
    from ..render import comparison

    systems: list[Any] = []
    notes: list[str] = []
    skipped: list[str] = []
    options = caption_files.CaptionOptions(
        synonyms, family, truth_family, images, drop_last_sentence, skip_bad, at_full_stop, field
    )
    for path in map(file_of, results):
        inside = comparing.of_file(path)
        if path.is_dir():
            systems += comparing.of_folder(path, decoder or ())
        elif inside is not None:
            systems.append(inside)
        elif ground_truth:
            for name in caption_files.systems(path, decoder or ()):
                read = caption_files.captions(path, ground_truth, options, name)
                notes, skipped = notes + read.notes, skipped + read.skipped
                systems.append(comparing.of_captions(path, read, name))
        elif questions is not None:
            answers = files.answered([path], [questions], skip_bad, by_order, field)
            skipped += answers.skipped
            systems.append(comparing.of_answers(path, answers, protocol))
        else:
            there = "is a file: say what is true with --ground-truth (captions) or --questions (answers)"
            raise ValueError(f"{path} {there if path.exists() else 'does not exist'}.")
    if runs and form != "text":
        raise ValueError(f"--format {form} is for systems side by side; --runs prints text, or --json.")
    if runs:
        repeated = repetitions.over_runs(systems)
        comparison.over_runs(repeated, json)
        if any(one.warnings for one in repeated):
            raise typer.Exit(1)
        return
    found = comparing.against_first(systems)
    if not found:
        raise ValueError(f"one system in {', '.join(map(str, results))}: a comparison needs two on the same benchmark.")
    comparison.pairs(found, "json" if json else form, notes, skipped, files=bool(ground_truth or questions))
    if any(one.warnings for one in found):
        raise typer.Exit(1)
