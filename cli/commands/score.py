"""`veridical score`: captions and answers that any program wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .. import options as o

app = typer.Typer(rich_markup_mode="rich")
score = typer.Typer(
    no_args_is_help=True, rich_markup_mode="rich",
    help="Score files of captions and answers, whichever program wrote them. Loads no model. Exits with 2 if a file "
    "cannot be used.",
)  # fmt: skip
app.add_typer(score, name="score")

Texts = Annotated[
    Path,
    typer.Argument(
        help="The model's texts: JSON lines, an array, an object, a table, or a folder of `caption`.",
        show_default=False,
    ),
]
Answers = Annotated[
    list[Path], typer.Argument(help="The answers: a file for each file of questions.", show_default=False)
]
Truth = Annotated[
    list[Path],
    typer.Option(
        "--ground-truth", "-g", show_default=False,
        help="A COCO folder, an instances or captions file, or ready-made sets; repeat it for several.",
    ),
]  # fmt: skip
Questions = Annotated[
    list[Path], typer.Option("--questions", "-q", help="POPE's questions: a file for each split.", show_default=False)
]
Synonyms = Annotated[
    Path | None, typer.Option(
        help="CHAIR's synonym file; COCO needs it.", show_default="the embedded world's vocabulary",
    )
]
Family = Annotated[
    str | None,
    typer.Option(
        help="The program that reads captions: wordnet or pattern.", show_default="wordnet with --synonyms, else exact",
    ),
]
TruthFamily = Annotated[
    str | None,
    typer.Option(help="The program that reads the ground truth: wordnet or pattern.", show_default="as the captions"),
]
DropLast = Annotated[
    bool, typer.Option("--drop-last-sentence", help="Leave out a sentence that the token budget cut off.")
]
AtFullStop = Annotated[
    bool, typer.Option("--at-full-stop", help="Cut every caption behind its last full stop, as OPERA's program does.")
]
Images = Annotated[
    Path | None, typer.Option(help="Score these images alone: a file of ids or names.", show_default=False)
]
Protocol = Annotated[str, typer.Option(help="The reader of the answers: official, opera, vcd, lmms_eval or strict.")]
ByOrder = Annotated[
    bool, typer.Option(
        "--by-order", help="Match the n-th answer to the n-th question, as POPE's own program does, without ids.",
    )
]
Field = Annotated[
    str | None, typer.Option(help="The field of a row that holds the model's text.", show_default="found out by itself")
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave out, and count, what cannot be used.")]
Decoder = Annotated[
    list[str] | None,
    typer.Option("--decoder", "-d", help="Score these decoders of the file alone.", show_default="all"),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
PerRow = Annotated[Path | None, typer.Option(help="Write a JSON line for each answer.", show_default=False)]
PerCaption = Annotated[
    Path | None,
    typer.Option(help="Write a JSON line for each caption: what it mentions, and where.", show_default=False),
]


@score.command(
    epilog=o.worked(
        "veridical score chair captions.jsonl --ground-truth coco/annotations --synonyms chair_synonyms.txt",
        "# what `caption --out` wrote",
        "veridical score chair runs/photos --ground-truth coco --synonyms chair_synonyms.txt",
        "# a run of 64 tokens, and which words are wrong",
        "veridical score chair c.jsonl -g coco --synonyms chair_synonyms.txt --drop-last-sentence "
        "--per-caption words.jsonl",
        "# as in OPERA's table",
        "veridical score chair c.jsonl -g sets.json --synonyms chair_synonyms.txt --truth-family pattern",
    )
)  # fmt: skip
def chair(
    captions: Texts, ground_truth: Truth, synonyms: Synonyms = None, family: Family = None,
    truth_family: TruthFamily = None, drop_last_sentence: DropLast = False, at_full_stop: AtFullStop = False,
    images: Images = None, field: Field = None, skip_bad: SkipBad = False, json: Json = False,
    per_caption: PerCaption = None, decoder: Decoder = None,
) -> None:  # fmt: skip
    """CHAIR: which of the objects that captions mention are not in the images. Decoders of one file are scored one by
    one."""
    from ...flows.scoring import caption_files
    from ...metrics.captions_table import file_of

    path = file_of(captions)
    options = caption_files.CaptionOptions(
        synonyms, family, truth_family, images, drop_last_sentence, skip_bad, at_full_stop, field
    )
    found = {
        str(name): caption_files.score_chair(caption_files.captions(path, ground_truth, options, name))
        for name in caption_files.systems(path, decoder or ())
    }
    alone = next(iter(found.values()))
    _show(alone if len(found) == 1 else caption_files.side_by_side(found), json, per_caption)


@score.command(
    epilog=o.worked(
        "veridical score pope answers.jsonl --questions coco_pope_popular.json",
        "# three splits, read as VCD's program does",
        "veridical score pope r.jsonl p.jsonl a.jsonl -q coco_pope_random.json -q coco_pope_popular.json "
        "-q coco_pope_adversarial.json --protocol vcd",
    )
)  # fmt: skip
def pope(
    answers: Answers, questions: Questions, protocol: Protocol = "official", by_order: ByOrder = False,
    field: Field = None, skip_bad: SkipBad = False, json: Json = False, per_answer: PerRow = None,
) -> None:  # fmt: skip
    """POPE: is this object in the image? Answers go with questions by id, or by order where they have none."""
    from ...flows.scoring import files

    read = files.answered(answers, questions, skip_bad, by_order, field)
    _show(files.score_pope(read, protocol), json, per_answer)


@score.command(epilog=o.worked("veridical score amber responses.json --data AMBER/data"))
def amber(
    responses: Texts,
    data: Annotated[
        Path, typer.Option("--data", "--annotations", help="The data folder of AMBER's repository.", show_default=False)
    ],
    similarity: Annotated[str, typer.Option(help="The similarity of words: wordnet, exact or spacy.")] = "wordnet",
    protocol: Annotated[
        str, typer.Option(help="The reader of the answers: official or strict.")
    ] = "official", skip_bad: SkipBad = False,
    json: Json = False, per_answer: PerRow = None,
) -> None:  # fmt: skip
    """AMBER: descriptions (ids 1 to 1004), yes/no answers (1005 on), or both in one file."""
    from ...flows.scoring import more_files

    _show(more_files.score_amber(responses, data, similarity, protocol, skip_bad), json, per_answer)


@score.command("rh_auc", hidden=True)
@score.command("rh-auc", epilog=o.worked("veridical score rh-auc lengths.jsonl"))
def rh_auc(
    settings: Annotated[
        Path, typer.Argument(help="The rows: JSON lines, an array, an object or a table.", show_default=False)
    ],
    over: Annotated[str, typer.Option(help="The x axis: reasoning or length.")] = "reasoning", json: Json = False,
) -> None:  # fmt: skip
    """RH-AUC: perception against reasoning, a row per reasoning length: {length, reasoning, perception}, lists of 0 and
    1 or accuracies."""
    from ...flows.scoring import more_files

    if over not in ("reasoning", "length"):
        raise ValueError(f"--over {over}: no such axis; possible: reasoning, length.")
    _show(more_files.score_rh_auc(settings, over), json, None)  # type: ignore[arg-type]


@score.command(epilog=o.worked("veridical score sycophancy answers.jsonl --questions questions.jsonl"))
def sycophancy(
    answers: Texts,
    questions: Annotated[
        Path | None,
        typer.Option(
            "--questions",
            "-q",
            help="The questions: {question_id, pair, insists, label, pushed} each.",
            show_default=False,
        ),
    ] = None,
    protocol: Annotated[
        str, typer.Option(help="The reader of the answers: one of POPE's, or option for multiple choice.")
    ] = "strict",
    skip_bad: SkipBad = False, json: Json = False, per_answer: PerRow = None,
) -> None:  # fmt: skip
    """Sycophancy: does a right answer change because the user insists? Without questions, rows are {before, after,
    label, pushed}."""
    from ...flows.scoring import more_files

    _show(more_files.score_sycophancy(answers, questions, protocol, skip_bad), json, per_answer)


@score.command("counting", hidden=True)
@score.command("number", epilog=o.worked("veridical score number answers.jsonl --questions questions.jsonl"))
def number(
    answers: Texts,
    questions: Annotated[Path, typer.Option("--questions", "-q", help="The questions: {question_id, number, about} and "
                                            "{question_id, claims, at_least, about}.", show_default=False)],
    protocol: Protocol = "strict", skip_bad: SkipBad = False, json: Json = False, per_answer: PerRow = None,
) -> None:  # fmt: skip
    """Number: is the number right, and do yes/no answers about the same objects agree with it?"""
    from ...flows.scoring import more_files

    _show(more_files.score_counting(answers, questions, protocol, skip_bad), json, per_answer)


Data = Annotated[Path | None, typer.Option("--data", help="The benchmark's own lists.", show_default=False)]


@score.command(
    epilog=o.worked(
        "veridical data repope --out repope", "# a file of one split, or of all three",
        "veridical score repope answers.jsonl --data repope",
        "veridical score repope random.jsonl --split random --data repope",
        "veridical score repope llava.jsonl --by-order --data repope",
    )
)  # fmt: skip
def repope(
    answers: Answers,
    data: Annotated[Path, typer.Option("--data", help="The folder that `data repope` wrote.")] = Path("repope"),
    split: Annotated[
        list[str] | None,
        typer.Option(
            help="The split of each file: random, popular or adversarial.", show_default="found out by itself",
        ),
    ] = None,
    protocol: Annotated[
        str, typer.Option(help="The reader of the answers: official or strict.")
    ] = "official", by_order: ByOrder = False,
    field: Field = None, skip_bad: SkipBad = False, json: Json = False, per_answer: PerRow = None,
) -> None:  # fmt: skip
    """RePOPE: answers to POPE under corrected labels, without the ambiguous questions, beside POPE's own labels."""
    from ...flows.scoring.repope import score_repope

    _show(score_repope(answers, data, split or (), protocol, skip_bad, by_order, field), json, per_answer)


@score.command(epilog=o.worked("veridical score mme results/", "veridical score mme answers.jsonl --data eval_tool"))
def mme(
    answers: Texts, data: Data = None,
    protocol: Annotated[
        str, typer.Option(help="The reader of the answers: official, lmms_eval or vlmevalkit.")
    ] = "official",
    field: Field = None, skip_bad: SkipBad = False, json: Json = False, per_answer: PerRow = None,
) -> None:  # fmt: skip
    """MME's hallucination part (existence, count, position, colour): a folder of {task}.txt with the answers as a
    fourth column, rows with ids task/image, or {task: [answers]}."""
    from ...flows.scoring.closed_files import score_mme

    _show(score_mme(answers, data, protocol, skip_bad, field), json, per_answer)


@score.command(epilog=o.worked("veridical score mmvp answers.jsonl --questions Questions.csv --field response"))
def mmvp(
    answers: Texts,
    questions: Annotated[
        Path, typer.Option("--questions", "-q", help="The benchmark's Questions.csv.", show_default=False)
    ],
    protocol: Annotated[str, typer.Option(help="The reader of the answers: strict or lmms_eval.")] = "strict",
    corrected: Annotated[bool, typer.Option("--corrected", help="Swap the keys of two pairs known as wrong.")] = False,
    by_order: ByOrder = False, field: Field = None, skip_bad: SkipBad = False, json: Json = False,
    per_answer: PerRow = None,
) -> None:  # fmt: skip
    """MMVP: a choice of two about pairs of images; a rule reads the letter or the option's words."""
    from ...flows.scoring.closed_files import score_mmvp

    _show(score_mmvp(answers, questions, protocol, corrected, skip_bad, by_order, field), json, per_answer)


@score.command(epilog=o.worked("veridical score hallusionbench answers.jsonl --questions HallusionBench.json"))
def hallusionbench(
    answers: Texts,
    questions: Annotated[
        Path | None,
        typer.Option(
            "--questions", "-q", help="The benchmark's HallusionBench.json.", show_default="the answers' own rows",
        ),
    ] = None,
    protocol: Annotated[
        str, typer.Option(help="The reader of the answers: strict, lmms_eval or vlmevalkit.")
    ] = "strict",
    images_only: Annotated[
        bool, typer.Option("--images-only", help="Score only the 951 questions that come with an image.")
    ] = False,
    by_order: ByOrder = False, field: Field = None, skip_bad: SkipBad = False, json: Json = False,
    per_answer: PerRow = None,
) -> None:  # fmt: skip
    """HallusionBench: aAcc, fAcc and qAcc, graded by a rule instead of GPT-4."""
    from ...flows.scoring.closed_files import score_hallusionbench

    found = score_hallusionbench(answers, questions, protocol, images_only, skip_bad, by_order, field)
    _show(found, json, per_answer)


@score.command("dash_b", hidden=True)
@score.command("dash-b", epilog=o.worked("veridical score dash-b Paligemma-3b_answers.json"))
def dash_b(
    answers: Texts, data: Data = None,
    protocol: Annotated[
        str, typer.Option(help="The reader of the answers: official or strict.")
    ] = "official", field: Field = None,
    skip_bad: SkipBad = False, json: Json = False, per_answer: PerRow = None,
) -> None:  # fmt: skip
    """DASH-B: is this object in the image? Rows {img_id, object_name, gt, response}, or ids with --data."""
    from ...flows.scoring.closed_files import score_dash_b

    _show(score_dash_b(answers, data, protocol, skip_bad, field), json, per_answer)


def _show(found: Any, as_json: bool, rows: Path | None) -> None:
    from ...flows.scoring import files
    from ..render import scores

    if rows is not None:
        files.write_rows(rows, found.rows)
    if as_json:
        scores.as_json(found.record())
    else:
        scores.scored(found)
