"""Forced tokens: texts that go on from a given beginning."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import LogitsProcessor


class Forced(LogitsProcessor):
    """Leaves one token possible as long as a row's given beginning lasts; branches follow their row.

    Steps are counted, so that it serves one run, whatever the prompts' lengths are.

    Args:
        beginnings: one per main row, of any lengths.
    """

    def __init__(self, beginnings: Sequence[Sequence[int]]) -> None:
        self.beginnings, self.step = [list(one) for one in beginnings], -1

    def __call__(
        self, input_ids: Int[Tensor, "row position"], scores: Float[Tensor, "row vocab"]
    ) -> Float[Tensor, "row vocab"]:
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
