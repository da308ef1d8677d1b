"""What a user holds: captions, answers and generation of one vision-language model, for one image or many."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from . import compatibility
from .arguments import check_options, check_prompt, check_questions, check_whole
from .chain import make_chain, name_of, split
from .checks import seeds_of
from .generate import Call, generate, only_once
from .inputs import lengths
from .inputs.images import BadImage, many_images, passed_on
from .inputs.prepare import prepare, prompt_of
from .inputs.prompts import DETAIL, caption_prompt
from .model.embedded import warn_of_photos
from .model.layout import Layout
from .registry import DETECTORS
from .results import BROKEN, Answer, BrokenLogits, Generation, answers_of, versions
from .risk.asking import ask, parted
from .risk.calibration import add_probabilities

MAX_NEW_TOKENS = 128
ARGUMENTS = ("images", "questions", "prompt", "decoders", "detectors", "system", "batch_size", "errors", "seed")


@dataclass(frozen=True)
class LVLM(Layout):
    """A vision-language model of transformers and its processor. Changes nothing in either.

    Arguments and errors as `Layout`. calibrations: a folder with calibrations of detectors for this model, as
    `veridical calibrate-detectors` writes it; with them answers hold probabilities beside risks.
    """

    calibrations: str | None = None

    def caption(
        self, images: Any, decoders: Any = (), detectors: Any = (), prompt: str = DETAIL, **options: Any
    ) -> list[Answer]:
        """Describe images. Arguments as in `answer`, with one prompt for all: a text, or a paper's such as "@vista"."""
        images = many_images(images)
        text = caption_prompt(check_prompt(prompt, DETAIL))
        return self.answer(images, [text] * len(images), decoders, detectors, **options)

    def answer(
        self, images: Any, questions: Any, decoders: Any = (), detectors: Any = (), system: str | None = None,
        batch_size: int = 8, errors: str = "raise", seed: int | Sequence[int] = 0, **generation: Any,
    ) -> list[Answer]:  # fmt: skip
        """Answer one question per image.

        Args:
            images: path, PIL image or array, one or many. questions: as many, or one for all. One may be a tuple of
                turns instead: the user's, the model's, …, and last the user's.
            decoders: names, "name:field=value", or instances; a procedure may stand in front (see `procedures`).
            detectors: likewise.
            batch_size: images at a time, those of like prompt length together; answers come in the images' order.
            errors: "raise", or "row": a bad image becomes an Answer with `error`, the others go on.
            seed: image i is sampled with seed + i, whatever the batches are; or one number for each image.
            generation: what transformers' generate takes; max_new_tokens is 128 where it is not given.

        Raises:
            BadImage: an image that cannot be used, with errors="raise".
            BrokenLogits: logits that are no numbers, with errors="raise".
            ValueError: no processor, a number of questions that fits neither one nor all, an option outside its range,
                or something that a procedure cannot do. TypeError: an unknown argument.
        Warns:
            NotItsWorld: the embedded model is given an image that is none of its scenes.
        """
        if self.processor is None:
            raise ValueError(
                f"{self.name} has no processor, which builds prompts and reads images; load it from a folder that has "
                "one, or prepare the inputs yourself and call veridical.generate"
            )
        if errors not in ("raise", "row"):
            raise ValueError(f"errors={errors!r} is neither 'raise' nor 'row'")
        check_options(generation, ARGUMENTS)
        check_whole("batch_size", batch_size, 1)
        images = many_images(images)
        questions, seeds = check_questions(questions, len(images)), seeds_of(seed, len(images), "image")
        decoders, detectors = make_chain(decoders, self.name), DETECTORS.make_all(detectors)
        generation = {"do_sample": False, "max_new_tokens": MAX_NEW_TOKENS, **generation}
        if (procedure := split(decoders)[0]) is not None:
            compatibility.refuse(decoders)
            if not all(isinstance(question, str) for question in questions):
                raise ValueError(f"{name_of(procedure)} asks single questions, no conversation of several turns")
            procedure.check(questions, detectors, generation)
        call = Call(self, split(decoders)[1], only_once(detectors), system, generation)
        out: list[Answer] = [Answer("")] * len(images)
        photos = False
        for part in self._batches(images, questions, batch_size):
            read, failed = _read([images[index] for index in part], errors)
            good = [part[offset] for offset in read]
            photos = photos or warn_of_photos(self, read.values())
            answered: Iterator[Answer] = iter(())
            if good:
                batch = [questions[index] for index in good], [seeds[index] for index in good]
                answered = iter(self._batch(call, procedure, list(read.values()), *batch))
            for k, index in enumerate(part):
                out[index] = failed[k] if k in failed else next(answered)
            if errors == "raise" and any(out[index].error == BROKEN for index in part):
                raise BrokenLogits(BROKEN)
        return out

    def generate(
        self, inputs: Mapping[str, Tensor], decoders: Any = (), detectors: Any = (), **options: Any
    ) -> Generation:
        """`veridical.generate` with this model: decode rows that `prepare` or a processor has made."""
        return generate(self, inputs, decoders, detectors, **options)

    def prepare(
        self, images: Sequence[Any], questions: Sequence[str | Sequence[str]], system: str | None = None
    ) -> dict[str, Tensor]:
        """Rows for `generate`: one question each, left-padded, on the model's device.

        images: one for each question, or a list of several images that it is about.
        """
        images = many_images(images)
        rows = prepare(self, images, check_questions(questions, len(images)), system)
        warn_of_photos(self, images)
        return rows

    def prompt(self, question: str | Sequence[str], system: str | None = None, images: int = 1) -> str:
        """The exact prompt of one question, or of a conversation's turns, about one or more images."""
        return prompt_of(self, question, system, images)

    def settings(
        self, question: str | Sequence[str], decoders: Any, detectors: Any, system: str | None,
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
            "prompt": self.prompt(question, system),
            "decoders": [repr(d) for d in make_chain(decoders, self.name)],
            "detectors": [repr(d) for d in DETECTORS.make_all(detectors)],
            "generation": generation,
            "versions": versions(),
        }

    def _batches(self, images: Sequence[Any], questions: Sequence[Any], size: int) -> list[list[int]]:
        """The places of each batch: prompts of like length together, so that little is padded."""
        if len(images) <= size:
            return [list(range(len(images)))] if images else []
        found = lengths.lengths(self.processor, images, questions)
        return lengths.batches(found, [lengths.same(image) for image in images], size)

    def _batch(
        self, call: Call, procedure: Any, images: Sequence[Any], questions: Sequence[Any], seeds: Sequence[int]
    ) -> list[Answer]:
        began = time.perf_counter()
        reading, asking = parted(call.detectors)
        along = replace(call, detectors=reading)
        if procedure is None:
            answers = answers_of(self, along.generate(along.inputs(images, questions), seeds))
        else:
            answers = procedure.answers(along, images, questions, seeds)
        ask(along, asking, images, questions, answers, seeds)
        chain = [*([] if procedure is None else [procedure]), *call.decoders]
        add_probabilities(self, chain, call.detectors, call.generation, answers)
        seconds = (time.perf_counter() - began) / len(images)
        for answer, question, seed in zip(answers, questions, seeds, strict=True):
            answer.seconds = seconds
            generation = {**call.generation, "seed": seed}
            answer.settings = self.settings(question, chain, call.detectors, call.system, generation)
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
