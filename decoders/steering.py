"""States turned toward a vector, their length kept: what VSV does to a layer, by its paper and by its released code."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def steer(
    hidden: Float[Tensor, "batch query hidden"], vector: Float[Tensor, "batch hidden"], strength: float
) -> Float[Tensor, "batch query hidden"]:
    """h̃ = h + λ·v, scaled back to ‖h‖ (Eq. 5–6)."""
    h, v = hidden.float(), vector.float()[:, None, :]
    moved = h + strength * v
    scale = h.norm(dim=-1, keepdim=True) / moved.norm(dim=-1, keepdim=True)
    return torch.where(scale.isfinite(), moved * scale, h).to(hidden.dtype)


def steer_official(
    output: Float[Tensor, "batch query hidden"], vector: Float[Tensor, "batch hidden"], strength: float
) -> Float[Tensor, "batch query hidden"]:
    """u = m/‖m‖ + λ·s·v/‖v‖, s = 1 + max(0, cos(m, −v)); m ← ‖m‖·u/‖u‖. 0/0 and v = 0 leave m."""
    m, v = output.float(), vector.float()[:, None, :]
    length = m.norm(dim=-1, keepdim=True)
    unit, toward = m / length, v / v.norm(dim=-1, keepdim=True)
    gain = 1 + (-(unit * toward).sum(-1, keepdim=True)).clamp(min=0)
    moved = unit + strength * gain * toward
    turned = length * moved / moved.norm(dim=-1, keepdim=True)
    return torch.where(turned.isfinite().all(-1, keepdim=True), turned, m).to(output.dtype)
