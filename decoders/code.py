"""CODE: contrasting self-generated description.

Kim et al., "CODE: Contrasting Self-generated Description to Combat Hallucination in Large Multi-modal Models",
NeurIPS 2024, arXiv 2406.01920.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from ..pipelines.engine.declarations import Step
from ..pipelines.method import count, number, ruled
from ..pipelines.model.families import inside
from .contrast import Contrast, contrast
from .description import descriptions
from .rewritten import image_runs, rebuilt, spliced, unpadded

if TYPE_CHECKING:
    from ..pipelines.model.layout import Inputs, Layout


def distance(
    p: Float[Tensor, "batch vocab"], q: Float[Tensor, "batch vocab"], power: float
) -> Float[Tensor, "batch 1"]:
    """D = ½·Σ_v (p + q)·log₂(|p − q|^k + 1), 0 for equal distributions, at most 1."""
    return (0.5 * (p + q) * ((p - q).abs() ** power + 1).log2()).sum(1, keepdim=True).clamp(max=1)


def contrasted(
    logits: Float[Tensor, "batch vocab"], described: Float[Tensor, "batch vocab"], power: float
) -> Float[Tensor, "batch vocab"]:
    """z = (2 − D)·l − (1 − D)·l_d, without the tokens of p < D·max p; p, q and D in float32 or more."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    p, q = logits.softmax(1, dtype=wide), described.softmax(1, dtype=wide)
    far = distance(p, q, power)
    z = contrast(logits.to(wide), described.to(wide), 1 - far)
    return z.masked_fill(p < far * p.amax(1, keepdim=True), -math.inf).to(logits.dtype)


@dataclass(frozen=True)
class CODE(Contrast):
    r"""Push the choice away from what the model's own description of the image predicts without the image.

    D = ½·Σ_v (p_v + q_v)·log₂(|p_v − q_v|^k + 1),   α = 1 − D
    z = (1 + α)·l − α·l_d,   then z[v] = −inf where p(v) < D·max p

    l, l_d: (batch, vocab) logits for the prompt, and for the same prompt with a description in the image's place, same
    tokens so far; p, q: their softmax, in float32. k: `power`. Contrast and cut follow, row by row, how far the two are
    apart: close branches are contrasted and hardly cut, of distant ones only the best token stays.

    `description` gives the token ids; by default the model describes the image once, greedily, in at most
    `max_new_tokens`, without special tokens. That is kept for the image's other questions while the program runs.

    Raises:
        ValueError: a value outside its range; when decoding starts, neither a processor nor a `description`, a
            description that is no token ids of the model, or no image to describe.

    Formula and values are those of the released code (the paper's text was not read): its `cd_alpha` is the exponent,
    and its `cd_beta` is never used. Its fallback for k is 0.2, at which the cut leaves next to nothing but the best
    token. It computes D in half precision, where one step of rounding counts, lets D exceed 1, which cuts every token,
    and puts a start token in front of the description; none is reproduced, so that `official()` is the same. Tokens
    around an image stay. The tiles of one image are one image where the processor says which tokens stand between them.
    InstructBLIP's description is asked for in its Q-Former too.
    """

    power: float = number(0.7, "exponent of the distance", "0 leaves the best token alone. Code: 0.7.")
    description: Callable[..., object] | None = ruled(
        None, "what describes the images",
        "a callable, from the inputs or from inputs and prompts, to one 1-D tensor of token ids per sample",
        "Without special tokens; a list of several is one for each image of the sample. By default the model itself.",
    )  # fmt: skip
    max_new_tokens: int = count(
        512, "tokens of the model's own description at most", "0 is no description: plain decoding. Code: 512."
    )

    against = "the model's own description of the image"
    weighs = ("max_new_tokens",)
    neutral = {"max_new_tokens": 0}
    released = {}  # what its command line runs, but for the bugs above

    def validate(self) -> None:
        if self.description is not None and not callable(self.description):
            raise ValueError(
                f"description={self.description!r} cannot be called; give a function from the inputs to token ids."
            )

    @property
    def cuts(self) -> bool:
        return not self.is_neutral

    def branch(self, lvlm: Layout, inputs: Inputs) -> Inputs:
        tiles, rows = inside(lvlm.model, getattr(lvlm.processor, "tokenizer", None)), []
        texts = descriptions(lvlm, inputs, self.description, self.max_new_tokens)
        for row, (ids, own) in enumerate(zip(unpadded(inputs), texts, strict=True)):
            runs = image_runs(ids, lvlm.image_token, tiles)
            if len(own) not in (1, len(runs)):
                raise ValueError(f"description gave {len(own)} texts for the {len(runs)} images of sample {row}.")
            rows.append(spliced(ids, runs, own if len(own) == len(runs) else own * len(runs)))
        return rebuilt(lvlm, inputs, rows, images=False)

    def mix(self, logits: Float[Tensor, "batch vocab"], step: Step) -> Float[Tensor, "batch vocab"]:
        return contrasted(logits, step.branches[self.opened], self.power)
