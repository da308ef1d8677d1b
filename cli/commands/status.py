"""`veridical status`: how far a job or an evaluation has come."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .. import options as o
from ..terminal import echo

app = typer.Typer(rich_markup_mode="rich")


@app.command(
    epilog=o.worked("veridical status runs/photos", "veridical status runs/mine", "veridical status runs/mine --json")
)
def status(
    folder: Annotated[Path, typer.Argument(help="The --out folder of `caption` or of `evaluate`.", metavar="DIR")],
    json: o.JsonObject = False,
) -> None:
    """Show how far a captioning job or an evaluation has come, without a model; it may be running meanwhile."""
    if (folder / "job.json").is_file():
        found, lines = _job(folder)
    elif (folder / "manifest.json").is_file():
        found, lines = _evaluation(folder)
    else:
        there = "holds neither a job nor an evaluation" if folder.is_dir() else "is no folder"
        raise ValueError(f"{folder} {there}; needed: the --out folder of `veridical caption` or `veridical evaluate`.")
    if json:
        from ..render import scores

        scores.as_json({"folder": str(folder), **found})
        return
    for line in lines:
        echo(line)


def _job(folder: Path) -> tuple[dict[str, Any], list[str]]:
    from ...flows.captioning.job import LEDGER, SUMMARY, Job
    from ...flows.files import atomic

    job = Job.read(folder)
    lines = {line["shard"]: line for line in atomic.lines(folder / LEDGER).records}
    done = [number for number, line in lines.items() if number < job.shards and job.shard_path(number).is_file()]
    images, errors = sum(map(job.size, done)), sum(lines[number]["errors"] for number in done)
    finished = (folder / SUMMARY).is_file() and len(done) == job.shards
    decoders = list(job.request.decoders)
    found = {"images": job.images, "done": images, "errors": errors, "decoders": decoders, "finished": finished}
    state = "finished" if finished else "not finished: the command that began the job goes on from here"
    shown = [f"{folder}: {images} of {job.images} images by {', '.join(decoders)}, {errors} errors", state]
    if budget := _budget(folder, decoders, finished):
        found["budget"] = budget
        shown.append(budget["sentence"])
    return found, shown


def _budget(folder: Path, decoders: list[str], finished: bool) -> dict[str, Any]:
    """What a job with a budget of time was predicted to take, and, once it is finished, the steps that it paid for."""
    from ...flows.captioning.job import SUMMARY
    from ...flows.files import atomic
    from ...flows.gating import choice

    if finished:
        return atomic.read_json(folder / SUMMARY).get("budget", {})
    try:
        known = choice.read(folder)
    except ValueError as damaged:
        return {"sentence": str(damaged)}
    if known is None or decoders != [known[0].chosen.decoder]:
        return {}
    return known[0].of_job()


def _evaluation(folder: Path) -> tuple[dict[str, Any], list[str]]:
    from ...flows.evaluation import answer_file
    from ...flows.evaluation.request import RESULTS, Evaluation

    request = Evaluation.read(folder)
    answers: dict[str, dict[str, int]] = {}
    lines = []
    for benchmark in request.benchmarks:
        for decoder in request.decoders:
            path = answer_file.answers_path(folder, benchmark, decoder)
            count = path.read_bytes().count(b"\n") if path.is_file() else 0
            answers.setdefault(benchmark, {})[decoder] = count
            lines.append(f"{benchmark}, {decoder}: {count} answers")
    done = (folder / RESULTS).is_file()
    state = "finished" if done else "not finished: the same `veridical evaluate` goes on from here"
    return {"answers": answers, "finished": done}, [*lines, state]
