"""Options that several commands share, and the layout of their help."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .option_checks import distinct, filled, one_of

Images = Annotated[list[str], typer.Argument(help="One or more image files.", metavar="IMAGES", show_default=False)]
Model = Annotated[str, typer.Option("--model", "-m", help='The model: "embedded", a folder, or an id on the Hub.')]
Decoders = Annotated[
    list[str] | None,
    typer.Option(
        "--decoder", "-d", metavar="NAME[:FIELD=VALUE,...]", show_default="greedy", callback=distinct,
        help='The decoder; `veridical list` shows them. Repeat the option to compare; join names with "+" to '
        "compose.",
    ),
]  # fmt: skip
Detectors = Annotated[
    list[str] | None,
    typer.Option(
        "--detector", "-t", metavar="NAME", show_default=False, callback=distinct,
        help="A detector that gives each word a risk; `veridical list` shows them.",
    ),
]  # fmt: skip
Calibrations = Annotated[
    str | None,
    typer.Option(
        help="A folder of `calibrate-detectors`, whose curves turn the detectors' risks into probabilities.",
        show_default="those beside a detector's probe, and the shipped ones", callback=filled,
    ),
]  # fmt: skip
MaxNewTokens = Annotated[int, typer.Option("--max-new-tokens", min=1, help="The largest number of tokens of a text.")]
BatchSize = Annotated[int, typer.Option("--batch-size", "-b", min=1, help="The number of images in one forward pass.")]
Sample = Annotated[bool, typer.Option("--sample", help="Draw tokens at random instead of taking the likeliest.")]
Temperature = Annotated[
    float | None, typer.Option(min=0.01, help="Sampling temperature (with --sample).", show_default="1")
]
TopP = Annotated[
    float | None,
    typer.Option(min=0.0, max=1.0, help="Nucleus sampling: the share of probability kept.", show_default="1"),
]
Seed = Annotated[int, typer.Option(min=0, help="The seed of sampling; image i of a run has seed + i.")]
Beams = Annotated[int, typer.Option("--num-beams", min=1, help="The number of beams; 1 is no beam search.")]
Prompt = Annotated[
    str | None,
    typer.Option(
        help='The request to the model, or the name of a paper\'s, such as "@opera"; `list --long` shows them.',
        show_default="a detailed description", callback=filled,
    ),
]  # fmt: skip
Frame = Annotated[
    str | None,
    typer.Option(
        "--prompt", show_default=False, callback=filled,
        help='The words around the question, with {question} in them, or the name of a paper\'s, such as "@vcd".',
    ),
]  # fmt: skip
Prompts = Annotated[
    list[str] | None,
    typer.Option(
        "--prompt", show_default="the benchmark's", callback=filled,
        help='The words of the request, or the name of a paper\'s, such as "@opera"; `list --long` shows them. Repeat '
        "the option to give one for captions and one, with {question} in it, for questions.",
    ),
]  # fmt: skip
System = Annotated[
    str | None,
    typer.Option(help="The system prompt in front of the request.", show_default=False, callback=filled),
]
Format = Annotated[
    str,
    typer.Option(
        "--format", help="How tables are printed: text, markdown, latex or csv.",
        callback=one_of("text", "markdown", "latex", "csv"),
    ),
]  # fmt: skip
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object per answer, a line each.")]
JsonObject = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Device = Annotated[str, typer.Option(help='The device: "auto", "cpu", "cuda", "cuda:1" or "balanced".')]
Dtype = Annotated[str, typer.Option(help='The type of the weights: "auto", "bf16", "fp16" or "fp32".')]
Revision = Annotated[
    str | None,
    typer.Option(help="The revision of a model on the Hub: a branch, a tag or a commit.", show_default=False),
]
Quantization = Annotated[
    str | None,
    typer.Option(help='The quantisation of the weights: "bnb-4bit", "bnb-8bit" or "torchao-int8".', show_default=False),
]
Attention = Annotated[
    str | None,
    typer.Option(
        help='The attention of layers that no method edits: "sdpa", "eager", "flash_attention_2" or "flex_attention".',
        show_default="sdpa",
    ),
]  # fmt: skip


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
