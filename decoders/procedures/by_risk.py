"""What flip, drop and reask share: the detector whose risk counts, and the sentences of an answer with their risks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from ...pipelines.checks import check_threshold
from ...pipelines.engine.logits import Forced
from ...pipelines.inputs.text_alignment import sentences
from ...pipelines.method import method, one_of, ruled
from ...pipelines.procedures import Procedure
from ...pipelines.registry import DETECTORS
from ...pipelines.results import answers_of, words_of
from ...pipelines.risk.asking import ask, parted

if TYPE_CHECKING:
    from ...pipelines.procedures import Call
    from ...pipelines.results import Answer

OVER = ("max", "mean")


def detector_field(default: str) -> Any:
    """Whose risk counts."""
    return method(default, DETECTORS, "whose risk counts")


def threshold_field(never: str) -> Any:
    """A threshold in the detector's units; infinities are kept as words."""

    def kept(name: str, value: Any) -> float | str:
        limit = check_threshold(value)
        return value if abs(limit) < float("inf") else str(limit)

    return ruled(0.5, "risk above which something is done", "a number in the detector's units", never, kept)


def over_field() -> Any:
    """The risk of a sentence."""
    return one_of(OVER, "the risk of a sentence: the largest or the mean of its tokens'")


class ByRisk(Procedure):
    """A procedure that goes by the risk of one detector."""

    detector: Any
    threshold: float | str
    neutral = {"threshold": "inf"}

    @property
    def limit(self) -> float:
        """The threshold as a number."""
        return check_threshold(self.threshold)

    @property
    def guide(self) -> Any:
        """The detector as an instance."""
        return DETECTORS.make(self.detector)

    @property
    def reads(self) -> str:
        """The name of the detector's risk."""
        return DETECTORS.name_of(self.guide)

    def check(self, questions: Sequence[str], detectors: Sequence[Any], generation: Mapping[str, Any]) -> None:
        """Raise ValueError for a detector of the same name with other settings."""
        mine = self.guide
        if any(type(one) is type(mine) and one != mine for one in detectors):
            raise ValueError(f"{mine!r} decides: let the same detector read along with the same settings")

    def reading(self, call: Call) -> Call:
        """The call with the deciding detector beside those that were requested."""
        mine = self.guide
        others = [one for one in DETECTORS.make_all(call.detectors) if one != mine]
        return replace(call, detectors=[*others, mine])

    def shown(self, call: Call, before: Sequence[Answer], after: Sequence[Answer]) -> list[Answer]:
        """With what was done, and without a risk that was not requested."""
        requested = {DETECTORS.name_of(one) for one in DETECTORS.make_all(call.detectors)}
        out = []
        for old, new in zip(before, after, strict=True):
            changed = float(old.text != new.text)
            acted = {self.registered: {"steps": 1.0, "acted": changed, "flipped": changed, "kl": 0.0}, **new.acted}
            risk = {key: values for key, values in new.risk.items() if key in requested}
            out.append(replace(new, acted=acted, risk=risk))
        return out


class Part(NamedTuple):
    """A sentence with all that belongs to it."""

    text: str
    tokens: list[str]
    ids: list[int]
    risk: dict[str, list[float]]


def parts_of(answer: Answer, ids: Sequence[int] = ()) -> list[Part]:
    return [
        Part(
            part.text, answer.tokens[part.first : part.last], list(ids[part.first : part.last]),
            {name: list(values[part.first : part.last]) for name, values in answer.risk.items()},
        )
        for part in sentences(answer.text, answer.tokens)
    ]  # fmt: skip


def joined(answer: Answer, parts: Sequence[Part]) -> Answer:
    """The answer with these sentences for its text."""
    return replace(
        answer, text=" ".join(part.text for part in parts), tokens=[token for part in parts for token in part.tokens],
        risk={name: [risk for part in parts for risk in part.risk[name]] for name in answer.risk},
    )  # fmt: skip


def risks_of(answer: Answer, detector: str) -> list[float]:
    if detector not in answer.risk:
        known = ", ".join(answer.risk) or "none"
        raise KeyError(f"no risk {detector!r} with this answer; there are: {known}. Ask with detectors=[{detector!r}].")
    return answer.risk[detector]


def answered(
    call: Call, images: Sequence[Any], questions: Sequence[str], seeds: Sequence[int],
    beginnings: Sequence[Sequence[int]] = (), temperature: float = 0.0,
) -> list[tuple[Answer, list[int]]]:  # fmt: skip
    """The answers of a call, with their tokens' ids; with beginnings, tokens that each goes on from."""
    changes: dict[str, Any] = {}
    if beginnings:
        own = call.generation.get("logits_processor", ())
        changes = {"logits_processor": [*own, Forced(beginnings)], "do_sample": False}
    if beginnings and temperature:
        changes |= {"do_sample": True, "temperature": temperature, "top_p": 1.0, "top_k": 0}
    reading, asking = parted(call.detectors)
    along = replace(call, detectors=reading)
    generation = along.generate(along.inputs(images, questions), seeds, **changes)
    ids = [words_of(call.lvlm, row) for row in generation.ids.tolist()]
    answers = answers_of(call.lvlm, generation)
    ask(along, asking, images, questions, answers, seeds)
    return list(zip(answers, ids, strict=True))
