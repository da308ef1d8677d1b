"""The risk of every word of a text about an image, generated or given; and which words stand out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ...pipelines.inputs.words import Word, threshold, words


# -- a text by detectors ----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Rated:
    """A text and its risks by each detector.

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


def rate(
    lvlm: Any, image: Any, question: str, detectors: Sequence[str], text: str | None = None, high: float | None = None,
    max_new_tokens: int = 128,
) -> Rated:  # fmt: skip
    """The model's answer to a question about an image, or a given text as its answer, with the risk of every word.

    high: the risk from which on a word stands out; None is the detector's own for given texts, else `threshold`'s.

    Raises:
        BadImage: an image that cannot be used. ValueError: an empty text, or a detector that does not fit the model.
    """
    from ...pipelines.generate import generate, real, score
    from ...pipelines.inputs.text_alignment import answer_tokens
    from ...pipelines.procedures import Call
    from ...pipelines.registry import DETECTORS
    from ...pipelines.results import Answer
    from ...pipelines.risk.asking import ask, asks

    instances = {name: _ready(DETECTORS.make(name), lvlm) for name in detectors}
    inputs = lvlm.prepare([image], [question])
    if text is None:
        ids = generate(lvlm, inputs, max_new_tokens=max_new_tokens, do_sample=False).ids
    else:
        ids = answer_tokens(lvlm, question, text)
    count = int(real(ids, lvlm.end_tokens).sum())
    shown = [int(token) for token in ids[0, :count] if int(token) not in lvlm.end_tokens]
    tokenizer = lvlm.processor.tokenizer
    answer = tokenizer.decode(shown, skip_special_tokens=True).strip()
    pieces = [tokenizer.decode([token]) for token in shown]
    out, call = Rated(answer), Call(lvlm, (), (), None, {"do_sample": False, "max_new_tokens": max_new_tokens})
    for name, detector in instances.items():
        if asks(detector):
            whole = Answer(answer, pieces)
            ask(call, [detector], [image], [question], [whole], [0])
            (risks,) = whole.risk.values()
        else:
            (found,) = score(lvlm, inputs, ids, [detector]).values()
            risks = found[0, :count].tolist()
        out.words[name] = words(answer, pieces, risks[: len(shown)])
        last = getattr(detector, "decides_at", "first") == "last"
        out.whole[name] = risks[-1 if last else 0]
        probability = bool(getattr(detector, "is_probability", False))
        known = [word.risk for word in out.words[name]]
        own = None if text is None else getattr(detector, "text_threshold", None)
        chosen = threshold(known, probability) if own is None else own
        out.thresholds[name] = chosen if high is None else high
    return out


def _ready(detector: Any, lvlm: Any) -> Any:
    """With what it needs to know of the model; one that asks again takes it from its call."""
    from ...pipelines.generate import ready
    from ...pipelines.risk.asking import asks

    return detector if asks(detector) else ready([detector], lvlm)[0]
