"""What the likeliest first token depends on: its gradient by one layer's attention, or by the pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..engine.call import AttentionCall
from ..engine.declarations import AttentionEdit, Step
from ..engine.hooks import applied
from ..engine.plan import refuse_if_busy
from ..engine.rows import arrange, sequences
from ..engine.run import complete
from . import families
from .layout import Layout


def attention_gradient(
    lvlm: Layout, inputs: Mapping[str, Tensor], layer: int
) -> tuple[Float[Tensor, "head key"], Float[Tensor, "head key"]]:
    """(A, ∂v/∂A) of the last prompt token's attention in a layer, v the log-probability of its likeliest next token.

    One row. Nothing is added to the model's own gradients.
    """
    kept: list[Tensor] = []
    added: list[Tensor] = []

    def record(probabilities: Tensor, call: AttentionCall) -> Tensor:
        kept.append(probabilities.detach())
        added.append(torch.zeros_like(probabilities, requires_grad=True))
        return probabilities.detach() + added[-1]

    inputs = complete(lvlm, inputs)
    rows = arrange([(AttentionEdit([layer], record, queries="last"), -1)], inputs, lvlm.pad_token)
    with torch.enable_grad(), applied(lvlm, rows.placed, sequences(lvlm, rows), Step(ids=inputs["input_ids"])):
        (slope,) = torch.autograd.grad(_likeliest(lvlm, rows.inputs), added)
    return kept[0][0, :, -1], slope[0, :, -1]


def pixel_gradient(lvlm: Layout, inputs: Mapping[str, Tensor]) -> Float[Tensor, "height width"]:
    """‖∂v/∂pixel‖ over colours, v the log-probability of the likeliest first token. One row, one whole image.

    Raises:
        ValueError: pixel_values that are not (1, colour, height, width).
    """
    refuse_if_busy(lvlm.model)
    inputs = complete(lvlm, inputs)
    pixels = inputs.get("pixel_values")
    if pixels is None or pixels.dim() != 4 or pixels.shape[0] != 1:
        found = "none" if pixels is None else tuple(pixels.shape)
        raise ValueError(
            f"gradients by pixels need one whole image as pixel_values (1, colour, height, width); {lvlm.name} has "
            f"{found}: use attention instead"
        )
    with torch.enable_grad():
        leaf = pixels.detach().requires_grad_()
        (slope,) = torch.autograd.grad(_likeliest(lvlm, {**inputs, "pixel_values": leaf}), leaf)
    return slope[0].float().norm(dim=0)


def _likeliest(lvlm: Layout, inputs: Mapping[str, Any]) -> Tensor:
    where = families.direct_positions(lvlm.model, inputs)
    logits = lvlm.model(**inputs, **where, use_cache=False, logits_to_keep=1).logits[:, -1]
    return logits.float().log_softmax(-1).amax(-1).sum()
