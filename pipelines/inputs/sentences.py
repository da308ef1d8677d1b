"""Sentences of a text with the tokens that they are made of, and texts that go on from a given beginning."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import LogitsProcessor

END = re.compile(r"[.!?]+[\"')\]]*(?=\s|$)")


class Sentence(NamedTuple):
    """A sentence: its text, and its tokens first to last + 1."""

    text: str
    first: int
    last: int


def sentences(text: str, tokens: Sequence[str]) -> list[Sentence]:
    """The sentences of a text, each up to ".", "!" or "?" before a space or the end; every token is in one of them.

    Pieces are looked for one after another without the spaces around them; one that is not found stays with the piece
    before it.

    >>> [tuple(s) for s in sentences("A dog. It ru", ["A", " dog", ".", " It", " ru"])]
    [('A dog.', 0, 3), ('It ru', 3, 5)]
    """
    ends = [match.end() for match in END.finditer(text)]
    if not ends or text[ends[-1] :].strip():
        ends.append(len(text))
    of, here, at = [], 0, 0
    for token in tokens:
        piece = token.strip()
        start = text.find(piece, here) if piece else -1
        if 0 <= start <= here + 8:  # far away, it is another occurrence
            here = start + len(piece)
            while at < len(ends) - 1 and start >= ends[at]:
                at += 1
        of.append(at)
    starts = [0, *ends[:-1]]
    out = [
        Sentence(text[a:b].strip(), of.index(k) if k in of else -1, 0)
        for k, (a, b) in enumerate(zip(starts, ends, strict=True))
    ]
    return [s._replace(last=len(of) - of[::-1].index(k)) for k, s in enumerate(out) if s.first >= 0]


def risk_of(risks: Sequence[float], over: str) -> float:
    """The largest ("max") or "mean" risk of some tokens, those that are numbers; −inf where none is."""
    known = [risk for risk in risks if not math.isnan(risk)]
    if not known:
        return -math.inf
    return max(known) if over == "max" else sum(known) / len(known)


class Forced(LogitsProcessor):
    """Leaves one token possible as long as a row's given beginning lasts; branches follow their row.

    Steps are counted, so that it serves one run, whatever the prompts' lengths are.

    Args:
        beginnings: one per main row, of any lengths.
    """

    def __init__(self, beginnings: Sequence[Sequence[int]]) -> None:
        self.beginnings, self.step = [list(one) for one in beginnings], -1

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.step += 1
        held = [row for row, one in enumerate(self.beginnings) if self.step < len(one)]
        if not held:
            return scores
        blocks, size = scores.shape[0] // len(self.beginnings), len(self.beginnings)
        rows = torch.tensor([block * size + row for block in range(blocks) for row in held], device=scores.device)
        tokens = torch.tensor([self.beginnings[row][self.step] for row in held] * blocks, device=scores.device)
        out = scores.clone()
        out[rows] = -torch.inf
        out[rows, tokens] = 0.0
        return out


def repeated(inputs: Mapping[str, Tensor], times: int, pad: int) -> dict[str, Tensor]:
    """The same rows several times, block after block, whatever a family's pictures look like."""
    from .rows import stack

    return stack([inputs] * times, pad)
