"""Caption, erase what the model itself does not see, and caption again: ProjectAway's procedure.

Jiang et al., "Interpreting and Editing Vision-Language Representations to Mitigate Hallucinations", ICLR 2025, arXiv
2410.02762.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ...pipelines.inputs.token_spans import Chair, mentions
from ...pipelines.method import count, method, number, ruled
from ...pipelines.registry import DETECTORS
from ..project_away import PAIRS, ProjectAway
from .by_risk import ByRisk, answered, risks_of

if TYPE_CHECKING:
    from ...pipelines.procedures import Call
    from ...pipelines.results import Answer

AGAIN = "caption"


def doubted(answer: Answer, chair: Chair, detector: str, threshold: float) -> tuple[str, ...]:
    """The words of the objects whose confidence is below a threshold, each once, in the order of the text.

    An object's confidence is the largest of its mentions', a mention's the smallest 1 − risk of its tokens.

    Raises:
        KeyError: the answer lacks that risk.
    """
    if answer.error is not None:
        return ()
    risks, found = risks_of(answer, detector), mentions(chair, answer.text, answer.tokens)
    confidence: dict[str, float] = {}
    for mention in (one for one in found if one.tokens):
        seen = min(1 - risks[token] for token in mention.tokens)
        confidence[mention.category] = max(seen, confidence.get(mention.category, seen))
    words = (one.word.lower() for one in found if confidence.get(one.category, threshold) < threshold)
    return tuple(dict.fromkeys(words))


@dataclass(frozen=True)
class Erase(ByRisk):
    """Caption, find objects with an internal confidence below `threshold`, erase them, and caption again.

    c(o) = max over the mentions of o of min over their tokens of 1 − risk, by the detector `by`; erased: c(o) < θ

    Objects are those that CHAIR reads (`synonyms`; by default the embedded world's vocabulary). What is erased are the
    words that the caption uses, with `ProjectAway` (`alpha`, `layer`, `text_layer`) in front of the run's decoders. An
    image without a doubted object keeps its caption. θ: `threshold`.

    Raises:
        UnknownName, ValueError: no such detector, or a value outside its range. FileNotFoundError: no synonym file.

    Cost: the caption once more for images with a doubted object. The paper's thresholds, from memory, are 0.2 (LLaVA)
    and 0.1 (InstructBLIP) and belong to `logit_lens`; it decodes with 5 beams, and its released captions start from
    OPERA's.
    """

    threshold: float = number(0.2, "θ, confidence below which an object is erased", "0 is plain. Paper: 0.2, 0.1.")
    alpha: float = number(1.5, "strength of the erasure", "Demo: 1.5. Paper: 1.5, 3.5.")
    layer: int = count(2, "0-based block whose output is edited", "Demo: 2. Paper: 19 LLaVA-1.5, 1 InstructBLIP.")
    text_layer: int = count(0, "0-based block whose output is a word's direction", "-1: the word's embeddings.", -1)
    again: str = ruled(AGAIN, "the second request", 'a text; "caption" is the first one again')
    by: Any = method("logit_lens", DETECTORS, "whose risk says what the model does not see")
    synonyms: str | None = ruled(None, "CHAIR's synonym file", "a path", "None is the embedded world's vocabulary.")

    neutral = {"threshold": 0}
    released = {}
    by_model = {
        "instructblip-vicuna-7b": {"threshold": 0.1, **PAIRS["instructblip-vicuna-7b"]},
        r"llava-v?1\.5-7b": PAIRS[r"llava-v?1\.5-7b"],
    }

    def validate(self) -> None:
        if not isinstance(self.again, str) or not self.again.strip():
            raise ValueError(f'again={self.again!r} is no request: give a text, or "{AGAIN}" for the first one again.')

    @property
    def guide(self) -> Any:
        return DETECTORS.make(self.by)

    def check(self, questions: Sequence[str], detectors: Sequence[Any], generation: Mapping[str, Any]) -> None:
        """Raise ValueError for a detector of the same name with other settings, or for a vocabulary that is no use."""
        super().check(questions, detectors, generation)
        Chair(self.synonyms).parse("A dog.")

    def answers(
        self, call: Call, images: Sequence[Any], questions: Sequence[str], seeds: Sequence[int]
    ) -> list[Answer]:
        first = [answer for answer, _ in answered(self.reading(call), images, questions, seeds)]
        chair = Chair(self.synonyms)
        objects = [doubted(answer, chair, self.reads, self.threshold) for answer in first]
        rows, out = [row for row, words in enumerate(objects) if words], list(first)
        if rows:
            some = lambda values: [values[row] for row in rows]
            away = ProjectAway(tuple(some(objects)), self.alpha, self.layer, self.text_layer)
            requests = some(questions) if self.again == AGAIN else [self.again] * len(rows)
            again = answered(replace(call, decoders=[away, *call.decoders]), some(images), requests, some(seeds))
            for row, (answer, _) in zip(rows, again, strict=True):
                out[row] = answer
        shown = self.shown(call, first, out)
        for answer, words in zip(shown, objects, strict=True):
            answer.acted[self.registered] |= {"acted": float(bool(words)), "erased": float(len(words))}
        return shown
