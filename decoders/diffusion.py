"""Images after some steps of a diffusion process, which VCD and RBD contrast with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from ..pipelines.checks import check_range

if TYPE_CHECKING:
    from ..pipelines.model.layout import Inputs

STEPS = 1000


def noise_scale(step: int) -> tuple[float, float]:
    """(√ᾱ_t, √(1 − ᾱ_t)) of the sigmoid noise schedule.

    β_t = sigmoid(u_t)·(0.005 − 1e-5) + 1e-5, u_t from −6 to 6 in 1000 steps; ᾱ_t = Π_{s ≤ t} (1 − β_s), t from 0.
    """
    check_range("noise_step", step, 0, STEPS - 1, "diffusion step of the noise, counted from 0")
    beta = torch.sigmoid(torch.linspace(-6, 6, STEPS, dtype=torch.float64)) * (0.005 - 1e-5) + 1e-5
    kept = (1 - beta).cumprod(0)[step]
    return float(kept.sqrt()), float((1 - kept).sqrt())


def diffuse(pixels: Float[Tensor, " image *pixel"], step: int, seed: int = 0) -> Float[Tensor, " image *pixel"]:
    """Pixels after `step` diffusion steps: √ᾱ·x + √(1 − ᾱ)·ε, ε standard normal, in the processor's normalised space.

    ε comes from a generator seeded anew for each image, so that an image's noise does not depend on the batch.
    """
    keep, spread = noise_scale(step)
    noise = torch.randn(pixels.shape[1:], generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
    return (keep * pixels.float() + spread * noise.to(pixels.device)).to(pixels.dtype)


def diffused(inputs: Inputs, step: int, seed: int) -> dict[str, Tensor]:
    """The same prompts with their pixels diffused. Flattened patches (Qwen) are noised image by image."""
    if "pixel_values" not in inputs:
        raise ValueError(f"there is no image to noise: inputs lack pixel_values; found {', '.join(inputs)}")
    pixels = inputs["pixel_values"]
    if "image_grid_thw" in inputs:
        parts = pixels.split(inputs["image_grid_thw"].prod(1).tolist())
        noised = torch.cat([diffuse(part[None], step, seed)[0] for part in parts])
    elif pixels.dim() == 5:  # tiles of each row; all-zero ones fill the row up and must stay so
        noised = diffuse(pixels.flatten(0, 1), step, seed).view_as(pixels)
        noised = noised.masked_fill((pixels == 0).flatten(2).all(-1)[:, :, None, None, None], 0.0)
    else:
        noised = diffuse(pixels, step, seed)
    return {**inputs, "pixel_values": noised}
