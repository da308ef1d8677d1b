"""A text that somebody else wrote as the tokens of an answer, so that detectors can rate it."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor


def answer_tokens(lvlm: Any, question: str, text: str, system: str | None = None) -> Int[Tensor, "1 token"]:
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
    tokenizer, prompt = lvlm.processor.tokenizer, lvlm._prompt(question, system)
    between = "" if not prompt or prompt[-1].isspace() else " "
    whole, before = (
        tokenizer(one, add_special_tokens=False)["input_ids"] for one in (prompt + between + text.strip(), prompt)
    )
    joined = whole[: len(before)] == before
    ids = whole[len(before) :] if joined else tokenizer(between + text.strip(), add_special_tokens=False)["input_ids"]
    return torch.tensor([[*ids, *lvlm.end_tokens[:1]]], device=lvlm.device)
