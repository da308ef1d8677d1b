"""Captions and answers for one image or many: prompts, batches, error rows, and everything needed to repeat them."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch

from .families import family, q_former_first
from .inputs import BadImage, prompt_text, read_image
from .registry import DECODERS, DETECTORS

DESCRIBE = "Please describe this image in detail."


@dataclass
class Answer:
    """One text about one image.

    tokens: the text piece by piece. risk: detector -> one number per token, higher means more likely hallucinated.
    acted: method -> steps, acted, flipped, kl (see `fold.Acted`). seconds: its batch's time over the batch size.
    settings: everything needed to repeat it. error: None, or why there is no text.
    """

    text: str
    tokens: list[str] = field(default_factory=list)
    risk: dict[str, list[float]] = field(default_factory=dict)
    acted: dict[str, dict[str, float]] = field(default_factory=dict)
    seconds: float = 0.0
    settings: dict[str, Any] = field(default_factory=dict)
    error: str | None = None


@cache
def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    return {name: importlib.metadata.version(name) for name in ("veridical", "transformers", "torch")}


class Captions:
    """What an LVLM with a processor can be asked. A part of `LVLM`, kept apart for its size."""

    def caption(
        self: Any, images: Any, decoders: Any = (), detectors: Any = (), prompt: str = DESCRIBE, **options: Any
    ) -> list[Answer]:
        """Describe images. Arguments as in `answer`, with one prompt for all."""
        images = _many(images)
        return self.answer(images, [prompt] * len(images), decoders, detectors, **options)

    def answer(
        self: Any, images: Any, questions: Any, decoders: Any = (), detectors: Any = (), system: str | None = None,
        batch_size: int = 8, errors: str = "raise", seed: int = 0, max_new_tokens: int = 128, **generation: Any,
    ) -> list[Answer]:  # fmt: skip
        """Answer one question per image.

        Args:
            images: path, PIL image or array, one or many. questions: as many, or one for all.
            decoders, detectors: names, "name:field=value", or instances.
            errors: "raise", or "row": a bad image becomes an Answer with `error`, the others go on.
            seed: image i is sampled with seed + i, whatever the batches are.
            generation: what transformers' generate takes.

        Raises:
            BadImage: an image that cannot be used, with errors="raise".
            ValueError: no processor, or a number of questions that fits neither one nor all.
        """
        if self.processor is None:
            raise ValueError(
                f"{self.name} has no processor, which builds prompts and reads images; load it from a folder that has "
                "one, or prepare the inputs yourself and call veridical.generate"
            )
        if errors not in ("raise", "row"):
            raise ValueError(f"errors={errors!r} is neither 'raise' nor 'row'")
        images = _many(images)
        questions = [questions] * len(images) if isinstance(questions, str) else list(questions)
        if len(questions) != len(images):
            raise ValueError(f"{len(questions)} questions for {len(images)} images; give one for all, or one for each")
        decoders, detectors = DECODERS.make_all(decoders), DETECTORS.make_all(detectors)
        generation = {"do_sample": False, "max_new_tokens": max_new_tokens, **generation}
        out: list[Answer] = []
        for start in range(0, len(images), batch_size):
            part = range(start, min(start + batch_size, len(images)))
            read, failed = _read([images[index] for index in part], errors)
            good = [start + offset for offset in read]
            asked, seeds = [questions[index] for index in good], [seed + index for index in good]
            answered = iter(())
            if good:
                pictures = list(read.values())
                answered = iter(self._batch(pictures, asked, decoders, detectors, system, seeds, generation))
            out += [failed[k] if k in failed else next(answered) for k in range(len(part))]
        return out

    def prepare(self: Any, images: Sequence[Any], questions: Sequence[str], system: str | None = None) -> dict:
        """Rows for `veridical.generate`: one image and one question each, left-padded, on the model's device."""
        prompts = [self._prompt(question, system) for question in questions]
        self.processor.tokenizer.padding_side = "left"
        rows = self.processor(
            images=[[read_image(image)] for image in images], text=prompts, padding=True, return_tensors="pt"
        )
        tensors = {name: value.to(self.device) for name, value in rows.items() if isinstance(value, torch.Tensor)}
        return q_former_first(tensors)

    def _prompt(self: Any, question: str, system: str | None) -> str:
        return prompt_text(self.processor, question, system=system, template=family(self.model).template)

    def _batch(
        self: Any, images: Sequence[Any], questions: Sequence[str], decoders: Any, detectors: Any, system: str | None,
        seeds: list[int], generation: dict[str, Any],
    ) -> list[Answer]:  # fmt: skip
        from .generate import generate

        began = time.perf_counter()
        inputs = self.prepare(images, questions, system)
        drawn = seeds if generation["do_sample"] else None
        made = generate(self, inputs, decoders, detectors, seed=drawn, **generation)
        seconds = (time.perf_counter() - began) / len(images)
        answers = []
        for row, question in enumerate(questions):
            kept = [int(token) for token in made.ids[row] if token != self.pad_token and token not in self.end_tokens]
            acted = {
                name: {k: float(v[row]) for k, v in vars(acted).items()} for name, acted in made.acted.items()
            }
            risk = {name: values[row, : len(kept)].tolist() for name, values in made.risk.items()}
            settings = self.settings(question, decoders, detectors, system, {**generation, "seed": seeds[row]})
            pieces = [self.processor.tokenizer.decode([token]) for token in kept]
            answers.append(Answer(made.text[row], pieces, risk, acted, seconds, settings))
        return answers

    def settings(
        self: Any, question: str, decoders: Any, detectors: Any, system: str | None, generation: dict[str, Any]
    ) -> dict[str, Any]:
        """Everything needed to repeat an answer, as plain values."""
        return {
            "model": self.name,
            "revision": self.revision,
            "dtype": str(self.dtype).removeprefix("torch."),
            "attention": self.attention_implementation,
            "question": question,
            "prompt": self._prompt(question, system),
            "decoders": [repr(d) for d in DECODERS.make_all(decoders)],
            "detectors": [repr(d) for d in DETECTORS.make_all(detectors)],
            "generation": generation,
            "versions": versions(),
        }


def _read(images: Sequence[Any], errors: str) -> tuple[dict[int, Any], dict[int, Answer]]:
    """The images that can be used and an error row for each of the others, by place."""
    read: dict[int, Any] = {}
    failed: dict[int, Answer] = {}
    for place, image in enumerate(images):
        try:
            read[place] = read_image(image)
        except BadImage as bad:
            if errors == "raise":
                raise
            failed[place] = Answer("", error=str(bad))
    return read, failed


def _many(images: Any) -> list[Any]:
    return list(images) if isinstance(images, list | tuple) else [images]
