"""P(True): the model's own probability that its answer is right.

Kadavath et al., "Language Models (Mostly) Know What They Know", 2022, arXiv 2207.05221; here about an image, zero-shot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..pipelines.inputs.token_spans import Chair
from ..pipelines.method import Detector, count, one_of, seed
from .agreement import on_mentions
from .margin import ANSWERS, spellings
from .sampled import drawn, synonyms_field

if TYPE_CHECKING:
    from ..pipelines.procedures import Call
    from ..pipelines.results import Answer

ABOUT_ANSWER = """{question}
{brainstormed}Proposed answer: {answer}
Is the proposed answer
(A) right
(B) wrong
Answer with A or B."""
ABOUT_OBJECT = "{brainstormed}Is there {article} {name} in the image?"


def probability(
    logits: Float[Tensor, "*rows vocab"], true_ids: Sequence[int], false_ids: Sequence[int]
) -> Float[Tensor, "*rows"]:
    """σ(ln Σ_{v ∈ true} p(v) − ln Σ_{v ∈ false} p(v)); ½ where both have none. Mass on other words does not matter.

    >>> round(float(probability(torch.tensor([2.0, 1.0, 0.0, -1.0]), [0, 2], [1, 3])), 6)
    0.731059
    """
    true, false = (logits[..., list(ids)].float().logsumexp(-1) for ids in (true_ids, false_ids))
    return torch.where(true == false, 0.5, (true - false).sigmoid())


@dataclass(frozen=True)
class PTrue(Detector):
    """Risk = 1 − P(right), the model's own probability that its answer is right when it is asked.

    form="answer": is the whole answer (A) right or (B) wrong? P(right) = p(A)/(p(A) + p(B)), for all tokens. "object":
    one question for each distinct object of the answer, "Is there a … in the image?", P(right) = p(yes)/(p(yes) +
    p(no)); the risk is that of the tokens of its mentions (`synonyms`), and all others have 0. p: of the first token,
    summed over spellings, with the run's decoders in place. With `samples`, that many answers, drawn with `seed`, stand
    in front ("brainstormed").

    Raises:
        ValueError: a conversation of several turns, a tokenizer that splits the options, or a use without images and
            words (`veridical.generate`, `score`, gates).

    The paper shows 20 judged examples of other questions first, and reads p(A) alone; ours needs none and weighs A
    against B. The cost is a prompt and one token per answer, or per object, and the samples' where there are some.
    """

    judges_texts: ClassVar[bool] = True

    form: Literal["answer", "object"] = one_of(("answer", "object"), "what is asked about")
    samples: int = count(0, "sampled answers in front of the question", "Paper: 5.")
    seed: int = seed("of the samples")
    synonyms: str | None = synonyms_field()

    def score(self, record: Any) -> Any:
        raise ValueError("p_true asks about words: take it in caption, answer, detect or evaluate.")

    def asks(
        self, call: Call, images: Sequence[Any], questions: Sequence[Any], answers: Sequence[Answer],
        seeds: Sequence[int],
    ) -> list[Tensor]:  # fmt: skip
        """The risk of each token of each answer, (token,)."""
        if wrong := [question for question in questions if not isinstance(question, str)]:
            raise ValueError(f"p_true asks about single questions, no conversation of several turns: {wrong[0]!r}.")
        texts = [""] * len(answers)
        if self.samples:
            found = drawn(call, images, questions, seeds, self.samples, self.seed)
            for place, (answer, (samples, _)) in enumerate(zip(answers, found, strict=True)):
                answer.details["p_true"] = samples
                texts[place] = "Possible answers: " + "; ".join(samples) + "\n"
        if self.form == "answer":
            questions = [
                ABOUT_ANSWER.format(question=q, answer=a.text, brainstormed=t)
                for q, a, t in zip(questions, answers, texts, strict=True)
            ]
            each = zip(answers, self.right(call, images, questions, seeds, self.options(call)), strict=True)
            return [torch.full((len(answer.tokens),), 1 - one, dtype=torch.float64) for answer, one in each]
        chair = Chair(self.synonyms)
        named = [list(dict.fromkeys(chair.parse(answer.text).objects)) for answer in answers]
        questions = [_about(name, text) for names, text in zip(named, texts, strict=True) for name in names]
        whose = list(chain.from_iterable([place] * len(names) for place, names in enumerate(named)))
        of = lambda values: [values[place] for place in whose]
        right = iter(self.right(call, of(images), questions, of(seeds), self.options(call), max(1, len(images))))
        return [
            on_mentions(chair, answer, {name: 1 - next(right) for name in names})
            for answer, names in zip(answers, named, strict=True)
        ]

    def options(self, call: Call) -> list[list[int]]:
        """The tokens that stand for right, and for wrong.

        Raises:
            ValueError: one of them is no single token.
        """
        tokenizer = call.lvlm.processor.tokenizer
        if self.form == "object":
            words: Sequence[str] = ANSWERS
            found = [spellings(tokenizer, word) for word in words]
        else:  # "a" is a word
            words = ("A", "B")
            encode = partial(tokenizer.encode, add_special_tokens=False)
            pieces = [[encode(word), encode(f" {word}")] for word in words]
            found = [sorted({piece[0] for piece in forms if len(piece) == 1}) for forms in pieces]
        if not all(found):
            raise ValueError(
                f"p_true reads the probability of {words[0]!r} and {words[1]!r}, which the tokenizer of "
                f"{call.lvlm.name} splits into several tokens."
            )
        return found

    def right(
        self, call: Call, images: Sequence[Any], questions: Sequence[str], seeds: Sequence[int],
        options: Sequence[Sequence[int]], size: int = 0,
    ) -> list[float]:  # fmt: skip
        """P(right) for each question, in batches of `size`."""
        out: list[float] = []
        size = size or max(1, len(images))
        for start in range(0, len(questions), size):
            part = slice(start, start + size)
            generation = call.generate(
                call.inputs(images[part], questions[part]), seeds[part], return_logits=True, do_sample=False,
                num_beams=1, max_new_tokens=1, min_new_tokens=0,
            )  # fmt: skip
            assert generation.logits is not None
            out += probability(generation.logits[:, 0], *options).tolist()
        return out


def _about(name: str, brainstormed: str) -> str:
    article = "an" if name[0] in "aeiou" else "a"
    return ABOUT_OBJECT.format(article=article, name=name, brainstormed=brainstormed)
