"""Matrices whose product an MLP or the attention of a decoder layer adds to the residual stream, and edits of them.

An edit of what comes out of a matrix that is the same for every token is a matrix too, and can be written into the
weights. Products are made in float32 or more and rounded once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

if TYPE_CHECKING:
    from .layout import Layout

MLP_OUTPUTS = ("down_proj", "fc2", "w2", "c_proj", "dense_4h_to_h", "linear_fc2")
HEAD_OUTPUTS = ("o_proj", "out_proj", "dense", "wo", "c_proj")


class CannotBake(ValueError):
    """An edit that the weights of this model cannot carry; the message says why."""


class Output(NamedTuple):
    """A matrix, its bias if it has one, and which of its axes is the residual stream's."""

    name: str
    weight: nn.Parameter
    bias: nn.Parameter | None
    axis: int


def mlp_outputs(lvlm: Layout, layer: int) -> list[Output]:
    """What a layer's MLP ends with: one matrix, or with experts each one's (or all of them in one tensor).

    Raises:
        CannotBake: no such matrix is found, or its shape does not say which axis is the output.
    """
    return _outputs(lvlm, layer, lvlm.layers[layer].mlp, MLP_OUTPUTS, "MLP")


def head_output(lvlm: Layout, layer: int) -> Output:
    """What a layer's heads are handed to."""
    found = _outputs(lvlm, layer, lvlm.layers[layer].self_attn, HEAD_OUTPUTS, "attention")
    if len(found) != 1:
        raise CannotBake(f"{lvlm.name}, layer {layer}: {len(found)} output projections of heads; one is needed.")
    return found[0]


def mlp_bias(lvlm: Layout, layer: int) -> Tensor | None:
    """The bias that a layer's MLP adds behind its last matrix.

    Raises:
        CannotBake: experts with biases of their own, of which each token has another share.
    """
    found = mlp_outputs(lvlm, layer)
    if len(found) > 1 and any(one.bias is not None for one in found):
        raise CannotBake(f"{lvlm.name}, layer {layer}: experts with biases, of which each token has another share.")
    return found[0].bias


def projected(
    lvlm: Layout, layer: int, basis: Float[Tensor, "hidden rank"]
) -> dict[str, Tensor]:
    """W ← (I − VVᵀ)·W for the matrices that a layer's MLP ends with; biases stay. basis: V, orthonormal columns."""
    project = lambda w: w - (v := basis.to(w)) @ (v.T @ w)
    return {one.name: _along(one, project) for one in mlp_outputs(lvlm, layer)}


def scaled_heads(lvlm: Layout, heads: Mapping[int, Sequence[int]], factor: float) -> dict[str, Tensor]:
    """The output projections with the columns of some layers' query heads times `factor`.

    Raises:
        CannotBake: a projection's width is no multiple of the number of heads.
    """
    out = {}
    for layer, some in heads.items():
        one = head_output(lvlm, layer)
        width = one.weight.shape[1 - one.axis]
        if width % lvlm.heads:
            raise CannotBake(f"{one.name} has {width} columns, which {lvlm.heads} heads do not share evenly.")
        gains = torch.ones(lvlm.heads)
        gains[list(some)] = factor
        wide = gains.repeat_interleave(width // lvlm.heads)
        out[one.name] = _along(one, lambda weight, wide=wide: weight * wide.to(weight))
    return out


def added(lvlm: Layout, layer: int, vector: Float[Tensor, " hidden"]) -> dict[str, Tensor]:
    """The bias of a layer's MLP with a fixed vector added, which every token's output then has.

    Raises:
        CannotBake: the MLP has no bias to carry it; an ordinary checkpoint of this family has no place for one.
    """
    bias, found = mlp_bias(lvlm, layer), mlp_outputs(lvlm, layer)
    if bias is None:
        raise CannotBake(
            f"{found[0].name} has no bias that could carry a fixed vector, and a checkpoint with one would be none of "
            f"{lvlm.model.config.model_type}'s."
        )
    name = next(name for name, value in lvlm.model.named_parameters() if value is bias)
    return {name: (bias.detach().to(_wide(bias)) + vector.to(bias.device)).to(bias.dtype)}


# -- helpers -------------------------------------------------------------------------------------------------------
def _outputs(lvlm: Layout, layer: int, part: nn.Module, names: Sequence[str], kind: str) -> list[Output]:
    known = {id(value): name for name, value in lvlm.model.named_parameters()}
    out = []
    for name, value in part.named_parameters():
        words = name.split(".")
        owner_name = words[-2] if len(words) > 1 and words[-1] == "weight" else words[-1]
        if value.dim() < 2 or owner_name not in names:
            continue
        owner = part.get_submodule(".".join(words[:-1]))
        bias = getattr(owner, "bias" if words[-1] == "weight" else f"{words[-1]}_bias", None)
        out.append(Output(known[id(value)], value, bias, _axis(lvlm, known[id(value)], value)))
    if not out:
        found = ", ".join(name for name, _ in part.named_parameters()) or "no parameters"
        raise CannotBake(f"{lvlm.name}, layer {layer}: its {kind} has none of {', '.join(names)}; found {found}.")
    return out


def _axis(lvlm: Layout, name: str, weight: Any) -> int:
    """Which of the last two axes is the residual stream's: a Linear's first, other storage by its size."""
    rows, columns = weight.shape[-2:]
    size = lvlm.hidden_size
    if size not in (rows, columns) or (rows == columns and weight.dim() > 2):
        raise CannotBake(f"{name} has the shape {tuple(weight.shape)}: no axis is known to be the stream's {size}.")
    return 0 if rows == size else 1


def _along(one: Output, change: Any) -> Tensor:
    """The matrix after a change that takes its output axis first."""
    wide = one.weight.detach().to(_wide(one.weight))
    return (change(wide) if one.axis == 0 else change(wide.mT).mT).to(one.weight.dtype).contiguous()


def _wide(value: Tensor) -> torch.dtype:
    return torch.promote_types(value.dtype, torch.float32)
