"""Imbalanced attention, later named PAINT: boosts for two groups of image tokens, as far as it is specified.

Arif et al., "Fixing Imbalanced Attention to Mitigate In-Context Hallucination of Large Vision-Language Model", 2025,
arXiv 2501.12206 (v3: "PAINT: Paying Attention to INformed Tokens").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..pipelines.engine.declarations import AttentionEdit, Declaration
from ..pipelines.method import count, number, share
from .attention_sites import producing_rows
from .encoder_attention import encoder_attention
from .guidance import Guidance, boost
from .image_tokens import image_tokens, place

if TYPE_CHECKING:
    from ..pipelines.engine.call import AttentionCall
    from ..pipelines.model.layout import Inputs, Layout


def summary_tokens(late: Float[Tensor, "image patch"]) -> Bool[Tensor, "image patch"]:
    """Patches to which the late layer's class token attends beyond Q3 + 1.5·(Q3 − Q1), quartiles by interpolation."""
    low, high = late.float().quantile(torch.tensor([0.25, 0.75], device=late.device), dim=1)[..., None]
    return late > high + 1.5 * (high - low)


def local_tokens(
    early: Float[Tensor, "image patch"], summary: Bool[Tensor, "image patch"], ratio: float
) -> Bool[Tensor, "image patch"]:
    """The ⌊ratio·patches⌋ patches with most attention in the first layer, less the summary tokens."""
    best = early.topk(int(ratio * early.shape[1] + 1e-9), dim=1).indices
    return torch.zeros_like(summary).scatter(1, best, True) & ~summary


def by_sample(
    patches: Bool[Tensor, "image patch"], image: Bool[Tensor, "sample position"]
) -> Bool[Tensor, "sample token"]:
    """A mask over the images' patches as one over every sample's image tokens, in their order.

    Raises:
        ValueError: the prompts have not one image token per patch.
    """
    counts = image.sum(1).tolist()
    if sum(counts) != patches.numel() or any(count % patches.shape[1] for count in counts):
        raise ValueError(
            f"Imbalanced needs one image token per patch; found {patches.shape[0]} images of {patches.shape[1]} "
            f"patches and prompts of {counts} image tokens"
        )
    spread = torch.zeros_like(image)
    spread[image] = patches.flatten().to(image.device)
    return image_tokens(spread, image)[0]


@dataclass(frozen=True)
class Imbalanced(Guidance):
    r"""Raise the newest token's attention to local and to summary image tokens, and guide logits away from the text.

    z_j ← z_j + s_j·|z_j|   before the softmax, in the rows that produce tokens;   s = `local` on T, `summary` on B
    B: patches whose attention from the class token, summed over heads, is an outlier in the vision encoder's
    second-last layer (`summary_tokens`); T: the largest share `ratio` in its first layer, and the share `spatial` with
    most attention there over all rows, less B (`local_tokens`). Then the guidance of PAI (`guidance.guide`) by `gamma`
    and `beta`.

    z: (batch, head, query, key), every head of the language model from layer `skip_first` on.

    Raises:
        ValueError: a value outside its range; when decoding starts, a vision encoder without class token (the method
            is defined for CLIP's), or images that are not one feature per patch.

    Read in the released code; the paper's method section could not be. Not here, because no formula is known: the
    per-head amplification that v1's abstract promises (no released commit has it). The released score of "spatial"
    tokens sums rows of a softmax and is 1 for every token up to rounding; ours sums columns. Tokens are chosen per
    image, for the whole batch; the released code takes the first one's. Its settings for "original" rows are unknown.
    """

    local: float = number(
        0.7, "boost of local tokens", "The paper's α, 0.7. From 0.5 to 0.7 captions start to repeat themselves."
    )
    summary: float = number(0.4, "boost of summary tokens", "The paper's β, 0.4; code: 0.3.")
    ratio: float = share(0.25, "share of the patches that are local tokens", "Paper: 0.25.")
    gamma: float = number(1.1, "guidance", "1 is none. All published runs: 1.1.", low=1)
    beta: float = share(0.1, "plausibility cut of the guidance", "0 is no cut. Code: 0.1.")
    skip_first: int = count(2, "layers that keep their attention", "Code: 2.")
    spatial: float = share(
        0.0, "share of the patches with most attention, which join the local ones", 'Paper: 0; 0.05 "with spatial".'
    )

    inside = ("local", "summary")
    neutral = {"local": 0, "summary": 0, "gamma": 1}
    faint = {"local": 1e-7, "summary": 1e-7, "gamma": 1.0000001, "beta": 0}
    released = {"summary": 0.3}  # the values written into the code

    def boosts(self, lvlm: Layout, inputs: Inputs) -> Iterator[Declaration]:
        if not self.on(*self.inside):
            return
        early, late, received = encoder_attention(lvlm, inputs)
        patches = summary_tokens(late)
        chosen = local_tokens(early, patches, self.ratio) | local_tokens(received, patches, self.spatial)
        image = lvlm.image_mask(inputs["input_ids"])
        edit = partial(self.edit, by_sample(chosen, image), by_sample(patches, image))
        # of no layer in a model of few, so that the run says that nothing changed
        yield AttentionEdit(range(self.skip_first, len(lvlm.layers)), edit, on="scores", changes="producing")

    def edit(
        self, on_local: Bool[Tensor, "sample image"], on_summary: Bool[Tensor, "sample image"],
        scores: Float[Tensor, "batch head query key"], call: AttentionCall,
    ) -> Float[Tensor, "batch head query key"]:  # fmt: skip
        columns = lambda tokens: call.columns(place(tokens, call.sequences)).float()
        strength = self.local * columns(on_local) + self.summary * columns(on_summary)
        return boost(scores, strength, producing_rows(call, scores.shape[2]))
