"""Ancestry of beams: beams change places between steps, and what was kept of a row follows its text."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def same_text(
    now: Int[Tensor, "row position"], before: Int[Tensor, "old position"], samples: int
) -> Bool[Tensor, "row old"]:
    """Which of the earlier rows belong to a row's sample and have its text."""
    sample = lambda rows: torch.arange(len(rows), device=now.device) * samples // len(rows)
    return (now[:, None] == before[None]).all(-1) & (sample(now)[:, None] == sample(before)[None])


def came_from(
    before: Int[Tensor, "row position"], now: Int[Tensor, "row position"], samples: int
) -> Int[Tensor, " row"]:
    """For each row, the earlier row of its sample whose text it goes on with: itself if it can be, else the first.

    Rows of one sample and one text have one history, so that it does not matter which of them is named.
    """
    rows = torch.arange(now.shape[0], device=now.device)
    if torch.equal(before, now):
        return rows
    same = same_text(now, before, samples)
    return torch.where(same[rows, rows], rows, same.to(torch.int8).argmax(1))


def chosen_of(
    before: Int[Tensor, "row new"], tried: Int[Tensor, "row try"], now: Int[Tensor, "row longer"], samples: int
) -> tuple[Int[Tensor, " row"], Int[Tensor, " row"]]:
    """For each row, the earlier row of its sample and that row's try with which its text goes on; (−1, −1): none does.

    Which of several rows with one history is named does not matter, as in `came_from`.
    """
    same = same_text(now[:, :-1], before, samples)
    fits = (same[..., None] & (now[:, -1, None, None] == tried[None])).flatten(1)  # row, row·try
    at, found = fits.to(torch.int8).argmax(1), fits.any(1)
    return torch.where(found, at // tried.shape[1], -1), torch.where(found, at % tried.shape[1], -1)
