"""Low-rank updates of a language model's linear layers while it is trained (LoRA, Hu et al., ICLR 2022)."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from ....pipelines.model.smollm2 import SCALE

RANK = 16
GROUPED = "veridical_grouped"


class LowRank(nn.Module):
    """W x + SCALE · up · down x, with W frozen. down: (rank, input), random; up: (output, rank), zero at the start."""

    def __init__(self, base: nn.Linear, rank: int = RANK) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Parameter(torch.randn(rank, base.in_features) / base.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        inner = nn.functional.linear(x, self.down.to(x.dtype))
        return self.base(x) + nn.functional.linear(inner, (SCALE * self.up).to(x.dtype))


def add(language_model: Any) -> dict[str, LowRank]:
    """Put an update on each linear layer of the decoder; returns them by the layer's name."""
    found = [name for name, module in language_model.named_modules() if isinstance(module, nn.Linear)]
    out = {}
    for name in found:
        above, _, last = name.rpartition(".")
        parent = language_model.get_submodule(above)
        out[name] = LowRank(getattr(parent, last))
        setattr(parent, last, out[name])
    return out


def grouped(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float, **_: Any
) -> tuple[Tensor, None]:
    """Eager attention with the query heads of a key head side by side: no key is repeated, and the backward pass,
    which copies transposed bfloat16 slowly on a CPU, takes a fifth of the time."""
    rows, heads, length, width = query.shape
    groups = key.shape[1]
    query = query.reshape(rows, groups, heads // groups * length, width)
    scores = (query @ key.transpose(2, 3).contiguous() * scaling).view(rows, heads, length, length)
    weights = (scores + mask.to(scores.dtype)).softmax(-1, dtype=torch.float32).to(value.dtype)
    out = weights.view(rows, groups, -1, length) @ value.contiguous()
    return out.view(rows, heads, length, width).transpose(1, 2).contiguous(), None


AttentionInterface.register(GROUPED, grouped)
