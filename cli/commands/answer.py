"""`veridical answer`: answers to a question about images."""

from __future__ import annotations

from typing import Annotated

import typer

from ...pipelines.model.spec import ModelSpec
from .. import options as o
from ..answering import Questioning, print_answers
from ..option_checks import once

app = typer.Typer(rich_markup_mode="rich")


@app.command(
    epilog=o.worked(
        'veridical answer photo.jpg -q "Is there a dog in the image?"',
        "# in the words of VCD's POPE", 'veridical answer photo.jpg -q "Is there a dog in the image?" --prompt @vcd',
        "# plain and mitigated", 'veridical answer photo.jpg -q "How many cups are there?" -d greedy -d vcd',
    )
)  # fmt: skip
def answer(
    images: o.Images,
    question: Annotated[list[str], typer.Option("--question", "-q", help="The question.", callback=once)],
    decoder: o.Decoders = None, detector: o.Detectors = None, model: o.Model = "embedded",
    prompt: o.Frame = None, system: o.System = None,
    max_new_tokens: o.MaxNewTokens = 64, batch_size: o.BatchSize = 8, sample: o.Sample = False,
    temperature: o.Temperature = None, top_p: o.TopP = None, seed: o.Seed = 0, num_beams: o.Beams = 1,
    json: o.Json = False, device: o.Device = "auto", dtype: o.Dtype = "auto", revision: o.Revision = None,
    quantization: o.Quantization = None, attention: o.Attention = None, calibrations: o.Calibrations = None,
) -> None:  # fmt: skip
    """Answer a question about images. Exits as `caption` does."""
    from ...pipelines.inputs import prompts

    generation = {"max_new_tokens": max_new_tokens, **o.generation(sample, temperature, top_p, num_beams)}
    spec = ModelSpec(model, device, dtype, revision, quantization, attention)
    framed = prompts.framed(question[0], prompt)
    request = Questioning(spec, framed, system, decoder, detector, batch_size, seed, generation, calibrations)
    print_answers(images, request, json)
