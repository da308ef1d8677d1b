"""`veridical detect`: which words of a text the image does not support."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import options as o
from ..errors import hush_transformers, notes
from ..option_checks import filled, once
from ..terminal import safe
from ..validate import check_judges, check_names

if TYPE_CHECKING:
    from ...flows.detection.word_risk import Rated

app = typer.Typer(rich_markup_mode="rich")


@app.command(
    epilog=o.worked(
        "veridical detect photo.jpg",
        "# a text from elsewhere", 'veridical detect photo.jpg --text "The image shows a dog and a frisbee."',
        "# is this answer right?", 'veridical detect photo.jpg -q "Is there a dog in the image?" -t dhcp',
        "# for other programs", "veridical detect *.png -t lookback_lens -t vhd --json > risks.jsonl",
    )
)  # fmt: skip
def detect(
    images: o.Images, detector: o.Detectors = None, model: o.Model = "embedded",
    text: Annotated[
        str | None,
        typer.Option(
            help="A text from elsewhere that is judged, by a detector that reads the words themselves: "
            "token_probability (the default for texts) or logit_lens.",
            show_default="what the model writes", callback=filled,
        ),
    ] = None,
    question: Annotated[
        list[str] | None,
        typer.Option(
            "--question", "-q", help="The question that the text answers.", show_default="a detailed description",
            callback=once,
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="The risk from which on a word is marked.",
            show_default="0.5; of untrained detectors, a fifth; of --text, a probability below 1 %",
        ),
    ] = None,
    max_new_tokens: o.MaxNewTokens = 128, as_json: o.Json = False, device: o.Device = "auto", dtype: o.Dtype = "auto",
    revision: o.Revision = None,
) -> None:  # fmt: skip
    """Mark the words of a caption that the image probably does not support. Exits as `caption` does."""
    own = "lookback_lens" if not question else "dhcp"
    named = list(dict.fromkeys(detector or [own if text is None else "token_probability"]))
    check_names([], named, [])
    if text is not None:
        check_judges(named)
    from ...datasets.captions import DETAIL_PROMPT
    from ...flows.detection.word_risk import rate
    from ...pipelines.inputs.images import BadImage, read_image
    from ...pipelines.model.spec import ModelSpec, load

    if len(images) == 1:
        read_image(images[0])  # fail at once
    if text is not None:
        typer.echo(
            "note: in a text that the model did not write, words of a style that is not its own have a high risk too: "
            "compare the words that name objects with each other.", err=True,
        )  # fmt: skip
    hush_transformers()
    lvlm = load(ModelSpec(model, device, dtype, revision))
    request = question[0] if question else DETAIL_PROMPT
    bad = 0
    with notes():
        for image in images:
            try:
                found = rate(lvlm, read_image(image), request, named, text, threshold, max_new_tokens)
            except BadImage as error:
                bad += 1
                record = {"image": str(image), "error": str(error)}
                typer.echo(json.dumps(record) if as_json else safe(f"{image}: {error}"))
                continue
            _show(str(image), found, as_json, len(images) > 1, bool(question))
    if bad:
        typer.echo(f"Error: {bad} of {len(images)} images could not be used.", err=True)
        raise typer.Exit(1)


def _show(image: str, found: Rated, as_json: bool, several: bool, answer: bool) -> None:
    from ..render.tint import faint, legend, tinted

    if as_json:
        typer.echo(json.dumps(_record(image, found), ensure_ascii=False, allow_nan=False))
        return
    if several:
        typer.secho(safe(image), bold=True)
    for name, words in found.words.items():
        high = found.thresholds[name]
        parts = []
        for word, shown in zip(words, tinted(words), strict=True):
            risk = "" if word.risk is None else faint(f"·{word.risk:.2f}")
            out = word.risk is not None and word.risk >= high
            parts.append(f"[{shown}{risk}]" if out else shown + risk)
        typer.echo(faint(f"{name}: ") + " ".join(parts))
        if answer:
            typer.echo(f"  risk of the answer: {found.whole[name]:.2f}")
        marked = ", ".join(f"{word.text.strip('.,;:!?')} ({word.risk:.2f})" for word in found.marked(name))
        typer.echo(safe(f"  risk of {high:.2f} or more: {marked or 'no word'}"))
    if found.words and legend():
        typer.echo(legend())


def _record(image: str, found: Rated) -> dict[str, Any]:
    """words: detector -> text, start, end, risk, and whether it is marked."""
    marked = lambda word, name: word.risk is not None and word.risk >= found.thresholds[name]
    words = {
        name: [{**word._asdict(), "marked": marked(word, name)} for word in words]
        for name, words in found.words.items()
    }  # fmt: skip
    return {
        "image": image, "text": found.text, "words": words, "answer": found.whole, "thresholds": found.thresholds,
    }  # fmt: skip
