"""Further answers to the same image and question, which several detectors compare with the answer that was given."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from PIL import ImageFilter

from ..pipelines.engine.record import real
from ..pipelines.inputs.images import passed_on
from ..pipelines.method import Detector, count, positive, ruled
from .confidence import TokenProbability

if TYPE_CHECKING:
    from ..pipelines.procedures import Call
    from ..pipelines.results import Answer

STREAM = 7919  # draw j of an answer with seed s draws with s + STREAM·(j + 1)


def drawn(
    call: Call, images: Sequence[Any], questions: Sequence[Any], seeds: Sequence[int], samples: int, shift: int = 0,
    blur: Sequence[float] = (), **options: Any,
) -> Iterator[tuple[list[str], list[float]]]:  # fmt: skip
    """For each image its samples and their mean token log-probabilities, by the run's decoders and the options.

    blur: sample j sees the image blurred with radius blur[j mod len], in pixels. An image's draws lie side by side in a
    batch, with len(images) // samples images in each; draw j has a seed of its own, so that nothing depends on the
    batch.
    """
    size = max(1, len(images) // samples)
    options = {"do_sample": True, "top_k": 0, "num_beams": 1, **options}
    if options.get("max_new_tokens", 1) is None:
        del options["max_new_tokens"]
    reading = replace(call, detectors=(TokenProbability(),))
    for start in range(0, len(images), size):
        part = range(start, min(start + size, len(images)))
        shown = [_blurred(images[i], blur[j % len(blur)]) if blur else images[i] for i in part for j in range(samples)]
        inputs = reading.inputs(shown, [questions[i] for i in part for _ in range(samples)])
        each = [seeds[i] + shift + STREAM * (j + 1) for i in part for j in range(samples)]
        out = reading.generate(inputs, each, **options)
        kept = real(out.ids, call.lvlm.end_tokens) & ~out.risk["token_probability"].isnan()
        logs = -(out.risk["token_probability"].nan_to_num() * kept).sum(1) / kept.sum(1).clamp(min=1)
        for place in range(0, len(each), samples):
            yield out.text[place : place + samples], logs[place : place + samples].tolist()


def _blurred(image: Any, radius: float) -> Any:
    if isinstance(image, list | tuple):
        return [_blurred(one, radius) for one in image]
    return passed_on(image).filter(ImageFilter.GaussianBlur(radius))


def _radii(name: str, value: Any) -> tuple[float, ...]:
    found = (value,) if isinstance(value, int | float) else tuple(value)
    if any(not isinstance(one, int | float) or not 0 < one < math.inf for one in found):
        raise ValueError(f"{name}={value!r} are no radii in pixels; give numbers above 0, or none.")
    return found


def synonyms_field() -> Any:
    note = "CHAIR's, for models of photos; None is the embedded world's."
    return ruled(None, "file of the objects' names", "a path, or None", note)


def samples_field(default: int) -> Any:
    return count(default, "further answers to each question", low=1)


def temperature_field(default: float = 1.0) -> Any:
    return positive(default, "of the sampling", "Near 0 all samples agree, and every risk is 0.")


def longest_field() -> Any:
    return count(None, "new tokens of a sample", "None: the run's own.", low=1)


def blur_field() -> Any:
    return ruled((), "radii of Gaussian blurs, one per sample in turn", "pixels", "None by default.", _radii)


class Sampled(Detector):
    """What both forms share: the draws of each answer. Nothing inside the model is read."""

    samples: int
    temperature: float
    top_p: float
    seed: int
    max_new_tokens: int | None
    blur: tuple[float, ...]

    def score(self, record: Any) -> Any:
        raise ValueError(
            f"{self.registered} compares texts, and a record has none: take it in caption, answer, detect or evaluate."
        )

    def draws(
        self, call: Call, images: Sequence[Any], questions: Sequence[Any], answers: Sequence[Answer],
        seeds: Sequence[int],
    ) -> Iterator[tuple[Answer, list[str], list[float]]]:  # fmt: skip
        """Each answer with its samples, which it then holds in `details`, and their mean log-probabilities."""
        found = drawn(
            call, images, questions, seeds, self.samples, self.seed, self.blur, temperature=self.temperature,
            top_p=self.top_p, max_new_tokens=self.max_new_tokens,
        )  # fmt: skip
        for answer, (texts, logs) in zip(answers, found, strict=True):
            answer.details[self.registered] = texts
            yield answer, texts, logs
