"""Vision-aware Head Divergence as a detector (T-VHD).

He et al., "Cracking the Code of Hallucination in LVLMs with Vision-aware Head Divergence", ACL 2025, arXiv 2412.13949.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..pipelines.checks import check_at_least, check_choice
from ..pipelines.engine.declarations import Branch, Reading
from ..pipelines.engine.record import Record

Distance = Literal["norm", "squared", "cosine", "relative"]
DISTANCES = ("norm", "squared", "cosine", "relative")


def distance(
    seeing: Float[Tensor, "*items head_dim"], blind: Float[Tensor, "*items head_dim"], kind: Distance
) -> Float[Tensor, "*items"]:
    """How far two outputs of a head are apart.

    norm: ‖a − b‖₂; squared: its square; cosine: 1 − a·b/(‖a‖‖b‖); relative: ‖a − b‖₂ / (‖a‖ + ‖b‖), 0 to 1. The first
    two grow with the size of a head's output, so that a few heads decide.
    """
    seeing, blind = seeing.float(), blind.float()
    apart = (seeing - blind).norm(dim=-1)
    if kind == "squared":
        return apart**2
    if kind == "cosine":
        return 1 - torch.cosine_similarity(seeing, blind, dim=-1)
    if kind == "relative":
        return apart / (seeing.norm(dim=-1) + blind.norm(dim=-1)).clamp(min=1e-12)
    return apart


@dataclass(frozen=True)
class VHD:
    r"""Risk = −T-VHD, T-VHD_t = Σ_l Σ of the k largest ‖A_{l,i}(image) − A_{l,i}(no image)‖₂   (Eq. 4–5)

    A: a head's output before the output projection, at the row that produces the token; both runs share the text so
    far, and the image-free one has the image tokens deleted.

    Args:
        top: k heads per layer; None is half of them. The paper does not state k.
        over: the k largest of each "layer", as we read Eq. 5, or k per layer of the whole "model" together.
        distance: "norm" as above; "squared", as a port has it; "cosine" or "relative", which do not grow with the size
            of a head's output.

    Raises:
        ValueError: top below 1, or another word.
    """

    top: int | None = None
    over: Literal["layer", "model"] = "layer"
    distance: Distance = "norm"

    paper: ClassVar[str] = "arXiv 2412.13949"
    reads: ClassVar[str] = "head outputs, with and without the image"

    def __post_init__(self) -> None:
        if self.top is not None:
            check_at_least("top", self.top, 1, "heads per layer")
        check_choice("over", self.over, ("layer", "model"), "what the largest divergences are taken of")
        check_choice("distance", self.distance, DISTANCES, "of a head's outputs with and without the image")

    def readings(self, lvlm: Any, inputs: Any) -> Iterator[Any]:
        layers, branch = range(len(lvlm.layers)), "vhd/image_free"
        yield Branch(branch, lvlm.image_free(inputs))
        yield Reading("vhd/seeing", layers, keep=lambda heads: heads, of="heads")
        yield Reading("vhd/blind", layers, keep=lambda heads: heads, of="heads", branch=branch)

    def divergence(self, record: Record) -> Float[Tensor, "sample token layer head"]:
        return distance(record["vhd/seeing"], record["vhd/blind"], self.distance)

    def features(self, lvlm: Any, inputs: Any, ids: Tensor) -> Float[Tensor, "sample token layer head"]:
        """VHD of every head for given text."""
        from ..pipelines.generate import teacher_force

        return self.divergence(teacher_force(lvlm, inputs, ids, [self]))

    def score(self, record: Record) -> Float[Tensor, "sample token"]:
        vhd = self.divergence(record)
        count = min(self.top or max(1, vhd.shape[-1] // 2), vhd.shape[-1])
        if self.over == "model":
            count, vhd = count * vhd.shape[-2], vhd.flatten(2)[:, :, None]
        return -vhd.topk(count, dim=-1).values.sum((-1, -2))
