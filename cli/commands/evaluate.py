"""`veridical evaluate`: decoders on benchmarks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import options as o
from .. import worker_options as r
from ..config import Config
from ..errors import hush_transformers, notes
from ..validate import need_coco, number_of, prompt_fields, refuse_captions

if TYPE_CHECKING:
    from ...flows.evaluation.request import Evaluation

app = typer.Typer(rich_markup_mode="rich")


@app.command(
    epilog=o.worked(
        "# the embedded model on its own world",
        "veridical evaluate -d greedy -d vcd -d vista:strength=0.05 --limit 100 --out runs/first",
        "# another model on COCO",
        "veridical evaluate -m llava-hf/llava-1.5-7b-hf --coco coco --synonyms chair_synonyms.txt --out runs/llava",
        "# AMBER's own files", "veridical evaluate -m llava-hf/llava-1.5-7b-hf --benchmark amber --data AMBER/data "
        "--limit 1004 --out runs/amber",
        "# a table for a paper", "veridical evaluate -d greedy -d vcd --out runs/first --format latex",
        "# stopped? the same command goes on where it was",
    )
)  # fmt: skip
def evaluate(
    out: Annotated[Path, typer.Option(help="The folder for answers, results and report.")],
    model: o.Model = "embedded", decoder: o.Decoders = None, detector: o.Detectors = None,
    benchmark: Annotated[
        list[str] | None, typer.Option(
            help="The benchmark; repeat the option for several.", show_default="pope and chair",
        )
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="The number of images.", show_default="500, or all of --images")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The seed of the images drawn, of negatives and of sampling.")] = 0,
    batch_size: o.BatchSize = 16,
    coco: Annotated[
        Path | None, typer.Option(help="A COCO folder instead of the embedded world.", show_default=False)
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(help='The images: "first-500-sorted", or a file of ids or names.', show_default="drawn by seed"),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="The benchmark's own files: AMBER's folder, or a file of questions.", show_default=False),
    ] = None,
    split: Annotated[
        str | None, typer.Option(
            help='The split of the data, such as "val2014".', show_default="test, or the folder's only one",
        )
    ] = None,
    synonyms: Annotated[
        Path | None, typer.Option(help="CHAIR's synonym file, for real COCO.", show_default="the world's vocabulary")
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="The largest number of tokens of a text.", show_default="the benchmark's")
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            help="POPE's question suffix and reader: official, opera, vcd, lmms_eval or strict; strict reads AMBER too."
        ),
    ] = "official",
    prompt: o.Prompts = None, system: o.System = None,
    sample: o.Sample = False, temperature: o.Temperature = None, top_p: o.TopP = None, num_beams: o.Beams = 1,
    device: o.Device = "auto", dtype: o.Dtype = "auto", revision: o.Revision = None,
    quantization: o.Quantization = None, attention: o.Attention = None,
    maps: Annotated[
        int,
        typer.Option(
            "--attention-maps", min=0, help="How many examples of each benchmark show their attention over the image "
            "in the report; one more forward pass for each text.",
        ),
    ] = 100,
    runner: r.Runner = "local", workers: r.Workers = None, cluster: r.Cluster = None,
    gpus_per_worker: r.GpusPerWorker = None,
    prefect: r.Prefect = None, form: o.Format = "text",
    json: Annotated[bool, typer.Option("--json", help="Print the content of results.json instead of tables.")] = False,
    config: Config = None,
) -> None:  # fmt: skip
    """Score decoders on benchmarks: answers, results.json, manifest.json and report.html in one folder."""
    options = locals()
    if json and form != "text":
        raise ValueError(f"--json and --format {form} are two ways to print one table: choose one.")
    with notes():
        refuse_captions(out)
        wanted = request(options)
        from ...flows.evaluation import steps
        from ...flows.evaluation.request import RESULTS
        from ..render.results import results

        spread = r.Spread(runner, workers, cluster, gpus_per_worker)
        spread.check(prefect is False)
        hush_transformers()
        if not r.under_prefect(prefect, runner):
            steps.evaluation(wanted, str(out), steps.LOGGED)
        else:
            from ...flows.evaluate import evaluate as flow

            with spread.running(flow) as started:
                started(wanted, str(out))
    if json:
        typer.echo((out / RESULTS).read_text(encoding="utf-8").rstrip())
        return
    if form == "text":
        results(out)
        return
    from ...flows.scoring import tables

    typer.echo(tables.as_text(tables.of_folder(out), form))


def request(options: Mapping[str, Any]) -> Evaluation:
    """The request that the command's options stand for, with all names checked.

    Raises:
        UnknownName, ValueError: a name that does not exist, or options that do not go together.
    """
    from ...flows.benchmarks.base import Source
    from ...flows.evaluation.request import Evaluation
    from ...pipelines.model.spec import ModelSpec

    o_ = SimpleNamespace(**options)
    need_coco(o_.images, o_.coco)
    generation = o.generation(o_.sample, o_.temperature, o_.top_p, o_.num_beams)
    if o_.max_new_tokens is not None:
        generation["max_new_tokens"] = o_.max_new_tokens
    decoders, detectors = o_.decoder or ["greedy"], o_.detector or []
    benchmarks, limit = o_.benchmark or ["pope", "chair"], o_.limit or number_of(o_.images)
    path = lambda value: None if value is None else str(value)
    listed = o_.images and Path(o_.images).is_file()  # a run of a schedule starts in another folder
    source = Source(
        path(o_.coco), o_.split, limit, o_.seed, path(o_.synonyms), pope=o_.protocol,
        images=str(Path(o_.images).resolve()) if listed else o_.images,
        data=None if o_.data is None else str(o_.data.resolve()),
        **prompt_fields(o_.prompt or [], o_.system, benchmarks),
    )  # fmt: skip
    model = ModelSpec(o_.model, o_.device, o_.dtype, o_.revision, o_.quantization, o_.attention)
    wanted = Evaluation(model, decoders, detectors, benchmarks, source, o_.batch_size, generation, o_.maps)
    wanted.check()
    return wanted
