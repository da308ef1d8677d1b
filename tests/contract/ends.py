"""Texts that end at different steps, and how many rows each pass has meanwhile."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from veridical import Generation
from veridical.pipelines.engine import run as engine

END, LONG = 2, 6


class EndsAt:
    """Sample k ends with its token number `lengths[k]`."""

    def __init__(self, end, prompt, lengths):
        self.end, self.prompt, self.lengths = end, prompt, lengths

    def __call__(self, ids, scores):
        for row, length in enumerate(self.lengths):
            ends = ids.shape[1] - self.prompt + 1 == length
            scores[row, self.end] = -torch.inf
            if ends:
                scores[row] = torch.where(torch.arange(scores.shape[1]) == self.end, 0.0, -torch.inf)
        return scores


def staggered(setting: Any, decoders: Any = (), lengths: Any = (2, LONG, 4), **options: Any) -> Generation:
    ends = [EndsAt(END, setting.inputs["input_ids"].shape[1], lengths)]
    return setting.generate(
        decoders, max_new_tokens=max(lengths), eos_token_id=END, pad_token_id=0, logits_processor=ends,
        return_logits=True, **options,
    )  # fmt: skip


@contextmanager
def widths(lvlm):
    """Rows of every pass of the decoder behind the first."""
    found = []

    def count(module, args, kwargs):
        fed = next(kwargs[name] for name in ("inputs_embeds", "input_ids") if kwargs.get(name) is not None)
        if module is lvlm.decoder:  # and not a copy of it that a method asks
            found.append(len(fed))

    hook = lvlm.decoder.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield found
    finally:
        hook.remove()


@contextmanager
def staying(monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(engine, "leaving", lambda *given: nullcontext())
        yield
