"""`veridical caption` and `veridical answer`: texts about images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ...pipelines.inputs import prompts
from .. import job_options
from .. import options as o
from .. import worker_options as workers_
from ..errors import hush_transformers, notes
from ..validate import check_names

app = typer.Typer(rich_markup_mode="rich")


@app.command(
    epilog=o.worked(
        "veridical caption photo.jpg",
        "# two decoders side by side", "veridical caption photo.jpg -d greedy -d vista:strength=0.1",
        "# in a paper's words", "veridical caption photo.jpg --prompt @vista",
        "# each word with its risk", "veridical caption *.png -t lookback_lens",
        "# for other programs", "veridical caption *.png --json > captions.jsonl",
        "# a folder, overnight; stopped, the same command goes on", "veridical caption photos -d vcd --out runs/photos",
    )
)  # fmt: skip
def caption(
    images: o.Images, decoder: o.Decoders = None, detector: o.Detectors = None, model: o.Model = "embedded",
    prompt: o.Prompt = None, system: o.System = None,
    max_new_tokens: o.MaxNewTokens = 128, batch_size: o.BatchSize = 8, sample: o.Sample = False,
    temperature: o.Temperature = None, top_p: o.TopP = None, seed: o.Seed = 0, num_beams: o.Beams = 1,
    json: o.Json = False, device: o.Device = "auto", dtype: o.Dtype = "auto", revision: o.Revision = None,
    quantization: o.Quantization = None, attention: o.Attention = None,
    out: job_options.Out = None, form: job_options.Form = "parquet", shard_size: job_options.ShardSize = 32,
    retry_errors: job_options.RetryErrors = False, max_pixels: job_options.MaxPixels = 50_000_000,
    max_bytes: job_options.MaxBytes = 100_000_000, allow_urls: job_options.AllowUrls = False,
    readers: job_options.Readers = 4,
    runner: workers_.JobRunner = "local", workers: workers_.Workers = None, cluster: workers_.Cluster = None,
    gpus_per_worker: workers_.GpusPerWorker = None, no_prefect: job_options.NoPrefect = False,
) -> None:  # fmt: skip
    """Describe images: some, or a folder, a list or a Parquet file of them with --out.

    Exits with 1 if some of several images cannot be used, with 2 if nothing could be done.
    """
    generation = {"max_new_tokens": max_new_tokens, **o.generation(sample, temperature, top_p, num_beams)}
    question = prompts.caption_prompt(prompt or "@detail")
    spread = workers_.Spread(runner, workers, cluster, gpus_per_worker)
    if out is None:
        spread.refuse()
    if job_options.is_job(images, out, json, retry_errors, allow_urls):
        job_options.run({
            "images": [str(image) for image in images], "out": str(out), "model": model,
            "decoders": decoder or ["greedy"], "detectors": detector or [], "question": question, "system": system,
            "seed": seed, "batch_size": batch_size, "shard_size": shard_size, "form": form, "max_pixels": max_pixels,
            "max_bytes": max_bytes, "allow_urls": allow_urls, "readers": readers, "device": device, "dtype": dtype,
            "revision": revision, "generation": generation, "quantization": quantization, "attention": attention,
            "retry_errors": retry_errors,
        }, no_prefect, spread)  # fmt: skip
        return
    about = (model, device, dtype, revision, quantization, attention)
    _ask(images, question, system, decoder, detector, about, batch_size, seed, json, generation)


@app.command(
    epilog=o.worked(
        'veridical answer photo.jpg -q "Is there a dog in the image?"',
        "# as VCD asks POPE's questions", 'veridical answer photo.jpg -q "Is there a dog in the image?" --prompt @vcd',
        "# plain and mitigated", 'veridical answer photo.jpg -q "How many cups are there?" -d greedy -d vcd',
    )
)  # fmt: skip
def answer(
    images: o.Images, question: Annotated[str, typer.Option("--question", "-q", help="What to ask.")],
    decoder: o.Decoders = None, detector: o.Detectors = None, model: o.Model = "embedded",
    prompt: o.Frame = None, system: o.System = None,
    max_new_tokens: o.MaxNewTokens = 64, batch_size: o.BatchSize = 8, sample: o.Sample = False,
    temperature: o.Temperature = None, top_p: o.TopP = None, seed: o.Seed = 0, num_beams: o.Beams = 1,
    json: o.Json = False, device: o.Device = "auto", dtype: o.Dtype = "auto", revision: o.Revision = None,
    quantization: o.Quantization = None, attention: o.Attention = None,
) -> None:  # fmt: skip
    """Answer a question about images. Exits as `caption` does."""
    generation = {"max_new_tokens": max_new_tokens, **o.generation(sample, temperature, top_p, num_beams)}
    asked = prompts.framed(question, prompt)
    about = (model, device, dtype, revision, quantization, attention)
    _ask(images, asked, system, decoder, detector, about, batch_size, seed, json, generation)


def _ask(
    images: list[Path], question: str, system: str | None, decoders: list[str] | None, detectors: list[str] | None,
    model: tuple, batch_size: int, seed: int, as_json: bool, generation: dict[str, Any],
) -> None:  # fmt: skip
    """Ask about every image with every decoder, and print image by image."""
    decoders, detectors = list(dict.fromkeys(decoders or ["greedy"])), detectors or []
    check_names(decoders, detectors, [])
    from ...flows.evaluation.request import chain
    from ...flows.files.progress import progress
    from ...pipelines.inputs.images import read_image
    from ...pipelines.model.spec import ModelSpec, load
    from ..render import methods

    if len(images) == 1:
        read_image(images[0])  # fail at once
    hush_transformers()
    with notes():
        lvlm = load(ModelSpec(*model))
    bad = 0
    with notes(), progress("answers", len(images) * len(decoders), "images", passing=True) as advance:
        for start in range(0, len(images), batch_size):
            part = images[start : start + batch_size]
            said: dict[str, Any] = {}
            for name in decoders:
                said[name] = lvlm.answer(
                    part, question, chain(name, lvlm.name), detectors, system=system, batch_size=batch_size,
                    errors="row", seed=seed + start, **generation,
                )  # fmt: skip
                advance(len(part))
            for place, image in enumerate(part):
                answers = {name: answered[place] for name, answered in said.items()}
                bad += any(answered.error is not None for answered in answers.values())
                if as_json:
                    for name, answered in answers.items():
                        methods.json_line(image, name, answered)
                else:
                    methods.answers(image, answers, alone=len(images) == len(decoders) == 1)
    if bad:
        typer.echo(f"Error: {bad} of {len(images)} images could not be used.", err=True)
        raise typer.Exit(1)
