"""Visual Contrastive Decoding (VCD).

Leng et al., "Mitigating Object Hallucinations in Large Vision-Language Models through Visual Contrastive Decoding",
CVPR 2024, arXiv 2311.16922.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..pipelines.method import count, number, seed, share
from .contrast import Contrast, contrast
from .diffusion import STEPS, diffuse, diffused, noise_scale

if TYPE_CHECKING:
    from ..pipelines.model.layout import Inputs, Layout

__all__ = ["STEPS", "VCD", "contrast", "diffuse", "diffused", "noise_scale"]


@dataclass(frozen=True)
class VCD(Contrast):
    r"""Push the choice away from what is likely for a noised image.

    z = (1 + α)·l − α·l′   (Eq. 3),   then z[v] = −inf where p(v) < β·max p   (Eq. 4)

    l, l′: (batch, vocab) logits for the image and for the image after `noise_step` diffusion steps with noise of
    `seed`, same prompt and same tokens so far. α, β: `alpha`, `beta`.

    Raises:
        ValueError: a value outside its range; when decoding starts, inputs without an image.

    The released code draws the noise from the global generator; here it is the method's own. Otherwise they agree.
    """

    alpha: float = number(1.0, "strength of the contrast", "0 leaves l. Paper: 1.")
    beta: float = share(0.1, "plausibility cut", "0 is no cut, 1 leaves l's arg-max alone. Paper: 0.1.")
    noise_step: int = count(
        500, "diffusion step of the noise, counted from 0", "Paper: 500; 999 for some benchmarks of its code.",
        high=STEPS - 1,
    )  # fmt: skip
    seed: int = seed()

    against = "a noised image"
    neutral = {"alpha": 0, "beta": 0}
    faint = {"alpha": 1e-7}
    released = {}  # what it runs on POPE

    def branch(self, lvlm: Layout, inputs: Inputs) -> Inputs:
        return diffused(inputs, self.noise_step, self.seed)
