"""Margin: how close the second choice came; for yes/no questions, the choice between the two answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor

from ..pipelines.checks import check_integers
from ..pipelines.engine.declarations import Reading
from ..pipelines.engine.record import Record
from ..pipelines.method import Detector, ruled

ANSWERS = ("yes", "no")


def spellings(tokenizer: Any, word: str) -> list[int]:
    """Tokens that are the whole word: with and without a leading space, in three casings."""
    forms = [before + form for before in ("", " ") for form in (word, word.capitalize(), word.upper())]
    found = [tokenizer.encode(form, add_special_tokens=False) for form in forms]
    return sorted({tokens[0] for tokens in found if len(tokens) == 1})


def answer_mass(hidden: Tensor, lvlm: Any, tokens: Sequence[Sequence[int]]) -> Float[Tensor, "batch token answer"]:
    """Probability of each answer's spellings together, from the last block's output (batch, token, hidden)."""
    probabilities = lvlm.unembed(hidden).float().softmax(-1)
    return torch.stack([probabilities[..., list(mine)].sum(-1) for mine in tokens], dim=-1)


def yes_no_margin(mass: Float[Tensor, "*items answer"]) -> Float[Tensor, "*items"]:
    """m = ln Σ_{v ∈ yes} p(v) − ln Σ_{v ∈ no} p(v); P(yes) = σ(m).

    >>> round(float(yes_no_margin(torch.tensor([0.42 + 0.18, 0.25 + 0.05]))), 6)
    0.693147
    """
    return mass[..., 0].clamp(min=1e-30).log() - mass[..., 1].clamp(min=1e-30).log()


def _pair(name: str, value: Any) -> tuple[tuple[int, ...], ...]:
    found = tuple(check_integers(name, one, "token ids of yes, and of no") for one in value)
    if len(found) != len(ANSWERS):
        raise ValueError(f"{name}={found!r} are {len(found)} lists of ids: give one of yes, one of no.")
    return found


@dataclass(frozen=True)
class Margin(Detector):
    """Risk = (1 − (p₁ − p₂)) / 2, between 0 (no doubt) and ½ (a tie), p₁ and p₂ the two likeliest tokens.

    Where the chosen token is one of the spellings of yes or no, p₁ and p₂ are those of the two answers, each over all
    its single-token spellings and scaled to sum to 1, so that the risk is 1 − P(the answer given), above ½ if the other
    was likelier. In captions it is the plain margin of every word. p is the model's own distribution, before any
    contrast, cut or temperature.

    Without `spellings` and without a tokenizer all tokens get the plain margin.
    """

    spellings: tuple[tuple[int, ...], ...] | None = ruled(
        None, "token ids of yes, and of no", "two lists of ids", "By default those of the model's tokenizer.", _pair
    )

    is_probability: ClassVar[bool] = True

    def for_model(self, lvlm: Any) -> Self:
        """With the spellings of the model's tokenizer, where it has one and both words are single tokens."""
        if self.spellings is not None or lvlm.processor is None:
            return self
        found = [spellings(lvlm.processor.tokenizer, word) for word in ANSWERS]
        return replace(self, spellings=tuple(map(tuple, found))) if all(found) else self

    def readings(self, lvlm: Any, inputs: Any) -> Iterator[Any]:
        if self.spellings is not None:
            keep = partial(answer_mass, lvlm=lvlm, tokens=self.spellings)
            yield Reading("margin/answers", [len(lvlm.layers) - 1], keep=keep, of="block")

    def score(self, record: Record) -> Float[Tensor, "sample token"]:
        risk = (1 - record.margin) / 2
        if self.spellings is None:
            return risk
        yes = yes_no_margin(record["margin/answers"][:, :, 0]).sigmoid().to(risk)
        is_yes, is_no = (torch.isin(record.ids, record.ids.new_tensor(one)) for one in self.spellings)
        return torch.where(is_yes, 1 - yes, torch.where(is_no, yes, risk))
