"""OPERA's way back: what was chosen of every sample so far, which tokens its beams over-trust, and where they return.

A run starts over from recorded scores: the steps up to the place of return get what they got before, and beam search,
a function of these scores, rebuilds texts, finished texts and cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Pairs = frozenset[tuple[int, int]]  # a place among the beams, and a token


def most_frequent(values: Int[Tensor, "*any value"]) -> Int[Tensor, "*any"]:
    """The value that occurs most often along the last axis; of several, the smallest.

    >>> int(most_frequent(torch.tensor([3, 1, 1, 3, 2])))
    1
    """
    counts = torch.nn.functional.one_hot(values, int(values.max()) + 1).sum(-2)
    return counts.argmax(-1)


@dataclass
class Choice:
    """What one step of a sample was chosen from: a few tokens of each beam, or (official, chosen anew) all of them.

    scores: log-probabilities of `tokens`; `rest` is that of every other token. votes: a column for each beam.
    """

    tokens: Int[Tensor, "beam token"]
    scores: Float[Tensor, "beam token"]
    rest: Float[Tensor, "beam one"]
    votes: Int[Tensor, " beam"]

    def spread(self, like: Float[Tensor, "beam vocab"]) -> Float[Tensor, "beam vocab"]:
        """As scores over the vocabulary."""
        return self.rest.to(like).expand_as(like).scatter(1, self.tokens, self.scores.to(like))


@dataclass
class Sample:
    """One sample's way through the run. It decides alone, whatever the others of its batch do.

    script: a choice for each step so far. selected: the pairs that went on from each step. history: (beam, step) votes,
    of a text or (official) of a place among the beams. visits: how often a step was returned to. rejected: what must
    not be chosen there. anew: the step that is to be chosen anew, which is the next behind the script.
    """

    mode: Literal["paper", "official"]
    script: list[Choice] = field(default_factory=list)
    selected: dict[int, Pairs] = field(default_factory=dict)
    history: Int[Tensor, "beam step"] | None = None
    visits: dict[int, int] = field(default_factory=dict)
    rejected: dict[int, Pairs] = field(default_factory=dict)
    anew: int | None = None
    kept: Int[Tensor, " beam"] | None = None  # official: the votes of the step that is chosen anew

    def follow(self, step: int, origin: Int[Tensor, " beam"], newest: Int[Tensor, " beam"]) -> None:
        """Beams have changed places. origin: where each comes from; newest: the token that it went on with."""
        if step == 0:
            self.history = origin.new_zeros(len(origin), 0)
            return
        assert self.history is not None
        self.selected[step - 1] = frozenset(zip(origin.tolist(), newest.tolist(), strict=True))
        if self.mode == "paper":
            self.history = self.history[origin]

    def add(self, step: int, choice: Choice) -> None:
        """A step is chosen, for the first time or again."""
        assert self.history is not None
        if step == len(self.script):
            self.script.append(choice)
            self.anew = None if self.anew == step else self.anew
        self.history = torch.cat([self.history, choice.votes[:, None].to(self.history.device)], 1)

    def place(self, votes: Int[Tensor, " beam"], first: int, threshold: int, retries: int) -> int | None:
        """The step to return to when these are the votes of the next step; None goes on.

        Behind the summary token s for which all beams have voted more than `threshold` times; s itself after `retries`
        returns there; no place after as many to that one.
        """
        assert self.history is not None
        summary = int(most_frequent(votes))
        agreed = (torch.cat([self.history, votes[:, None].to(self.history.device)], 1) == summary).sum(1)
        if summary < first or not bool((agreed > threshold).all()):
            return None
        return next((at for at in (summary + 1, summary) if self.visits.get(at, 0) < retries), None)

    def go_back(self, step: int) -> None:
        """Forget what was chosen from this step on, and reject what was selected there."""
        self.visits[step] = self.visits.get(step, 0) + 1
        self.rejected[step] = self.rejected.get(step, frozenset()) | self.selected[step]
        forgotten = [step + 1] if self.mode == "official" else [at for at in self.rejected if at > step]
        for at in forgotten:
            self.rejected.pop(at, None)
        self.kept = self.script[step].votes
        del self.script[step:]
        self.anew = step

    def barred(self, step: int, beams: int, vocabulary: int) -> Bool[Tensor, "beam vocab"]:
        """Pairs that are rejected at this step, if it is the one that is chosen anew."""
        out = torch.zeros(beams, vocabulary, dtype=torch.bool)
        for beam, token in self.rejected.get(step, frozenset()) if step == self.anew else ():
            out[beam, token] = True
        return out


def origins(
    before: Int[Tensor, "row old"] | None, now: Int[Tensor, "row new"], samples: int
) -> Sequence[Int[Tensor, " beam"]]:
    """For each sample, the place at the step before from which each of its beams goes on; of equal texts, the first."""
    beams = len(now) // samples
    if before is None:
        return [torch.arange(beams, device=now.device)] * samples
    old, new = before.unflatten(0, (samples, beams)), now[:, :-1].unflatten(0, (samples, beams))
    same = (new[:, :, None] == old[:, None]).all(-1)  # sample beam beam-before
    return list(same.to(torch.int8).argmax(2))
