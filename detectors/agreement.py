"""Agreement among samples: whether the model says it again when it is asked again. Only texts are compared.

Objects: the counting idea of Manakul et al., "SelfCheckGPT", EMNLP 2023, arXiv 2303.08896. Answers: Kuhn et al.,
"Semantic Uncertainty", ICLR 2023, arXiv 2302.09664; Farquhar et al., "Detecting hallucinations in large language models
using semantic entropy", Nature 2024; Zhang et al., "VL-Uncertainty", arXiv 2411.11919.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from ..pipelines.inputs.token_spans import Chair, mentions
from ..pipelines.method import one_of, ruled, seed, share
from .sampled import Sampled, blur_field, longest_field, samples_field, synonyms_field, temperature_field

if TYPE_CHECKING:
    from ..pipelines.procedures import Call
    from ..pipelines.results import Answer

WORDS = 12  # of an answer that is compared as a whole
NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
SCORES = ("disagreement", "entropy", "likelihood")
BLURS = (0.6, 0.8, 1.0, 1.2, 1.4)

Same = Callable[[Any, Any], bool]
Score = Literal["disagreement", "entropy", "likelihood"]


class NoObjects(UserWarning):
    """None of some answers names an object of the vocabulary, so that all risks are 0."""


# -- comparing texts -------------------------------------------------------------------------------------------------
def object_risk(objects: Sequence[str], samples: Sequence[Collection[str]]) -> list[float]:
    """1 − the share of samples that name each object.

    >>> object_risk(["dog", "car", "cat"], [{"dog", "cat"}, {"dog"}, {"dog", "bus"}, {"dog", "cat"}])
    [0.0, 1.0, 0.5]
    """
    return [1 - sum(one in sample for sample in samples) / len(samples) for one in objects]


def normalised(text: str) -> str:
    """In lower case, without punctuation and articles, number words up to ten as digits.

    >>> normalised("The two Dogs, a cat!")
    '2 dogs cat'
    """
    words = re.sub(r"[^\w\s]|_", " ", text.lower().replace("'", "")).split()
    return " ".join(str(NUMBERS.index(w)) if w in NUMBERS else w for w in words if w not in ("a", "an", "the"))


def equal(a: str, b: str) -> bool:
    """Whether two answers that begin with yes or no have the same of them, or two others the same normalised text.

    >>> equal("Yes, a dog.", "yes"), equal("No", "Nothing"), equal("two dogs", "2 dogs")
    (True, False, True)
    """
    first = [words[0] for text in (a, b) if (words := normalised(text).split()) and words[0] in ("yes", "no")]
    return first[0] == first[1] if len(first) == 2 else normalised(a) == normalised(b)


def clusters(answers: Sequence[Any], same: Same | None = None) -> list[int]:
    """The group of each answer: the first whose first member is the same; by normalised text without `same`.

    >>> clusters(["2 dogs", "Two dogs!", "three dogs", "a dog", "dog."])
    [0, 0, 1, 2, 2]
    """
    same = same or (lambda a, b: normalised(a) == normalised(b))
    firsts: list[Any] = []
    groups = []
    for answer in answers:
        group = next((number for number, first in enumerate(firsts) if same(first, answer)), len(firsts))
        if group == len(firsts):
            firsts.append(answer)
        groups.append(group)
    return groups


def discrete_entropy(groups: Sequence[int]) -> float:
    """−Σ_g (|g|/n)·ln(|g|/n), nats.

    >>> round(discrete_entropy([0, 0, 0, 1]), 6)
    0.562335
    """
    return likelihood_entropy(groups, [0.0] * len(groups))


def likelihood_entropy(groups: Sequence[int], mean_logp: Sequence[float]) -> float:
    """The same with each answer weighed by exp(its mean token log-probability), weights scaled to sum to 1.

    >>> round(likelihood_entropy([0, 0, 1], [-0.1, -0.3, -0.2]), 6)
    0.635743
    """
    weight = torch.tensor(mean_logp, dtype=torch.float64).softmax(0)
    share = torch.zeros(max(groups) + 1, dtype=torch.float64).index_add_(0, torch.tensor(groups), weight)
    return float(-torch.special.xlogy(share, share).sum()) + 0.0


def answer_risk(answer: str, samples: Sequence[str], same: Same | None = None) -> float:
    """Share of the samples in another group than the answer, which is the first member of the first.

    >>> answer_risk("two dogs", ["2 dogs", "Two dogs!", "three dogs", "a dog"])
    0.5
    """
    return sum(group > 0 for group in clusters([answer, *samples], same)[1:]) / len(samples)


# -- the detectors ------------------------------------------------------------------------------------------------
def _callable(name: str, value: Any) -> Any:
    if not callable(value):
        raise ValueError(f"{name}={value!r} is no callable; give one of two texts that returns True or False, or None.")
    return value


@dataclass(frozen=True)
class ObjectAgreement(Sampled):
    """Risk of an object = 1 − share of `samples` further captions that name it; the risk of all tokens of its mentions.

    Objects are CHAIR's (`synonyms`), so that "puppy" agrees with "dog"; tokens of no object have risk 0. The captions
    are sampled (`temperature`, `top_p`, `seed`) with the run's decoders in place, from the same prompt and to the same
    length unless `max_new_tokens` gives another, and from the image blurred by radii of `blur` in turn.

    Raises:
        ValueError: fields outside their range, or a use without images and words (`veridical.generate`, `score`,
            gates).
    Warns:
        NoObjects: no answer of a batch names an object of the vocabulary.

    It costs `samples` captions per caption. What the model repeats has risk 0, however wrong it is; and short samples
    name fewer objects.
    """

    judges_texts: ClassVar[bool] = True

    samples: int = samples_field(5)
    temperature: float = temperature_field()
    top_p: float = share(1.0, "of the sampling", low=1e-6)
    seed: int = seed("of the draws")
    max_new_tokens: int | None = longest_field()
    blur: tuple[float, ...] = blur_field()
    synonyms: str | None = synonyms_field()

    def asks(
        self, call: Call, images: Sequence[Any], questions: Sequence[Any], answers: Sequence[Answer],
        seeds: Sequence[int],
    ) -> list[Tensor]:  # fmt: skip
        """The risk of each token of each answer, (token,)."""
        chair = Chair(self.synonyms)
        if not any(chair.parse(answer.text).objects for answer in answers):
            warnings.warn(
                f"none of {len(answers)} answers names one of the {len(chair.categories)} objects of {chair.synonyms}, "
                "so that every risk is 0; synonyms=FILE takes another vocabulary, such as COCO's for CHAIR.",
                NoObjects,
                stacklevel=2,
            )
        out = []
        for answer, texts, _ in self.draws(call, images, questions, answers, seeds):
            named = [set(chair.parse(text).objects) for text in texts]
            objects = list(dict.fromkeys(chair.parse(answer.text).objects))
            out.append(on_mentions(chair, answer, dict(zip(objects, object_risk(objects, named), strict=True))))
        return out


def on_mentions(chair: Chair, answer: Answer, risk: Mapping[str, float]) -> Tensor:
    """The risk of each token, (token,): that of the object whose mention it has a part in, else 0."""
    out = torch.zeros(len(answer.tokens), dtype=torch.float64)
    for mention in mentions(chair, answer.text, answer.tokens):
        out[mention.tokens] = risk[mention.category]
    return out


@dataclass(frozen=True)
class AnswerAgreement(Sampled):
    """Risk of an answer by the groups of equal meaning that `samples` further answers fall in; the same for all tokens.

    score="disagreement": the share of samples in another group than the answer; "entropy": −Σ_g p_g ln p_g / ln n, p_g
    the share of a group; "likelihood": the same with samples weighed by exp(mean token log-probability). 0 to 1.

    Two answers are equal where both begin with yes or no and it is the same; or their normalised texts are equal; or
    both name objects (`synonyms`), and the same. `judge`, a callable (a, b) -> bool, takes the place of the last two.
    An answer belongs to the first group whose first member it is equal to. Samples: `temperature`, `top_p`, `seed`,
    `max_new_tokens`, `blur` as in `ObjectAgreement`.

    Raises:
        ValueError: an answer of more than 12 words, or a use without images and words (`veridical.generate`, `score`,
            gates).

    Papers compare by a model for entailment, which ours has not. `official()` is VL-Uncertainty's setting without the
    questions that it has a language model rephrase; its released code takes any reply with a "y" for a yes.
    """

    judges_texts: ClassVar[bool] = True

    samples: int = samples_field(10)
    temperature: float = temperature_field()
    top_p: float = share(1.0, "of the sampling", low=1e-6)
    seed: int = seed("of the draws")
    max_new_tokens: int | None = longest_field()
    score: Score = one_of(SCORES, "what the groups give")  # type: ignore[assignment]
    blur: tuple[float, ...] = blur_field()
    synonyms: str | None = synonyms_field()
    judge: Same | None = ruled(None, "whether two answers are equal", "a callable (a, b) -> bool", "", _callable)

    released: ClassVar[Mapping[str, Any] | None] = {
        "samples": 5, "temperature": 0.5, "score": "entropy", "blur": BLURS,
    }  # fmt: skip

    def asks(
        self, call: Call, images: Sequence[Any], questions: Sequence[Any], answers: Sequence[Answer],
        seeds: Sequence[int],
    ) -> list[Tensor]:  # fmt: skip
        """The risk of each token of each answer, (token,)."""
        for answer in answers:
            if (count := len(answer.text.split())) > WORDS:
                raise ValueError(
                    f"answer_agreement compares answers of at most {WORDS} words as a whole, and here is one of "
                    f"{count}: {answer.text[:60]!r}…; object_agreement judges the objects of longer texts."
                )
        same = self.relation(Chair(self.synonyms))
        out = []
        for answer, texts, logs in self.draws(call, images, questions, answers, seeds):
            risk = self.risk(answer.text, texts, logs, same)
            out.append(torch.full((len(answer.tokens),), risk, dtype=torch.float64))
        return out

    def relation(self, chair: Chair) -> Same:
        """Whether two answers are equal, for the whole of the rules."""

        def objects(text: str) -> set[str]:
            return set(chair.parse(text).objects)

        def same(a: str, b: str) -> bool:
            both = all(normalised(text).split()[:1] in (["yes"], ["no"]) for text in (a, b))
            if both or (self.judge is None and equal(a, b)):
                return equal(a, b)
            if self.judge is not None:
                return bool(self.judge(a, b))
            return bool(objects(a)) and objects(a) == objects(b)

        return same

    def risk(self, answer: str, samples: Sequence[str], logs: Sequence[float], same: Same) -> float:
        """The risk of an answer by its samples and their mean token log-probabilities."""
        if self.score == "disagreement":
            return answer_risk(answer, samples, same)
        groups = clusters(samples, same)
        found = discrete_entropy(groups) if self.score == "entropy" else likelihood_entropy(groups, logs)
        return found / math.log(len(samples)) if len(samples) > 1 else 0.0
