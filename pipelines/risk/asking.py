"""Detectors that ask the model again about a finished answer, such as agreement among further samples.

Such a detector has, beside the fields of every detector,

    asks(call, images, questions, answers, seeds) -> list[Tensor]

the risk of each token of each answer, (token,). `call` is the procedures': the run's own decoders and decoding, without
detectors. It may leave what it found in `answer.details` under its name. An answer's risk depends neither on the other
answers of the batch nor on their order. It declares no readings, and `score` has nothing to go by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..registry import DETECTORS

if TYPE_CHECKING:
    from ..results import Answer


def asks(detector: Any) -> bool:
    """Whether a detector asks the model again."""
    return callable(getattr(detector, "asks", None))


def refuse_asking(detectors: Sequence[Any], where: str) -> None:
    """Raise ValueError for the first detector that asks again, in a place that has no finished answer or no image."""
    for one in detectors:
        if asks(one):
            raise ValueError(
                f"{DETECTORS.name_of(one)} asks the model again about a finished answer, its image and its question, "
                f"which {where} has not: take it in caption, answer, detect or evaluate."
            )


def parted(detectors: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """(those that read along, those that ask again), each in its order."""
    return [one for one in detectors if not asks(one)], [one for one in detectors if asks(one)]


def ask(
    call: Any, detectors: Sequence[Any], images: Sequence[Any], questions: Sequence[Any], answers: Sequence[Answer],
    seeds: Sequence[int],
) -> None:  # fmt: skip
    """Add the risks of detectors that ask again to answers; an answer without a text gets none. call: a `Call`.

    Raises:
        ValueError: a detector that cannot judge one of the answers.
    """
    good = [place for place, answer in enumerate(answers) if answer.error is None]
    if not good:
        return
    silent = replace(call, detectors=())
    of = lambda values: [values[place] for place in good]
    for detector in detectors:
        name = DETECTORS.name_of(detector)
        found = detector.asks(silent, of(images), of(questions), of(answers), of(seeds))
        for answer, risk in zip(of(answers), found, strict=True):
            answer.risk[name] = [float(value) for value in risk]
