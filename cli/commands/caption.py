"""`veridical caption`: descriptions of images, of a few on the screen or of many in a folder."""

from __future__ import annotations

import typer

from ...pipelines.model.spec import ModelSpec
from .. import budget_options, job_options, setting_file
from .. import options as o
from .. import worker_options as w
from ..answering import Questioning, print_answers

app = typer.Typer(rich_markup_mode="rich")


@app.command(
    epilog=o.worked(
        "veridical caption photo.jpg",
        "# two decoders side by side", "veridical caption photo.jpg -d greedy -d vista:strength=0.1",
        "# in a paper's words", "veridical caption photo.jpg --prompt @vista",
        "# each word with its risk", "veridical caption *.png -t lookback_lens",
        "# as `veridical choose` certified it", "veridical caption *.png --setting chosen.json",
        "# for other programs", "veridical caption *.png --json > captions.jsonl",
        "# at most a fifth more time than plain decoding", "veridical caption photos -d vcd --budget 1.2 --out runs/1",
        "# a folder, overnight; stopped, the same command goes on",
        "veridical caption photos -d vcd -t lookback_lens --out runs/photos",
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
    retry_errors: job_options.RetryErrors = False, add: job_options.Add = False,
    include: job_options.Include = None, exclude: job_options.Exclude = None,
    max_pixels: job_options.MaxPixels = 50_000_000, max_bytes: job_options.MaxBytes = 100_000_000,
    readers: job_options.Readers = 4, attention_maps: job_options.AttentionMaps = 100,
    runner: w.JobRunner = "local", workers: w.Workers = None, cluster: w.Cluster = None,
    gpus_per_worker: w.GpusPerWorker = None, prefect: w.Prefect = None,
    log_file: job_options.LogFile = None, log_level: job_options.LogLevel = "info",
    budget: budget_options.Budget = None,
    setting: setting_file.SettingFile = None, calibrations: o.Calibrations = None,
    metrics_file: job_options.MetricsFile = None, heartbeat_file: job_options.HeartbeatFile = None,
    max_error_share: job_options.MaxErrorShare = None, stall_timeout: job_options.StallTimeout = None,
) -> None:  # fmt: skip
    """Describe images: some, or a folder, a list or a Parquet file of them with --out.

    Exits with 1 if some of several images cannot be used, with 2 if nothing could be done.
    """
    from ...pipelines.inputs import prompts

    spec, options = ModelSpec(model, device, dtype, revision, quantization, attention), locals()
    budget_options.refuse_setting(budget, setting)
    if setting is not None:
        certified = setting_file.read(setting, options, spec)
        spec, decoder, prompt = certified.spec, certified.decoders, certified.prompt
        max_new_tokens = certified.max_new_tokens
    generation = {"max_new_tokens": max_new_tokens, **o.generation(sample, temperature, top_p, num_beams)}
    question = prompts.caption_prompt(prompt or "@detail")
    spread = w.Spread(runner, workers, cluster, gpus_per_worker)
    if out is None:
        spread.refuse()
    more = job_options.Continuing(retry_errors, add, bool(include or exclude))
    if out is not None and calibrations is not None:
        raise ValueError("a job's rows have risks and no probabilities: leave out --calibrations, or --out")
    if job_options.is_job(images, out, json, more):
        from ...flows.captioning.request import Captioning
        from ...flows.captioning.watch import Watch

        job = Captioning(
            tuple(images), spec, tuple(decoder or ["greedy"]), tuple(detector or []), question, system, seed,
            batch_size, shard_size, form, max_pixels, max_bytes, readers, generation,
            tuple(include or []), tuple(exclude or []), attention_maps,
        )  # fmt: skip
        watch = Watch(log_file, log_level, metrics_file, heartbeat_file, max_error_share, stall_timeout)
        job_options.run(job, str(out), more, watch, prefect, spread, budget)
        return
    request = Questioning(spec, question, system, decoder, detector, batch_size, seed, generation, calibrations)
    if budget is not None:
        request = budget_options.few(images, request, budget)
    print_answers(images, request, json)
