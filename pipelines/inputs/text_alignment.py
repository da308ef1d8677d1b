"""Texts and the tokens that they are made of: a given text as an answer's tokens, sentences and their tokens."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from ..model.layout import Layout
from .prepare import prompt_of

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


def answer_tokens(lvlm: Layout, question: str, text: str, system: str | None = None) -> Int[Tensor, "1 token"]:
    """The tokens that follow the prompt when the model answers with this text, its end token included.

    Prompt and text are tokenised together, with a space between them if the prompt ends without one, so that the text's
    first token is the one the model would have written.

    Raises:
        ValueError: no processor, or an empty text.
    """
    if lvlm.processor is None:
        raise ValueError(f"{lvlm.name} has no processor, which turns text into tokens; give veridical.score the ids")
    if not text.strip():
        raise ValueError("the text to rate is empty.")
    tokenizer, prompt = lvlm.processor.tokenizer, prompt_of(lvlm, question, system)
    between = "" if not prompt or prompt[-1].isspace() else " "
    whole, before = (
        tokenizer(one, add_special_tokens=False)["input_ids"] for one in (prompt + between + text.strip(), prompt)
    )
    joined = whole[: len(before)] == before
    ids = whole[len(before) :] if joined else tokenizer(between + text.strip(), add_special_tokens=False)["input_ids"]
    return torch.tensor([[*ids, *lvlm.end_tokens[:1]]], device=lvlm.device)
