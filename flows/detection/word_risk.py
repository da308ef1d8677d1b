"""Texts about images with the risk of every word, written by the model or given; and which words stand out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .words import Word, words

LIKELY = 0.5  # of risks that are probabilities
RISKIEST = 0.8  # of other risks: the quantile above which words stand out


@dataclass(frozen=True)
class Rated:
    """A text and what each detector says of it.

    words: detector -> the words with their risk. whole: detector -> the risk of the text as one answer. thresholds:
    detector -> the risk from which on a word stands out.
    """

    text: str
    words: dict[str, list[Word]] = field(default_factory=dict)
    whole: dict[str, float] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)

    def marked(self, detector: str) -> list[Word]:
        """The words that stand out."""
        high = self.thresholds[detector]
        return [word for word in self.words[detector] if word.risk is not None and word.risk >= high]


def threshold(risks: Sequence[float | None], probability: bool) -> float:
    """½ for probabilities; otherwise the risk above which the riskiest fifth lies.

    >>> threshold([0.1, 0.2, 0.9], True), threshold([-3.0, -2.0, -1.0, None], False)
    (0.5, -1.0)
    """
    if probability:
        return LIKELY
    known = sorted(risk for risk in risks if risk is not None and not math.isnan(risk))
    return known[math.ceil(RISKIEST * (len(known) - 1))] if known else math.inf


def rate(
    lvlm: Any, image: Any, question: str, detectors: Sequence[str], text: str | None = None, high: float | None = None,
    max_new_tokens: int = 128,
) -> Rated:  # fmt: skip
    """Let the model answer a question about an image, or take a text as its answer, and rate every word.

    high: the risk from which on a word stands out; None is `threshold`'s.

    Raises:
        BadImage: an image that cannot be used. ValueError: an empty text, or a detector that does not fit the model.
    """
    from ...pipelines.generate import generate, ready, real, score
    from ...pipelines.inputs.text_alignment import answer_tokens

    made = dict(zip(detectors, ready(list(detectors), lvlm), strict=True))
    inputs = lvlm.prepare([image], [question])
    if text is None:
        ids = generate(lvlm, inputs, max_new_tokens=max_new_tokens, do_sample=False).ids
    else:
        ids = answer_tokens(lvlm, question, text)
    count = int(real(ids, lvlm.end_tokens).sum())
    shown = [int(token) for token in ids[0, :count] if int(token) not in lvlm.end_tokens]
    tokenizer = lvlm.processor.tokenizer
    said = tokenizer.decode(shown, skip_special_tokens=True).strip()
    pieces = [tokenizer.decode([token]) for token in shown]
    out = Rated(said)
    for name, detector in made.items():
        (risks,) = score(lvlm, inputs, ids, [detector]).values()
        told = risks[0, :count].tolist()
        out.words[name] = words(said, pieces, told[: len(shown)])
        last = getattr(detector, "decides_at", "first") == "last"
        out.whole[name] = told[-1 if last else 0]
        probability = bool(getattr(detector, "is_probability", False))
        known = [word.risk for word in out.words[name]]
        out.thresholds[name] = threshold(known, probability) if high is None else high
    return out
