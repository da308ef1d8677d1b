"""The command line: `veridical list | caption | answer | evaluate | data | train-embedded`.

Everything heavy is imported inside the command that needs it, so that help appears at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import options as o
from .failures import Reported, hush, hush_transformers, notes

app = typer.Typer(
    cls=Reported, rich_markup_mode="rich", no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)  # fmt: skip
data = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Write data sets.")
app.add_typer(data, name="data")


def main() -> None:
    """Entry point of the `veridical` program."""
    app()


@app.callback(
    epilog=o.worked(
        "# describe a picture, plainly and with a method", "veridical caption photo.jpg -d greedy -d vcd",
        "# score methods on the embedded model", "veridical evaluate -d greedy -d vcd --limit 50 --out runs/first",
    )
)  # fmt: skip
def veridical(
    debug: Annotated[
        bool, typer.Option("--debug", envvar="VERIDICAL_DEBUG", help="Show tracebacks and the libraries' logs.")
    ] = False,
    version: Annotated[bool, typer.Option("--version", help="Show the version.", is_eager=True)] = False,
) -> None:
    """Mitigate, detect and score what vision-language models say that is not in the picture."""
    hush(debug)
    if version:
        from .. import __version__

        typer.echo(f"veridical {__version__}")
        raise typer.Exit


@app.command(
    "list",
    epilog=o.worked("veridical list", "# with every field and its default", "veridical list --long"),
)
def list_methods(
    long: Annotated[bool, typer.Option("--long", "-l", help="With fields, defaults and what each does.")] = False,
) -> None:
    """Show the registered decoders, detectors and benchmarks."""
    from ..pipelines.registry import DECODERS, DETECTORS
    from . import show

    show.methods(DECODERS, ("changes", "cost", "paper"), long)
    show.methods(DETECTORS, ("reads", "paper"), long)
    show.benchmarks(long)


@app.command(
    epilog=o.worked(
        "veridical caption photo.jpg",
        "# two decoders side by side", "veridical caption photo.jpg -d greedy -d vista:strength=0.1",
        "# each word with its risk", "veridical caption *.png -t lookback_lens",
        "# for other programs", "veridical caption *.png --json > captions.jsonl",
    )
)  # fmt: skip
def caption(
    images: o.Images, decoder: o.Decoders = None, detector: o.Detectors = None, model: o.Model = "embedded",
    prompt: Annotated[str | None, typer.Option(help="What to ask.", show_default="a detailed description")] = None,
    max_new_tokens: o.MaxNewTokens = 128, batch_size: o.BatchSize = 8, sample: o.Sample = False,
    temperature: o.Temperature = None, top_p: o.TopP = None, seed: o.Seed = 0, num_beams: o.Beams = 1,
    json: o.Json = False, device: o.Device = "auto", dtype: o.Dtype = "auto", revision: o.Revision = None,
) -> None:  # fmt: skip
    """Describe images. Exits with 1 if some of several images cannot be used, with 2 if nothing could be done."""
    generation = {"max_new_tokens": max_new_tokens, **o.generation(sample, temperature, top_p, num_beams)}
    _ask(images, prompt, decoder, detector, (model, device, dtype, revision), batch_size, seed, json, generation)


@app.command(
    epilog=o.worked(
        'veridical answer photo.jpg -q "Is there a dog in the image?"',
        "# plain and mitigated", 'veridical answer photo.jpg -q "How many cups are there?" -d greedy -d vcd',
    )
)  # fmt: skip
def answer(
    images: o.Images, question: Annotated[str, typer.Option("--question", "-q", help="What to ask.")],
    decoder: o.Decoders = None, detector: o.Detectors = None, model: o.Model = "embedded",
    max_new_tokens: o.MaxNewTokens = 64, batch_size: o.BatchSize = 8, sample: o.Sample = False,
    temperature: o.Temperature = None, top_p: o.TopP = None, seed: o.Seed = 0, num_beams: o.Beams = 1,
    json: o.Json = False, device: o.Device = "auto", dtype: o.Dtype = "auto", revision: o.Revision = None,
) -> None:  # fmt: skip
    """Answer a question about images. Exits as `caption` does."""
    generation = {"max_new_tokens": max_new_tokens, **o.generation(sample, temperature, top_p, num_beams)}
    _ask(images, question, decoder, detector, (model, device, dtype, revision), batch_size, seed, json, generation)


@app.command(
    epilog=o.worked(
        "# the embedded model on its own world",
        "veridical evaluate -d greedy -d vcd -d vista:strength=0.05 --limit 100 --out runs/first",
        "# another model on COCO",
        "veridical evaluate -m llava-hf/llava-1.5-7b-hf --coco coco --synonyms synonyms.txt --out runs/llava",
        "# stopped? the same command goes on where it was",
    )
)  # fmt: skip
def evaluate(
    out: Annotated[Path, typer.Option(help="Folder for answers, results and report.")],
    model: o.Model = "embedded", decoder: o.Decoders = None, detector: o.Detectors = None,
    benchmark: Annotated[
        list[str] | None, typer.Option(help="What to measure; repeat it for several.", show_default="pope and chair")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Number of images.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Of images drawn, negatives and sampling.")] = 0,
    batch_size: o.BatchSize = 16,
    coco: Annotated[
        Path | None, typer.Option(help="A COCO folder instead of the embedded world.", show_default=False)
    ] = None,
    split: Annotated[
        str | None, typer.Option(help='Such as "val2014".', show_default="test, or the folder's only one")
    ] = None,
    synonyms: Annotated[
        Path | None, typer.Option(help="CHAIR's synonym file, for real COCO.", show_default="the world's vocabulary")
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest text, in tokens.", show_default="the benchmark's")
    ] = None,
    sample: o.Sample = False, temperature: o.Temperature = None, top_p: o.TopP = None, num_beams: o.Beams = 1,
    device: o.Device = "auto", dtype: o.Dtype = "auto", revision: o.Revision = None,
    no_prefect: Annotated[bool, typer.Option("--no-prefect", help="Run the same steps without Prefect.")] = False,
) -> None:  # fmt: skip
    """Score decoders on benchmarks: answers, results.json, manifest.json and report.html in one folder."""
    generation = o.generation(sample, temperature, top_p, num_beams)
    if max_new_tokens is not None:
        generation["max_new_tokens"] = max_new_tokens
    asked: dict[str, Any] = {
        "model": model, "decoders": decoder or ["greedy"], "detectors": detector or [],
        "benchmarks": benchmark or ["pope", "chair"], "limit": limit, "seed": seed, "out": str(out),
        "batch_size": batch_size, "coco": None if coco is None else str(coco), "split": split,
        "synonyms": None if synonyms is None else str(synonyms), "device": device, "dtype": dtype,
        "revision": revision, "generation": generation,
    }  # fmt: skip
    from . import show, steps

    _check_names(asked["decoders"], asked["detectors"], asked["benchmarks"])
    hush_transformers()
    with notes():
        if no_prefect:
            steps.evaluation(**asked)
        else:
            from .evaluate import evaluate as flow

            flow(**asked)
    show.results(out)


@data.command(epilog=o.worked("veridical data world --split test --count 500 --out coco-world"))
def world(
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    count: Annotated[int, typer.Option(min=1, help="Number of scenes.")] = 100,
) -> None:
    """Write scenes of the embedded world as a COCO folder: pictures, instances and captions."""
    from ..datasets.coco import write_coco
    from .progress import progress

    with progress(f"world {split}", count, "images") as advance:

        def watched(indices: Any) -> Any:
            for index in indices:
                yield index
                advance(1)

        folder = write_coco(split, count, out, watched)
    typer.echo(f"{count} scenes in {folder}: instances_{split}.json, captions_{split}.json and {split}/")


@data.command(epilog=o.worked("veridical data nltk --out ~/nltk_data"))
def nltk(out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("nltk_data")) -> None:
    """Download what CHAIR's wordnet family needs of NLTK: tokenizer, tagger and WordNet."""
    from .download import nltk_data

    typer.echo(f"NLTK data in {nltk_data(out)}; set NLTK_DATA={out} if that is not where NLTK looks")


@data.command(epilog=o.worked("veridical data chair --out synonyms.txt"))
def chair(out: Annotated[Path, typer.Option(help="File to write.")] = Path("chair_synonyms.txt")) -> None:
    """Download CHAIR's official synonym file and check that it is the published one."""
    from .download import chair_synonyms

    typer.echo(f"CHAIR's synonyms in {chair_synonyms(out)}")


@app.command(
    "train-embedded",
    epilog=o.worked(
        "veridical train-embedded --out my-model",
        "# stopped? go on", "veridical train-embedded --out my-model --resume",
        "# and look at it", "veridical caption photo.png --model my-model",
    ),
)  # fmt: skip
def train_embedded(
    out: Annotated[Path, typer.Option(help="Folder for the finished model.")],
    state: Annotated[Path | None, typer.Option(help="Folder for the state.", show_default="OUT-training")] = None,
    pictures: Annotated[
        int | None, typer.Option(min=1, help="Scenes in the first stage.", show_default="the recipe's")
    ] = None,
    lessons: Annotated[
        int | None, typer.Option(min=1, help="Scenes in the second stage.", show_default="the recipe's")
    ] = None,
    device: Annotated[str, typer.Option(help='"auto", "cpu" or "cuda".')] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    examined: Annotated[int, typer.Option(min=0, help="Test scenes measured for the model card; 0 for none.")] = 500,
    compiled: Annotated[bool, typer.Option("--compile", help="Faster on CPU; wants a C++ compiler.")] = False,
) -> None:
    """Train the embedded model on the embedded world; one to two hours on two cores. Can be stopped and resumed."""
    from .train import train

    state = state or out.with_name(out.name + "-training")
    typer.echo(f"model: {train(out, state, pictures, lessons, device, resume, examined, compiled)}")


def _check_names(decoders: list[str], detectors: list[str], benchmarks: list[str]) -> None:
    """Names and settings first: they are wrong more often than anything else, and known without a model."""
    from ..pipelines.registry import DETECTORS
    from . import steps

    for name in decoders:
        steps.shown(name)
    DETECTORS.make_all(detectors)
    for name in benchmarks:
        steps.benchmark_of(name)


def _ask(
    images: list[Path], question: str | None, decoders: list[str] | None, detectors: list[str] | None, model: tuple,
    batch_size: int, seed: int, as_json: bool, generation: dict[str, Any],
) -> None:  # fmt: skip
    """Ask about every image with every decoder, and print image by image."""
    decoders, detectors = list(dict.fromkeys(decoders or ["greedy"])), detectors or []
    _check_names(decoders, detectors, [])
    from ..datasets.captions import DETAIL_PROMPT
    from ..pipelines.inputs import read_image
    from . import show, steps
    from .progress import progress

    if len(images) == 1:
        read_image(images[0])  # fail at once
    hush_transformers()
    lvlm = steps.load_model(*model)
    bad = 0
    with notes(), progress("answers", len(images) * len(decoders), "images", passing=True) as advance:
        for start in range(0, len(images), batch_size):
            part = images[start : start + batch_size]
            said: dict[str, Any] = {}
            for name in decoders:
                said[name] = lvlm.answer(
                    part, question or DETAIL_PROMPT, steps.chain(name), detectors, batch_size=batch_size, errors="row",
                    seed=seed + start, **generation,
                )  # fmt: skip
                advance(len(part))
            for place, image in enumerate(part):
                answers = {name: answered[place] for name, answered in said.items()}
                bad += any(answered.error is not None for answered in answers.values())
                if as_json:
                    for name, answered in answers.items():
                        show.json_line(image, name, answered)
                else:
                    show.answers(image, answers, alone=len(images) == len(decoders) == 1)
    if bad:
        typer.echo(f"Error: {bad} of {len(images)} images could not be used.", err=True)
        raise typer.Exit(1)
