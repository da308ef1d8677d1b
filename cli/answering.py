"""Answers about a few images, printed image by image: what `veridical caption` and `veridical answer` share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import typer

from ..pipelines.model.spec import ModelSpec, load
from .errors import hush_transformers, notes

if TYPE_CHECKING:
    from ..flows.gating.choice import Choice


@dataclass(frozen=True)
class Questioning:
    """One question about every image.

    decoders: an answer by each; None is plain decoding. calibrations: as `LVLM`'s. choice: of a budget of time, where
    the one decoder comes from it.
    """

    model: ModelSpec
    question: str
    system: str | None
    decoders: Sequence[str] | None
    detectors: Sequence[str] | None
    batch_size: int
    seed: int
    generation: Mapping[str, Any]
    calibrations: str | None = None
    choice: Choice | None = None


def print_answers(images: Sequence[str], request: Questioning, as_json: bool) -> None:
    """Answer with every decoder, and print image by image; exit with 1 if some of several images cannot be used.

    Raises:
        UnknownName, ValueError: methods that do not exist. BadImage: the only image cannot be used.
    """
    decoders, detectors = list(dict.fromkeys(request.decoders or ["greedy"])), list(request.detectors or [])
    from ..flows.files.progress import progress
    from ..pipelines.chain import chain
    from ..pipelines.inputs.images import read_image
    from ..pipelines.registry import DETECTORS
    from ..pipelines.risk.calibration import check_folder
    from .render.answers import answers as show
    from .render.answers import json_line

    with notes():
        chains = {name: chain(name, request.model.name) for name in decoders}
        DETECTORS.make_all(detectors)
    if len(images) == 1:
        read_image(images[0])  # fail at once
    hush_transformers()
    with notes():
        if request.calibrations is not None:
            check_folder(request.calibrations)
        lvlm = replace(load(request.model), calibrations=request.calibrations)
    bad, size, acted = 0, request.batch_size, []
    with notes(), progress("answers", len(images) * len(decoders), "images", passing=True) as advance:
        for start in range(0, len(images), size):
            part = list(images[start : start + size])
            answers: dict[str, Any] = {}
            for name, methods in chains.items():
                answers[name] = lvlm.answer(
                    part, request.question, methods, detectors, system=request.system,
                    batch_size=size, errors="row", seed=request.seed + start, **request.generation,
                )  # fmt: skip
                advance(len(part))
                acted += [answer.acted for answer in answers[name]]
            for place, image in enumerate(part):
                by_decoder = {name: answered[place] for name, answered in answers.items()}
                bad += any(answer.error is not None for answer in by_decoder.values())
                if as_json:
                    for name, answer in by_decoder.items():
                        json_line(image, name, answer)
                else:
                    show(image, by_decoder, alone=len(images) == len(decoders) == 1)
    if request.choice is not None:
        typer.echo(f"note: {request.choice.paid(acted)}", err=True)
    if bad:
        typer.echo(f"Error: {bad} of {len(images)} images could not be used.", err=True)
        raise typer.Exit(1)
