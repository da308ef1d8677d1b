"""Captions and answers for one image or many: prompts, batches, error rows, and everything needed to repeat them."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch

from . import compatibility
from .inputs.prompts import caption_prompt
from .inputs.rows import BadImage, passed_on, prompt_text
from .model.families import family, q_former_first
from .per_model import fitted
from .procedures import Call, make_chain, name_of, split
from .registry import DETECTORS

DESCRIBE = "Please describe this image in detail."


@dataclass
class Answer:
    """One text about one image.

    tokens: the text piece by piece. risk: detector -> one number per token, higher means more likely hallucinated.
    acted: method -> steps, acted, flipped, kl (see `fold.Acted`; for procedures `procedures.Procedure`). seconds: its
    batch's time over the batch size.
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


class BrokenLogits(ArithmeticError):
    """A model gave no numbers to choose a token from."""


BROKEN = (
    "the logits became NaN or infinite, so that no token could be chosen; half precision can overflow: try dtype bf16 "
    "or fp32"
)


class Captions:
    """What an LVLM with a processor can be asked. A part of `LVLM`, kept apart for its size."""

    def caption(
        self: Any, images: Any, decoders: Any = (), detectors: Any = (), prompt: str = DESCRIBE, **options: Any
    ) -> list[Answer]:
        """Describe images. Arguments as in `answer`, with one prompt for all: a text, or a paper's such as "@vista"."""
        images = _many(images)
        return self.answer(images, [caption_prompt(prompt)] * len(images), decoders, detectors, **options)

    def answer(
        self: Any, images: Any, questions: Any, decoders: Any = (), detectors: Any = (), system: str | None = None,
        batch_size: int = 8, errors: str = "raise", seed: int | Sequence[int] = 0, max_new_tokens: int = 128,
        **generation: Any,
    ) -> list[Answer]:  # fmt: skip
        """Answer one question per image.

        Args:
            images: path, PIL image or array, one or many. questions: as many, or one for all. One may be a tuple of
                turns instead: what the user said, what the model said, …, and last what the user says now.
            decoders: names, "name:field=value", or instances; a procedure may stand in front (see `procedures`).
            detectors: likewise.
            errors: "raise", or "row": a bad image becomes an Answer with `error`, the others go on.
            seed: image i is sampled with seed + i, whatever the batches are; or one number for each image.
            generation: what transformers' generate takes.

        Raises:
            BadImage: an image that cannot be used, with errors="raise".
            BrokenLogits: logits that are no numbers, with errors="raise".
            ValueError: no processor, a number of questions that fits neither one nor all, or something that a
                procedure cannot do.
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
        seeds = [seed + index for index in range(len(images))] if isinstance(seed, int) else list(seed)
        if len(seeds) != len(images):
            raise ValueError(f"{len(seeds)} seeds for {len(images)} images; give one number, or one for each image")
        decoders, detectors = fitted(make_chain(decoders), self.name), DETECTORS.make_all(detectors)
        generation = {"do_sample": False, "max_new_tokens": max_new_tokens, **generation}
        if (procedure := split(decoders)[0]) is not None:
            compatibility.refuse(decoders)
            if not all(isinstance(question, str) for question in questions):
                raise ValueError(f"{name_of(procedure)} asks single questions, no conversation of several turns")
            procedure.check(questions, detectors, generation)
        out: list[Answer] = []
        for start in range(0, len(images), batch_size):
            part = range(start, min(start + batch_size, len(images)))
            read, failed = _read([images[index] for index in part], errors)
            good = [start + offset for offset in read]
            asked, drawn = [questions[index] for index in good], [seeds[index] for index in good]
            answered = iter(())
            if good:
                pictures = list(read.values())
                answered = iter(self._batch(pictures, asked, decoders, detectors, system, drawn, generation))
            out += [failed[k] if k in failed else next(answered) for k in range(len(part))]
            broken = [answer for answer in out[start:] if answer.error == BROKEN]
            if broken and errors == "raise":
                raise BrokenLogits(BROKEN)
        return out

    def prepare(
        self: Any, images: Sequence[Any], questions: Sequence[str | Sequence[str]], system: str | None = None
    ) -> dict:
        """Rows for `veridical.generate`: one question each, left-padded, on the model's device.

        images: one for each question, or a list of several pictures that it is about.
        """
        pictures = [list(image) if isinstance(image, list | tuple) else [image] for image in images]
        asked = zip(questions, pictures, strict=True)
        prompts = [self._prompt(question, system, len(shown)) for question, shown in asked]
        self.processor.tokenizer.padding_side = "left"
        rows = self.processor(
            images=[[passed_on(one) for one in shown] for shown in pictures], text=prompts, padding=True,
            return_tensors="pt",
        )
        tensors = {name: value.to(self.device) for name, value in rows.items() if isinstance(value, torch.Tensor)}
        return q_former_first(tensors)

    def _prompt(self: Any, question: str | Sequence[str], system: str | None, images: int = 1) -> str:
        return prompt_text(self.processor, question, images, system, template=family(self.model).template)

    def _batch(
        self: Any, images: Sequence[Any], questions: Sequence[str], decoders: Any, detectors: Any, system: str | None,
        seeds: list[int], generation: dict[str, Any],
    ) -> list[Answer]:  # fmt: skip
        began = time.perf_counter()
        procedure, alone = split(decoders)
        call = Call(self, alone, detectors, system, generation)
        if procedure is None:
            answers = told(self, call.generate(call.inputs(images, questions), seeds))
        else:
            answers = procedure.answers(call, images, questions, seeds)
        seconds = (time.perf_counter() - began) / len(images)
        for answer, question, seed in zip(answers, questions, seeds, strict=True):
            answer.seconds = seconds
            answer.settings = self.settings(question, decoders, detectors, system, {**generation, "seed": seed})
        return answers

    def settings(
        self: Any, question: str | Sequence[str], decoders: Any, detectors: Any, system: str | None,
        generation: dict[str, Any],
    ) -> dict[str, Any]:  # fmt: skip
        """Everything needed to repeat an answer, as plain values."""
        return {
            "model": self.name,
            "revision": self.revision,
            "dtype": str(self.dtype).removeprefix("torch."),
            "attention": self.attention_implementation,
            "quantization": self.quantization,
            "question": question,
            "system": system,
            "prompt": self._prompt(question, system),
            "decoders": [repr(d) for d in fitted(make_chain(decoders), self.name)],
            "detectors": [repr(d) for d in DETECTORS.make_all(detectors)],
            "generation": generation,
            "versions": versions(),
        }


def told(lvlm: Any, made: Any) -> list[Answer]:
    """A generation's rows as answers, without settings and seconds."""
    answers = []
    for row, text in enumerate(made.text):
        kept = [int(token) for token in made.ids[row] if token != lvlm.pad_token and token not in lvlm.end_tokens]
        acted = {name: {k: float(v[row]) for k, v in vars(acted).items()} for name, acted in made.acted.items()}
        risk = {name: values[row, : len(kept)].tolist() for name, values in made.risk.items()}
        pieces = [lvlm.processor.tokenizer.decode([token]) for token in kept]
        answers.append(Answer("", error=BROKEN) if made.broken[row] else Answer(text, pieces, risk, acted))
    return answers


def _read(images: Sequence[Any], errors: str) -> tuple[dict[int, Any], dict[int, Answer]]:
    """The images that can be used and an error row for each of the others, by place."""
    read: dict[int, Any] = {}
    failed: dict[int, Answer] = {}
    for place, image in enumerate(images):
        try:
            read[place] = passed_on(image)
        except BadImage as bad:
            if errors == "raise":
                raise
            failed[place] = Answer("", error=str(bad))
    return read, failed


def _many(images: Any) -> list[Any]:
    return list(images) if isinstance(images, list | tuple) else [images]
