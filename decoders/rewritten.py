"""Branches whose prompt is other text: rows are built anew from token ids of any length."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..pipelines.inputs.rows import pad_left
from ..pipelines.model.families import KINDS

if TYPE_CHECKING:
    from ..pipelines.model.layout import Inputs, Layout


def unpadded(inputs: Inputs) -> list[list[int]]:
    """The token ids of every row without its padding."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
    return [row[real].tolist() for row, real in zip(ids, mask, strict=True)]


def rebuilt(lvlm: Layout, inputs: Inputs, rows: Sequence[Sequence[int]], images: bool) -> dict[str, Tensor]:
    """Inputs with these prompts in place of their own: left-padded, with a mask and the kinds of tokens that they have.

    rows: token ids, one row for each sample. images: whether the rows have the samples' image placeholders, whose
    pixels and kinds then stay; text is of kind 0 everywhere in a prompt.
    """
    ids = inputs["input_ids"]
    new = [ids.new_tensor(list(row)) for row in rows]
    out = dict(inputs) if images else {}
    out["input_ids"] = pad_left(new, lvlm.pad_token)
    out["attention_mask"] = pad_left([torch.ones_like(row) for row in new], 0).to(inputs["attention_mask"])
    for name in KINDS:
        if name in inputs:
            kinds = [torch.zeros_like(row) for row in new]
            if images:
                for kind, row, old, known in zip(kinds, new, ids, inputs[name], strict=True):
                    kind[lvlm.image_mask(row)] = known[lvlm.image_mask(old)].to(kind)
            out[name] = pad_left(kinds, 0).to(inputs[name])
    return out


def image_runs(row: Sequence[int], image: int | None, inside: Collection[int] = ()) -> list[tuple[int, int]]:
    """Where the placeholders of each image begin and end. inside: tokens that say, directly in front of a run of
    placeholders or behind it, that more of the same image follows.

    >>> image_runs((1, 9, 4, 4, 4, 7), 4), image_runs((1, 4, 4, 9, 4, 7), 4), image_runs((8, 4, 4, 9, 4, 7), 4, {8})
    ([(2, 5)], [(1, 3), (4, 5)], [(1, 5)])
    """
    at = [place for place, token in enumerate(row) if token == image]
    cuts = [0, *(k for k, (a, b) in enumerate(pairwise(at), 1) if b > a + 1), len(at)]
    out: list[tuple[int, int]] = []
    more = False
    for first, last in pairwise(cuts if at else []):
        start, stop = at[first], at[last - 1] + 1
        out = [*out[:-1], (out[-1][0], stop)] if more else [*out, (start, stop)]
        more = (start > 0 and row[start - 1] in inside) or (stop < len(row) and row[stop] in inside)
    return out


def spliced(row: Sequence[int], runs: Sequence[tuple[int, int]], texts: Sequence[Sequence[int]]) -> list[int]:
    """The row with a text in place of each run.

    >>> spliced((1, 4, 4, 9, 4, 7), [(1, 3), (4, 5)], [(50,), (50, 51)])
    [1, 50, 9, 50, 51, 7]
    """
    out, done = [], 0
    for (start, stop), text in zip(runs, texts, strict=True):
        out += [*row[done:start], *text]
        done = stop
    return [*out, *row[done:]]


def words_of(lvlm: Layout, source: str, row: int, values: Any, images: bool = False) -> list[int]:
    """One row's token ids, from a 1-D tensor or a list.

    Raises:
        ValueError: another shape, or ids that the model does not have, the image's among them unless `images`.
    """
    found = torch.as_tensor(values)
    if found.dim() != 1 or (found.numel() and (found.is_floating_point() or found.dtype == torch.bool)):
        raise ValueError(
            f"{source} gave {tuple(found.shape)} {str(found.dtype).removeprefix('torch.')} for sample {row}; it gives "
            "the token ids of each sample as a 1-D tensor of whole numbers."
        )
    ids = [int(token) for token in found.tolist()]
    vocabulary = lvlm.model.get_input_embeddings().weight.shape[0]
    known = lambda token: images if token == lvlm.image_token else 0 <= token < vocabulary
    wrong = [token for token in ids if not known(token)]
    if wrong:
        raise ValueError(
            f"{source} gave token {wrong[0]} for sample {row}; possible are 0 to {vocabulary - 1}"
            + ("." if images else f", but not the image's placeholder {lvlm.image_token}.")
        )
    return ids


def each_sample(source: str, found: Any, samples: int) -> list[Any]:
    """What a function returned, as one entry for each sample; raises ValueError for another number."""
    entries = None if isinstance(found, str) or not hasattr(found, "__len__") else list(found)
    if entries is None or len(entries) != samples:
        number = f"{type(found).__name__} {found!r:.40}" if entries is None else f"{len(entries)} entries"
        raise ValueError(f"{source} gave {number} for {samples} samples; it gives one entry for each sample.")
    return entries
