"""What to do with a text that a detector distrusts: flip an answer, drop a sentence, or ask for it again.

As functions of finished answers (`flip`, `drop`), and as procedures that ask for the risk themselves, wherever a
decoder is named: "flip:detector='dhcp',threshold=0.5", "drop:…", "reask:…".

Flipping: Zhang et al., "DHCP: Detecting Hallucinations by Cross-modal Attention Pattern in LVLMs", ACM MM 2025,
arXiv 2411.18659.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from ...pipelines.checks import check_choice, check_threshold
from ...pipelines.engine.forced import Forced
from ...pipelines.inputs.text_alignment import Sentence, risk_of, sentences
from ...pipelines.registry import DECODERS, DETECTORS

if TYPE_CHECKING:
    from ...pipelines.lvlm import LVLM
    from ...pipelines.procedures import Call
    from ...pipelines.results import Answer

OVER = ("max", "mean")
YES_NO = re.compile(r"\W*\b(yes|no)\b", re.IGNORECASE)


def flip(answers: Sequence[Answer], detector: str, threshold: float) -> list[Answer]:
    """Turn every yes or no around whose risk exceeds the threshold; leave all else as it is.

    The risk is that of the token that says yes or no. What follows the word would contradict the other one and is left
    out. An answer that starts with neither stays.

    Args:
        detector: the name of a risk that the answers have.

    Raises:
        KeyError: an answer lacks it.
    """
    out = []
    for answer in answers:
        match, at = YES_NO.match(answer.text), _deciding(answer.tokens)
        if answer.error or match is None or at is None or not _risks(answer, detector)[at] > threshold:
            out.append(answer)
            continue
        said = match[1]
        other = {"yes": "no", "no": "yes"}[said.lower()]
        other = other.upper() if said.isupper() else other.capitalize() if said[0].isupper() else other
        stop = "." if answer.text.strip() != said else ""
        kept = {name: [values[at]] for name, values in answer.risk.items()}
        out.append(replace(answer, text=other + stop, tokens=[other + stop], risk=kept))
    return out


def drop(
    answers: Sequence[Answer], detector: str, threshold: float, over: Literal["max", "mean"] = "max"
) -> list[Answer]:
    """Leave out every sentence whose risk exceeds the threshold, even if nothing is left.

    Args:
        detector: the name of a risk that the answers have. over: the risk of a sentence: its riskiest token, or mean.

    Raises:
        KeyError: an answer lacks it.
    """
    out = []
    for answer in answers:
        if answer.error is None:
            _risks(answer, detector)
        parts = _parts(answer)
        good = [part for part in parts if not risk_of(part.risk[detector], over) > threshold]
        out.append(answer if len(good) == len(parts) else _joined(answer, good))
    return out


class _Policy:
    """What the three have in common: whose risk they go by, and the plain answers with it."""

    detector: Any
    threshold: float | str
    paper: ClassVar[str] = "–"
    differs: ClassVar[str] = ""

    def __post_init__(self) -> None:
        DETECTORS.make(self.detector)
        limit = check_threshold(self.threshold)
        object.__setattr__(self, "threshold", self.threshold if abs(limit) < float("inf") else str(limit))
        check_choice("over", getattr(self, "over", "max"), OVER, "whose risk a sentence has")

    def check(self, questions: Sequence[str], detectors: Sequence[Any], generation: Mapping[str, Any]) -> None:
        """Raise ValueError for a detector of the same name with other settings."""
        mine = DETECTORS.make(self.detector)
        if any(type(one) is type(mine) and one != mine for one in detectors):
            raise ValueError(f"{mine!r} decides: let the same detector read along with the same settings")

    @property
    def name(self) -> str:
        """Under which the detector's risk stands."""
        return DETECTORS.name_of(DETECTORS.make(self.detector))

    def reading(self, call: Call) -> Call:
        """The call with the deciding detector beside those asked for."""
        mine = DETECTORS.make(self.detector)
        others = [one for one in DETECTORS.make_all(call.detectors) if one != mine]
        return replace(call, detectors=[*others, mine])

    def shown(self, call: Call, before: Sequence[Answer], after: Sequence[Answer], name: str) -> list[Answer]:
        """With what was done, and without a risk that nobody asked for."""
        asked = {DETECTORS.name_of(one) for one in DETECTORS.make_all(call.detectors)}
        out = []
        for old, new in zip(before, after, strict=True):
            changed = float(old.text != new.text)
            acted = {name: {"steps": 1.0, "acted": changed, "flipped": changed, "kl": 0.0}, **new.acted}
            risk = {key: values for key, values in new.risk.items() if key in asked}
            out.append(replace(new, acted=acted, risk=risk))
        return out


@dataclass(frozen=True)
class Flip(_Policy):
    """Turn a yes or no around where its risk exceeds a threshold.

    Args:
        detector: whose risk: a name, "name:field=value,…", or an instance.
        threshold: in the detector's units; "inf" never flips. DHCP: its probability 0.5, as done by others after it.

    Raises:
        UnknownName, ValueError: no such detector, or a threshold that is no number.
    """

    detector: Any = "dhcp"
    threshold: float | str = 0.5

    paper: ClassVar[str] = "arXiv 2411.18659"
    changes: ClassVar[str] = "a yes or no whose risk is high"
    cost: ClassVar[str] = "its detector's"

    def answers(
        self, call: Call, images: Sequence[Any], questions: Sequence[str], seeds: Sequence[int]
    ) -> list[Answer]:
        said = [answer for answer, _ in _answers(self.reading(call), images, questions, seeds)]
        return self.shown(call, said, flip(said, self.name, check_threshold(self.threshold)), "flip")


@dataclass(frozen=True)
class Drop(_Policy):
    """Leave out the sentences whose risk exceeds a threshold.

    Args:
        detector: whose risk: a name, "name:field=value,…", or an instance.
        threshold: in the detector's units; "inf" never drops.
        over: the risk of a sentence: the "max" or "mean" of its tokens'.

    Raises:
        UnknownName, ValueError: no such detector, a threshold that is no number, or another `over`.

    It shortens texts and so lowers recall: compare at equal length. A text of which every sentence is dropped is "".
    """

    detector: Any = "lookback_lens"
    threshold: float | str = 0.5
    over: Literal["max", "mean"] = "max"

    changes: ClassVar[str] = "leaves out sentences whose risk is high"
    cost: ClassVar[str] = "its detector's"

    def answers(
        self, call: Call, images: Sequence[Any], questions: Sequence[str], seeds: Sequence[int]
    ) -> list[Answer]:
        said = [answer for answer, _ in _answers(self.reading(call), images, questions, seeds)]
        return self.shown(call, said, drop(said, self.name, check_threshold(self.threshold), self.over), "drop")


@dataclass(frozen=True)
class Reask(_Policy):
    """Ask once more for each sentence whose risk exceeds a threshold, after the text before it.

    The new sentence takes the old one's place if its risk is not above the threshold and it is not in the text
    already; otherwise the sentence is left out. Sentences behind it stay as they were.

    Args:
        detector: whose risk: a name, "name:field=value,…", or an instance.
        threshold: in the detector's units; "inf" never asks again.
        over: the risk of a sentence: the "max" or "mean" of its tokens'.
        decoder: how the sentence is asked for again, in the place of the run's decoders.
        temperature: above 0 draws its tokens, image by image with the image's own seed; 0 takes the likeliest.

    Raises:
        UnknownName, ValueError: no such name, a threshold that is no number, or another `over`; when asked, beams.

    Cost: the texts once more for each round. In a round every text has its first risky sentence asked for again, all
    of them in one batch.
    """

    detector: Any = "lookback_lens"
    threshold: float | str = 0.5
    over: Literal["max", "mean"] = "max"
    decoder: Any = "vcd"
    temperature: float = 0.0

    changes: ClassVar[str] = "asks once more for sentences whose risk is high"
    cost: ClassVar[str] = "its detector's, and the text again for each such sentence"

    def __post_init__(self) -> None:
        super().__post_init__()
        DECODERS.make(self.decoder)
        if not isinstance(self.temperature, int | float) or not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature={self.temperature!r} is not 0 or above (0 takes the likeliest token).")

    def fetch(self, lvlm: LVLM) -> None:
        """Load now what the decoder needs beside the model, unless nothing is ever asked again."""
        needs = getattr(DECODERS.make(self.decoder), "fetch", None)
        if needs is not None and check_threshold(self.threshold) != float("inf"):
            needs(lvlm)

    def check(self, questions: Sequence[str], detectors: Sequence[Any], generation: Mapping[str, Any]) -> None:
        """Raise ValueError for beams, and for a detector of the same name with other settings."""
        super().check(questions, detectors, generation)
        if (generation.get("num_beams") or 1) > 1:
            raise ValueError("reask gives texts their beginning, which beams would leave: use num_beams=1")

    def answers(
        self, call: Call, images: Sequence[Any], questions: Sequence[str], seeds: Sequence[int]
    ) -> list[Answer]:
        call = self.reading(asked := call)
        again = replace(call, decoders=[DECODERS.make(self.decoder)])
        said = _answers(call, images, questions, seeds)
        drafts = [_Draft(answer, ids, self) for answer, ids in said]
        while risky := [row for row, draft in enumerate(drafts) if draft.risky()]:
            some = lambda values, risky=risky: [values[row] for row in risky]
            new = _answers(again, some(images), some(questions), some(seeds), some(drafts), self.temperature)
            for row, (answer, ids) in zip(risky, new, strict=True):
                drafts[row].settle(answer, ids)
        return self.shown(asked, [answer for answer, _ in said], [draft.answer() for draft in drafts], "reask")


# -- helpers -------------------------------------------------------------------------------------------------------
class _Part(NamedTuple):
    """A sentence with all that belongs to it."""

    text: str
    tokens: list[str]
    ids: list[int]
    risk: dict[str, list[float]]


class _Draft:
    """A text whose sentences are settled one after another. at: the first that is not."""

    def __init__(self, answer: Answer, ids: Sequence[int], policy: Reask) -> None:
        self.first, self.policy, self.limit, self.at = answer, policy, check_threshold(policy.threshold), 0
        self.parts = _parts(answer, ids)
        self.changed = False

    def risky(self) -> bool:
        """Whether a sentence is left to ask for again; `at` is at it."""
        while self.at < len(self.parts) and not self.above(self.parts[self.at]):
            self.at += 1
        return self.at < len(self.parts)

    def above(self, part: _Part) -> bool:
        return risk_of(part.risk[self.policy.name], self.policy.over) > self.limit

    @property
    def beginning(self) -> list[int]:
        """Tokens of the settled sentences."""
        return [token for part in self.parts[: self.at] for token in part.ids]

    def settle(self, answer: Answer, ids: Sequence[int]) -> None:
        """Take the sentence that a text with this beginning goes on with, or leave the risky one out."""
        given, self.changed = len(self.beginning), True
        new = next((p for s, p in zip(_spans(answer), _parts(answer, ids), strict=True) if s.first >= given), None)
        others = {part.text for part in self.parts[: self.at] + self.parts[self.at + 1 :]}
        if new is None or self.above(new) or new.text in others:
            del self.parts[self.at]
        else:
            self.parts[self.at] = new
            self.at += 1

    def answer(self) -> Answer:
        return _joined(self.first, self.parts) if self.changed else self.first


def _answers(
    call: Call, images: Sequence[Any], questions: Sequence[str], seeds: Sequence[int],
    drafts: Sequence[_Draft] = (), temperature: float = 0.0,
) -> list[tuple[Answer, list[int]]]:  # fmt: skip
    """What the call says, with its tokens' ids; with drafts, what it says after each one's beginning."""
    from ...pipelines.results import answers_of, words_of

    changes: dict[str, Any] = {}
    if drafts:
        own = call.generation.get("logits_processor", ())
        changes = {"logits_processor": [*own, Forced([draft.beginning for draft in drafts])], "do_sample": False}
    if drafts and temperature:
        changes |= {"do_sample": True, "temperature": temperature, "top_p": 1.0, "top_k": 0}
    made = call.generate(call.inputs(images, questions), seeds, **changes)
    ids = [words_of(call.lvlm, row) for row in made.ids.tolist()]
    return list(zip(answers_of(call.lvlm, made), ids, strict=True))


def _spans(answer: Answer) -> list[Sentence]:
    return sentences(answer.text, answer.tokens)


def _parts(answer: Answer, ids: Sequence[int] = ()) -> list[_Part]:
    return [
        _Part(
            part.text, answer.tokens[part.first : part.last], list(ids[part.first : part.last]),
            {name: list(values[part.first : part.last]) for name, values in answer.risk.items()},
        )
        for part in _spans(answer)
    ]  # fmt: skip


def _joined(answer: Answer, parts: Sequence[_Part]) -> Answer:
    """The answer with these sentences for its text."""
    return replace(
        answer, text=" ".join(part.text for part in parts), tokens=[token for part in parts for token in part.tokens],
        risk={name: [risk for part in parts for risk in part.risk[name]] for name in answer.risk},
    )  # fmt: skip


def _risks(answer: Answer, detector: str) -> list[float]:
    if detector not in answer.risk:
        known = ", ".join(answer.risk) or "none"
        raise KeyError(f"no risk {detector!r} with this answer; there are: {known}. Ask with detectors=[{detector!r}].")
    return answer.risk[detector]


def _deciding(tokens: Sequence[str]) -> int | None:
    """The first token with a letter: the one that begins the word."""
    return next((at for at, token in enumerate(tokens) if any(map(str.isalpha, token))), None)
