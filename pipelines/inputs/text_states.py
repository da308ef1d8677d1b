"""States of finished texts about images, read in teacher-forced passes: for directions that are found once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..engine.declarations import Reading
from ..engine.run import prefill
from ..model import families
from ..model.layout import Layout
from .prepare import prepare
from .rows import extended
from .text_alignment import answer_tokens


def text_rows(
    lvlm: Layout, images: Sequence[Any], question: str, texts: Sequence[str], end: bool = True
) -> dict[str, Tensor]:
    """Prompt and text of every image in one row each, left-padded. end: with the end token behind the text."""
    ids = [answer_tokens(lvlm, question, text)[0] for text in texts]
    ids = ids if end else [one[: len(one) - len(lvlm.end_tokens[:1])] for one in ids]
    longest = max(len(one) for one in ids)
    fill = lambda one, value: torch.cat([one, one.new_full((longest - len(one),), value)])
    new = torch.stack([fill(one, lvlm.pad_token) for one in ids])
    real = torch.stack([fill(torch.ones_like(one), 0) for one in ids]).bool()
    kind = families.appended(lvlm.model, "token_type_ids")
    prompts = prepare(lvlm, images, [question] * len(images))
    rows = extended(prompts, new, kind, real)
    width = rows["input_ids"].shape[1]
    moved = {name for name in rows if rows[name].dim() == 2 and rows[name].shape == (len(texts), width)}
    spare = [longest - len(one) for one in ids]  # padding behind a text goes to the front
    roll = lambda value: torch.stack([row.roll(shift) for row, shift in zip(value, spare, strict=True)])
    return {name: roll(value) if name in moved else value for name, value in rows.items()}


def text_states(
    lvlm: Layout, images: Sequence[Any], question: str, texts: Sequence[str], batch_size: int = 8,
    over: Literal["mean", "last"] = "mean", final_norm: bool = False, embeddings: bool = False,
) -> Iterator[Float[Tensor, "text layer hidden"]]:  # fmt: skip
    """Every block's output, mean over the real positions of prompt and text or at the text's last token, in batches.

    final_norm: of the last block's. embeddings: what enters the first block stands before the outputs. "mean" has the
    end token in the text, "last" stands before it.

    Raises:
        ValueError: other than one text for each image, or no processor.
    """
    if len(images) != len(texts):
        raise ValueError(f"{len(texts)} texts for {len(images)} images; give one text for each.")
    for start in range(0, len(texts), batch_size):
        here = slice(start, start + batch_size)
        rows = text_rows(lvlm, images[here], question, texts[here], end=over == "mean")
        yield states_of(lvlm, rows, over, final_norm, embeddings)


def states_of(
    lvlm: Layout, rows: Mapping[str, Tensor], over: Literal["mean", "last"], final_norm: bool = False,
    embeddings: bool = False,
) -> Float[Tensor, "row layer hidden"]:  # fmt: skip
    """Every block's output in float32 or more, mean over real positions or at the last one, of rows that are ready."""
    layers, norm = range(len(lvlm.layers)), lvlm.decoder.norm
    kept = _mean(rows["attention_mask"].bool()) if over == "mean" else _last
    inner, last = Reading("state", layers[:-1], kept, "block", "all"), len(layers) - 1
    outer = Reading("last", [last], lambda h: kept(norm(h) if final_norm else h), "block", "all")
    entering = Reading("input", [0], kept, "input", "all")
    step = prefill(lvlm, rows, [*([inner] if last else []), outer, *([entering] if embeddings else [])])
    found = {**(step.by_layer("state") if last else {}), **step.by_layer("last")}
    if embeddings:
        found[-1] = step.by_layer("input")[0]
    return torch.stack([found[layer].to(lvlm.device) for layer in sorted(found)], 1)


def _last(hidden: Float[Tensor, "row position hidden"]) -> Float[Tensor, "row hidden"]:
    return hidden[:, -1].to(torch.promote_types(hidden.dtype, torch.float32))


def _mean(real: Bool[Tensor, "row position"]) -> Callable[[Tensor], Tensor]:
    def mean(hidden: Float[Tensor, "row position hidden"]) -> Float[Tensor, "row hidden"]:
        wide = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        weight = real.to(wide)
        return torch.einsum("rpd,rp->rd", wide, weight) / weight.sum(1, keepdim=True)

    return mean
