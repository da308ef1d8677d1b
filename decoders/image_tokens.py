"""Image tokens of a prompt: what the model pays them in attention, and branches in which some of them are blank."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from ..pipelines.engine.declarations import AttentionEdit, Declaration, Reading, ResidualEdit
from ..pipelines.engine.run import prefill

if TYPE_CHECKING:
    from ..pipelines.engine.call import AttentionCall, LayerCall, Sequences
    from ..pipelines.model.layout import Inputs, Layout

NOISE_SEED = 0


# -- what the prompt pays them -------------------------------------------------------------------------------------
def last_row(call: AttentionCall) -> Float[Tensor, "batch key"]:
    """Attention of the row that produces the next token, mean over heads, in float32."""
    return call.scores(call.producing).softmax(-1, dtype=torch.float32).mean((1, 2))


def image_tokens(
    values: Shaped[Tensor, "*any batch position"], image: Bool[Tensor, "batch position"]
) -> tuple[Shaped[Tensor, "*any batch image"], Bool[Tensor, "batch image"]]:
    """Values at the image tokens, in their order, and which of them are real: shorter samples are filled up."""
    most = max(1, int(image.sum(1).max()))
    at = image.long().argsort(dim=1, descending=True, stable=True)[:, :most]
    return values.gather(-1, at.expand(*values.shape[:-1], -1)), image.gather(1, at)


def prompt_attention(
    lvlm: Layout, inputs: Inputs
) -> tuple[Float[Tensor, "layer batch image"], Bool[Tensor, "batch image"]]:
    """`last_row` of the prompt at the image tokens, in every layer, and which tokens are real; one pass."""
    image = lvlm.image_mask(inputs["input_ids"])
    reading = Reading("prompt", range(len(lvlm.layers)), keep=last_row)
    return image_tokens(prefill(lvlm, inputs, [reading]).latest("prompt").to(image.device), image)


# -- which get least -----------------------------------------------------------------------------------------------
def kept_count(keep: float, tokens: int) -> int:
    """How many of N image tokens stay: max(1, ⌊keep·N + ½⌋) for a share (a float), at most N for a count (an int).

    >>> kept_count(0.1, 576), kept_count(100, 576), kept_count(100, 64)
    (58, 100, 64)
    """
    wanted = keep if isinstance(keep, int) else max(1, math.floor(keep * tokens + 0.5))
    return min(wanted, tokens)


def least_attended(
    attention: Float[Tensor, "batch query key"], image: Bool[Tensor, "batch key"], keep: float
) -> Bool[Tensor, "batch query key"]:
    """The image tokens with the least attention in each row, as many as `keep` says; of equals, the earlier."""
    order = attention.masked_fill(~image[:, None], math.inf).argsort(dim=2, stable=True)
    rank = order.argsort(dim=2)
    counts = [kept_count(keep, tokens) for tokens in image.sum(1).tolist()]
    return (rank < torch.tensor(counts, device=rank.device)[:, None, None]) & image[:, None]


# -- blanking tokens of one branch ---------------------------------------------------------------------------------
def place(tokens: Bool[Tensor, "sample image"], where: Sequences) -> Bool[Tensor, "row position"]:
    """A mask over each sample's image tokens, in their order, at the prompt positions of these rows."""
    order = (where.image.long().cumsum(1) - 1).clamp(min=0, max=tokens.shape[1] - 1)
    return tokens.to(where.sample.device)[where.sample].gather(1, order) & where.image


def noise(hidden: Tensor, rows: Tensor) -> Tensor:
    """Standard normal states at these rows, from a generator seeded anew for each sample."""
    out = torch.zeros_like(hidden)
    for row, here in enumerate(rows):
        shape = (int(here.sum()), hidden.shape[-1])
        out[row, here] = torch.randn(shape, generator=torch.Generator().manual_seed(NOISE_SEED)).to(hidden)
    return out


FILLS = {
    "zeros": lambda hidden, rows: torch.zeros_like(hidden),
    "ones": lambda hidden, rows: torch.ones_like(hidden),
    "noise": noise,
}


def overwrite(
    blanked: Bool[Tensor, "sample image"], fill: Callable[[Tensor, Tensor], Tensor],
    hidden: Float[Tensor, "batch query hidden"], call: LayerCall,
) -> Float[Tensor, "batch query hidden"]:  # fmt: skip
    """States of blanked image tokens replaced."""
    where = call.sequences
    rows = where.at_queries(place(blanked, where), False, hidden.shape[1]).to(hidden.device)
    return torch.where(rows[..., None], fill(hidden, rows), hidden)


def hide(
    blanked: Bool[Tensor, "sample image"], scores: Float[Tensor, "batch head query key"], call: AttentionCall
) -> Float[Tensor, "batch head query key"]:
    """No attention to blanked image tokens."""
    columns = call.columns(place(blanked, call.sequences))
    return scores.masked_fill(columns[:, None, None, :], torch.finfo(scores.dtype).min)


def blank_branch(lvlm: Layout, branch: str, blanked: Bool[Tensor, "sample image"], blank: str) -> Iterator[Declaration]:
    """Blank image tokens of one branch: what enters the first layer, or ("mask") their columns of all attention."""
    count = len(lvlm.layers)
    if blank == "mask":
        yield AttentionEdit(range(count), partial(hide, blanked), on="scores", branch=branch)
        return
    yield ResidualEdit([0], partial(overwrite, blanked, FILLS[blank]), at="input", branch=branch)
    if adds_image_later(lvlm):  # take away again what is added to blanked tokens between layers
        left: dict[int, Tensor] = {}

        def remember(hidden: Tensor, call: LayerCall) -> Tensor:
            left[call.layer] = hidden
            return hidden

        def restore(hidden: Tensor, call: LayerCall) -> Tensor:
            return overwrite(blanked, lambda *_: left[call.layer - 1], hidden, call)

        yield ResidualEdit(range(count - 1), remember, at="block", branch=branch)
        yield ResidualEdit(range(1, count), restore, at="input", branch=branch)


def adds_image_later(lvlm: Layout) -> bool:
    """Whether the model adds image features to later layers too (DeepStack)."""
    config = lvlm.model.config
    names = ("deepstack_visual_indexes", "deepstack_layer_map")
    return any(getattr(part, name, None) for part in (config, getattr(config, "vision_config", None)) for name in names)
