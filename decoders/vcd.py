"""Visual Contrastive Decoding (VCD).

Leng et al., "Mitigating Object Hallucinations in Large Vision-Language Models through Visual Contrastive Decoding",
CVPR 2024, arXiv 2311.16922.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ..pipelines.checks import check_at_least, check_integers, check_range, check_seed
from ..pipelines.engine.declarations import Branch, Declaration, LogitsEdit, Step
from .plausibility import cut

if TYPE_CHECKING:
    from ..pipelines.lvlm import LVLM, Inputs

STEPS = 1000


def noise_scale(step: int) -> tuple[float, float]:
    """(√ᾱ_t, √(1 − ᾱ_t)) of the sigmoid noise schedule.

    β_t = sigmoid(u_t)·(0.005 − 1e-5) + 1e-5, u_t from −6 to 6 in 1000 steps; ᾱ_t = Π_{s ≤ t} (1 − β_s), t from 0.
    """
    check_range("noise_step", step, 0, STEPS - 1, "diffusion step of the noise, counted from 0")
    beta = torch.sigmoid(torch.linspace(-6, 6, STEPS, dtype=torch.float64)) * (0.005 - 1e-5) + 1e-5
    kept = (1 - beta).cumprod(0)[step]
    return float(kept.sqrt()), float((1 - kept).sqrt())


def diffuse(pixels: Float[Tensor, image *pixel], step: int, seed: int = 0) -> Float[Tensor, image *pixel]:
    """Pixels after `step` diffusion steps: √ᾱ·x + √(1 − ᾱ)·ε, ε standard normal, in the processor's normalised space.

    ε comes from a generator seeded anew for each image, so that an image's noise does not depend on the batch.
    """
    keep, spread = noise_scale(step)
    noise = torch.randn(pixels.shape[1:], generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
    return (keep * pixels.float() + spread * noise.to(pixels.device)).to(pixels.dtype)


def diffused(inputs: Inputs, step: int, seed: int) -> dict[str, Tensor]:
    """The same prompts with their pixels diffused. Flattened patches (Qwen) are noised picture by picture."""
    if "pixel_values" not in inputs:
        raise ValueError(f"there is no picture to noise: inputs lack pixel_values; found {', '.join(inputs)}")
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


def contrast(
    logits: Float[Tensor, "batch vocab"], other: Float[Tensor, "batch vocab"], alpha: float
) -> Float[Tensor, "batch vocab"]:
    """(1 + α)·l − α·l′"""
    return (1 + alpha) * logits - alpha * other


@dataclass(frozen=True)
class VCD:
    r"""Push the choice away from what the model says of a noised picture.

    z = (1 + α)·l − α·l′   (Eq. 3),   then z[v] = −inf where p(v) < β·max p   (Eq. 4)

    l, l′: (batch, vocab) logits for the picture and for the diffused picture, same prompt and same tokens so far.

    Args:
        alpha: strength of the contrast, 0 or more; 0 leaves l. Paper: 1.
        beta: plausibility cut, 0 to 1; 0 is no cut, 1 leaves l's arg-max alone. Paper: 0.1.
        noise_step: diffusion step of the noise, 0 to 999. Paper: 500 (999 for some benchmarks of its code).
        seed: of the noise.

    Raises:
        ValueError: a value outside its range.

    The released code draws the noise from the global generator; here it is the method's own. Otherwise they agree.
    """

    alpha: float = 1.0
    beta: float = 0.1
    noise_step: int = 500
    seed: int = 0

    paper: ClassVar[str] = "arXiv 2311.16922"
    changes: ClassVar[str] = "logits, against a noised picture"
    cost: ClassVar[str] = "2 forwards per token"
    differs: ClassVar[str] = (
        "The released code draws its noise from the global generator; here the method has its own. official() is the "
        "same otherwise."
    )

    def __post_init__(self) -> None:
        check_at_least("alpha", self.alpha, 0, "strength of the contrast")
        check_range("beta", self.beta, 0, 1, "plausibility cut")
        check_range("noise_step", self.noise_step, 0, STEPS - 1, "diffusion step of the noise, counted from 0")
        check_integers("noise_step", (self.noise_step,), "diffusion step of the noise")
        object.__setattr__(self, "seed", check_seed("seed", self.seed, "of the noise"))

    @classmethod
    def official(cls) -> VCD:
        """What the released code runs on POPE: the same values."""
        return cls()

    def edits(self, lvlm: LVLM, inputs: Inputs) -> Iterator[Declaration]:
        if self.alpha == 0 and self.beta == 0:
            return
        yield Branch("vcd", diffused(inputs, self.noise_step, self.seed))
        yield LogitsEdit(self.mix)

    def mix(self, logits: Float[Tensor, "batch vocab"], step: Step) -> Float[Tensor, "batch vocab"]:
        return cut(contrast(logits, step.branches["vcd"], self.alpha), logits, self.beta)
