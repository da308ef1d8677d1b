"""Options that several commands share, and the look of their help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

Images = Annotated[list[Path], typer.Argument(help="Image files.", metavar="IMAGES", show_default=False)]
Model = Annotated[str, typer.Option("--model", "-m", help='"embedded", a folder, or a Hub id.')]
Decoders = Annotated[
    list[str] | None,
    typer.Option(
        "--decoder", "-d", metavar="NAME[:FIELD=VALUE,...]", show_default="greedy",
        help='How to decode; see `veridical list`. Repeat it to compare; join with "+" to compose.',
    ),
]  # fmt: skip
Detectors = Annotated[
    list[str] | None,
    typer.Option("--detector", "-t", metavar="NAME", show_default=False, help="Reads along and rates each word."),
]
MaxNewTokens = Annotated[int, typer.Option("--max-new-tokens", min=1, help="Longest text, in tokens.")]
BatchSize = Annotated[int, typer.Option("--batch-size", "-b", min=1, help="Images at a time.")]
Sample = Annotated[bool, typer.Option("--sample", help="Draw tokens instead of taking the likeliest.")]
Temperature = Annotated[float | None, typer.Option(min=0.01, help="Of sampling.", show_default="1")]
TopP = Annotated[float | None, typer.Option(min=0.0, max=1.0, help="Of sampling.", show_default="1")]
Seed = Annotated[int, typer.Option(min=0, help="Of sampling.")]
Beams = Annotated[int, typer.Option("--num-beams", min=1, help="Beam search.")]
Prompt = Annotated[
    str | None,
    typer.Option(help='What to ask, or "@opera" and others: see `list --long`.', show_default="a detailed description"),
]
Frame = Annotated[
    str | None,
    typer.Option(
        "--prompt", help='Words around the question, with {question} in them, or "@vcd" and others.', show_default=False
    ),
]
Prompts = Annotated[
    list[str] | None,
    typer.Option(
        "--prompt", show_default="the benchmark's",
        help='Ask in these words, or in those of a paper, "@opera" and others: see `list --long`. Repeat it to give '
        "one for captions and one, with {question} in it, for questions.",
    ),
]  # fmt: skip
System = Annotated[str | None, typer.Option(help="System prompt, in front of the question.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="One JSON object per answer, a line each.")]
Device = Annotated[str, typer.Option(help='"auto", "cpu", "cuda", "cuda:1" or "balanced".')]
Dtype = Annotated[str, typer.Option(help='"auto", "bf16", "fp16" or "fp32".')]
Revision = Annotated[str | None, typer.Option(help="Of a model from the Hub.", show_default=False)]
Quantization = Annotated[
    str | None, typer.Option(help='"bnb-4bit", "bnb-8bit" or "torchao-int8".', show_default=False)
]
Attention = Annotated[
    str | None,
    typer.Option(
        help='"sdpa", "eager", "flash_attention_2" or "flex_attention", where no method edits.', show_default="sdpa"
    ),
]


def generation(sample: bool, temperature: float | None, top_p: float | None, num_beams: int) -> dict[str, Any]:
    """These options as transformers' generate takes them; without any, the plain greedy default.

    Raises:
        ValueError: a setting of sampling without --sample, or sampling with beams.
    """
    if not sample and (temperature is not None or top_p is not None):
        raise ValueError("--temperature and --top-p are settings of sampling: add --sample.")
    if sample and num_beams > 1:
        raise ValueError(f"--sample with --num-beams {num_beams}: beam search does not draw; choose one of the two.")
    out: dict[str, Any] = {}
    if sample:
        share = 1.0 if top_p is None else top_p
        out = {"do_sample": True, "temperature": temperature or 1.0, "top_p": share, "top_k": 0}
    if num_beams > 1:
        out["num_beams"] = num_beams
    return out


def worked(*lines: str) -> str:
    """Examples for the end of a command's help: commands, each after a "# what it does" where that is not plain."""
    shown = "\n".join(f"[dim]{line}[/dim]" if line.startswith("#") else f"[cyan]{line}[/cyan]" for line in lines)
    return "[bold]Examples[/bold]\n\n" + shown.replace("\n[dim]", "\n\n[dim]")
