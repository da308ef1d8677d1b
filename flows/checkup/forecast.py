"""How long a captioning job will take: a law of counted costs, with coefficients measured here on a few images.

    seconds = a · batches + b · images + c · further passes + d · rows × tokens

The coefficients come from short runs of two sizes of batch, and are scaled by what a sample's whole captions took.
The first two terms are what a batch costs up to its first token: encoders, prompts and all that a method does before it
decodes. Further passes are as many as a batch's longest text has tokens behind the first; a pass has a row for each
text that goes on, and for each of its branches.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from statistics import fmean, median, stdev
from typing import TYPE_CHECKING, Any

from .cost import REPEATS

if TYPE_CHECKING:
    from ...pipelines.lvlm import LVLM

FURTHER = 16  # tokens behind the first in a measured run
SAMPLE = 16  # images whose captions are written whole, for their lengths; at least a batch
Clock = Callable[[], float]


@dataclass(frozen=True)
class Counts:
    """What runs have computed: passes of the decoder, rows × positions in them, and images that were encoded; None
    where the encoder's layers are not found."""

    passes: int
    positions: int
    images: int | None


@dataclass(frozen=True)
class Law:
    """Seconds of a batch, of an image in it, of a further pass, and of a row in such a pass.

    >>> Law.of({(8, 1): 9.0, (8, 17): 9.0 + 16 * 5, (4, 1): 5.0, (4, 17): 5.0 + 16 * 3}, 1)
    Law(batch=1.0, image=1.0, step=1.0, row=0.5)
    """

    batch: float
    image: float
    step: float
    row: float

    @classmethod
    def of(cls, seconds: dict[tuple[int, int], float], blocks: float) -> Law:
        """seconds: (images, tokens) -> of a run; one or two sizes of batch, 1 and FURTHER + 1 tokens each.
        blocks: rows of an image in a further pass."""
        first = {size: value for (size, tokens), value in seconds.items() if tokens == 1}
        step = {size: max(0.0, seconds[size, FURTHER + 1] - first[size]) / FURTHER for size in first}
        return cls(*_line(first), *_line({size * blocks: value for size, value in step.items()}))

    def seconds(self, sizes: Sequence[int], lengths: Sequence[int], rows: float) -> float:
        """Of batches of these sizes. lengths: of a sample of texts, in tokens. rows: rows × tokens of an image."""
        images = sum(sizes)
        passes = sum(longest(lengths, size) - 1 for size in sizes)
        return self.batch * len(sizes) + self.image * images + self.step * passes + self.row * rows * images


def _line(values: dict[Any, float]) -> tuple[float, float]:
    """Constant and slope, neither below 0, through the values at two sizes; through 0 and one."""
    large, small = max(values), min(values)
    if large == small:
        return 0.0, values[large] / large
    slope = (values[large] - values[small]) / (large - small)
    if slope < 0:
        return values[large], 0.0
    constant = values[large] - slope * large
    return (constant, slope) if constant >= 0 else (0.0, values[large] / large)


def longest(lengths: Sequence[int], size: int) -> float:
    """The expected largest of so many lengths, drawn from a sample with replacement.

    >>> longest([4, 8], 1), longest([4, 8], 2)
    (6.0, 7.0)
    """
    count = len(lengths)
    return sum(n * ((k / count) ** size - ((k - 1) / count) ** size) for k, n in enumerate(sorted(lengths), 1))


def batch_sizes(images: int, batch: int, shard: int) -> list[int]:
    """Images of each batch of a job; no batch reaches beyond a shard.

    >>> batch_sizes(70, 16, 32)
    [16, 16, 16, 16, 6]
    """
    shards = [min(shard, images - start) for start in range(0, images, shard)]
    return [min(batch, size - start) for size in shards for start in range(0, size, batch)]


@dataclass(frozen=True)
class Job:
    """A job whose time is predicted. sample: opened images like its own."""

    images: int
    sample: Sequence[Any]
    question: str
    batch: int = 8
    tokens: int = 128
    shard: int = 32


def forecast(lvlm: LVLM, job: Job, decoder: str, clock: Clock = time.perf_counter) -> dict[str, Any]:
    """Seconds of a job of plain or mitigated captions, once its model is loaded, as a report's plain values.

    "low" and "high" are 95 % for the mean length of the texts, which a sample knows roughly; they say nothing of a
    machine that is busier later. Files are left out: they are read beside the model, or are small.

    Raises:
        ValueError: a procedure, whose passes do not follow from tokens; or no image to try.
    """
    from ...pipelines.chain import chain, split

    methods = chain(decoder, lvlm.name)
    if split(methods)[0] is not None:
        raise ValueError(
            f"{decoder} asks the model several times for one caption, and how often depends on the answers: caption "
            "some images with --out instead, and read timings.jsonl."
        )
    if not job.sample or job.images < 1:
        raise ValueError(f"a forecast needs an image to try and a job of at least 1 image, not {job.images}")

    def run(count: int, tokens: int | None) -> Any:
        images = [_another(job.sample[k % len(job.sample)], k // len(job.sample)) for k in range(count)]
        limits: dict[str, Any] = {"max_new_tokens": tokens or job.tokens}
        limits |= {"min_new_tokens": tokens} if tokens else {}
        return lvlm.answer(images, job.question, methods, batch_size=job.batch, **limits)

    batch = min(job.batch, job.images)
    sizes = sorted({batch, (batch + 1) // 2}, reverse=True)
    with counted(lvlm) as counts:
        whole, first = max(len(job.sample), batch), counts(lambda: run(batch, 1))[0]
        further = counts(lambda: run(batch, 2))[0]
        began = clock()
        texts, answers = counts(lambda: run(whole, None))
        took = clock() - began
    blocks = (further.positions - first.positions) / batch
    lengths = [len(answer.tokens) for answer in answers]
    parts = [min(batch, whole - start) for start in range(0, whole, batch)]
    rows = (texts.positions - first.positions / batch * whole) / whole
    seconds = {(size, n): _seconds(run, size, n, clock) for size in sizes for n in (1, FURTHER + 1)}
    law, job_sizes = Law.of(seconds, blocks), batch_sizes(job.images, job.batch, job.shard)
    passes, middle = texts.passes - first.passes * len(parts), fmean(lengths)
    scale = took / (law.batch * len(parts) + law.image * whole + law.step * passes + law.row * rows * whole)
    law = Law(*(scale * value for value in asdict(law).values()))
    found = law.seconds(job_sizes, lengths, rows)
    error = 1.96 * stdev(lengths) / len(lengths) ** 0.5 if len(job.sample) > 1 else 0.0
    behind = found - law.batch * len(job_sizes) - law.image * job.images
    share = error / max(middle - 1, 1)
    return {
        "decoder": decoder, "images": job.images, "batch": job.batch, "batches": len(job_sizes), "seconds": found,
        "low": found - share * behind, "high": found + share * behind, "law": asdict(law),
        "sample": len(job.sample), "tokens": middle, "longest": longest(lengths, batch),
        "encodings": None if first.images is None else first.images / batch, "prompt": first.positions / batch,
        "rows": rows, "passes": passes / len(parts), "scale": scale,
    }  # fmt: skip


def _another(image: Any, times: int) -> Any:
    """The image with its columns moved round: an image that a batch holds twice is encoded once."""
    from PIL import ImageChops

    return ImageChops.offset(image, times, 0) if times else image


def _seconds(run: Callable[[int, int | None], Any], size: int, tokens: int, clock: Clock) -> float:
    times = []
    for _ in range(REPEATS):
        began = clock()
        run(size, tokens)
        times.append(clock() - began)
    return median(times)


@contextmanager
def counted(lvlm: LVLM) -> Iterator[Callable[[Callable[[], Any]], tuple[Counts, Any]]]:
    """Gives what runs something and counts what the model computes in it."""
    from ...pipelines.model.layout import UnsupportedModel

    passes: list[tuple[int, int]] = []
    images: list[int] = []

    def decodes(module: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        fed = (kwargs.get("inputs_embeds"), kwargs.get("input_ids"), *args)
        rows, width = next(value for value in fed if value is not None).shape[:2]
        passes.append((rows, width))

    def encodes(module: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        images.append(len(args[0] if args else kwargs["hidden_states"]))

    try:
        encoder = lvlm.vision_layers[0]
    except UnsupportedModel:
        encoder = None
    hooks = [lvlm.decoder.register_forward_pre_hook(decodes, with_kwargs=True)]
    if encoder is not None:
        hooks.append(encoder.register_forward_pre_hook(encodes, with_kwargs=True))

    def count(run: Callable[[], Any]) -> tuple[Counts, Any]:
        passes.clear()
        images.clear()
        result = run()
        encoded = None if encoder is None else sum(images)
        return Counts(len(passes), sum(rows * width for rows, width in passes), encoded), result

    try:
        yield count
    finally:
        for hook in hooks:
            hook.remove()
