"""Generate anew the sentences that a detector distrusts: a rule of this toolkit, of no paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from ...pipelines.inputs.text_alignment import risk_of, sentences
from ...pipelines.method import method, number
from ...pipelines.registry import DECODERS
from .by_risk import ByRisk, Part, answered, detector_field, joined, over_field, parts_of, threshold_field

if TYPE_CHECKING:
    from ...pipelines.model.layout import Layout
    from ...pipelines.procedures import Call
    from ...pipelines.results import Answer


@dataclass(frozen=True)
class Reask(ByRisk):
    """Ask once more for each sentence whose risk exceeds a threshold, after the text before it.

    The new sentence takes the old one's place if its risk, by `detector` and `over`, is not above `threshold` and it is
    not in the text already; otherwise the sentence is left out. Sentences behind it stay as they were. The request goes
    to `decoder`, in the place of the run's decoders, and with `temperature` above 0 its tokens are drawn, image by
    image with the image's own seed.

    Raises:
        UnknownName, ValueError: no such name, a threshold that is no number, or another `over`; when answering
            starts, beams.

    Cost: the texts once more for each round. In a round every text has its first risky sentence asked for again, all
    of them in one batch.
    """

    detector: Any = detector_field("lookback_lens")
    threshold: float | str = threshold_field('"inf" never asks again.')
    over: Literal["max", "mean"] = over_field()
    decoder: Any = method("vcd", DECODERS, "how the sentence is asked for again")
    temperature: float = number(0.0, "of the new sentence's tokens", "0 takes the likeliest token.")

    def fetch(self, lvlm: Layout) -> None:
        """Load now what the decoder needs beside the model, unless nothing is ever asked again."""
        needs = getattr(DECODERS.make(self.decoder), "fetch", None)
        if needs is not None and not self.is_neutral:
            needs(lvlm)

    def check(self, questions: Sequence[str], detectors: Sequence[Any], generation: Mapping[str, Any]) -> None:
        """Raise ValueError for beams, and for a detector of the same name with other settings."""
        super().check(questions, detectors, generation)
        if (generation.get("num_beams") or 1) > 1:
            raise ValueError("reask gives texts their beginning, which beams would leave: use num_beams=1")

    def answers(
        self, call: Call, images: Sequence[Any], questions: Sequence[str], seeds: Sequence[int]
    ) -> list[Answer]:
        call = self.reading(requested := call)
        again = replace(call, decoders=[DECODERS.make(self.decoder)])
        plain = answered(call, images, questions, seeds)
        drafts = [Draft(answer, ids, self) for answer, ids in plain]
        while risky := [row for row, draft in enumerate(drafts) if draft.risky()]:
            some = lambda values, risky=risky: [values[row] for row in risky]
            beginnings = [drafts[row].beginning for row in risky]
            new = answered(again, some(images), some(questions), some(seeds), beginnings, self.temperature)
            for row, (answer, ids) in zip(risky, new, strict=True):
                drafts[row].settle(answer, ids)
        return self.shown(requested, [answer for answer, _ in plain], [draft.answer() for draft in drafts])


class Draft:
    """A text whose sentences are settled one after another. at: the first that is not."""

    def __init__(self, answer: Answer, ids: Sequence[int], policy: Reask) -> None:
        self.first, self.policy, self.limit, self.at = answer, policy, policy.limit, 0
        self.parts = parts_of(answer, ids)
        self.changed = False

    def risky(self) -> bool:
        """Whether a sentence is left that is to be replaced; `at` is at it."""
        while self.at < len(self.parts) and not self.above(self.parts[self.at]):
            self.at += 1
        return self.at < len(self.parts)

    def above(self, part: Part) -> bool:
        return risk_of(part.risk[self.policy.reads], self.policy.over) > self.limit

    @property
    def beginning(self) -> list[int]:
        """Tokens of the settled sentences."""
        return [token for part in self.parts[: self.at] for token in part.ids]

    def settle(self, answer: Answer, ids: Sequence[int]) -> None:
        """Take the sentence that a text with this beginning goes on with, or leave the risky one out."""
        start, self.changed = len(self.beginning), True
        found = zip(sentences(answer.text, answer.tokens), parts_of(answer, ids), strict=True)
        new = next((part for sentence, part in found if sentence.first >= start), None)
        others = {part.text for part in self.parts[: self.at] + self.parts[self.at + 1 :]}
        if new is None or self.above(new) or new.text in others:
            del self.parts[self.at]
        else:
            self.parts[self.at] = new
            self.at += 1

    def answer(self) -> Answer:
        return joined(self.first, self.parts) if self.changed else self.first
