"""Vision-aware Head Divergence as a detector (T-VHD).

He et al., "Cracking the Code of Hallucination in LVLMs with Vision-aware Head Divergence", ACL 2025, arXiv 2412.13949.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..pipelines.engine.declarations import Branch, Reading
from ..pipelines.engine.record import Record
from ..pipelines.method import Detector, count, one_of

Distance = Literal["norm", "squared", "cosine", "relative"]
DISTANCES = ("norm", "squared", "cosine", "relative")


def distance(
    with_image: Float[Tensor, "*items head_dim"], without_image: Float[Tensor, "*items head_dim"], kind: Distance
) -> Float[Tensor, "*items"]:
    """How far two outputs of a head are apart.

    norm: ‖a − b‖₂; squared: its square; cosine: 1 − a·b/(‖a‖‖b‖); relative: ‖a − b‖₂ / (‖a‖ + ‖b‖), 0 to 1. The first
    two grow with the size of a head's output, so that a few heads decide.
    """
    with_image, without_image = with_image.float(), without_image.float()
    apart = (with_image - without_image).norm(dim=-1)
    if kind == "squared":
        return apart**2
    if kind == "cosine":
        return 1 - torch.cosine_similarity(with_image, without_image, dim=-1)
    if kind == "relative":
        return apart / (with_image.norm(dim=-1) + without_image.norm(dim=-1)).clamp(min=1e-12)
    return apart


@dataclass(frozen=True)
class VHD(Detector):
    r"""Risk = −T-VHD, T-VHD_t = Σ_l Σ of the k largest ‖A_{l,i}(image) − A_{l,i}(no image)‖₂   (Eq. 4–5)

    A: a head's output before the output projection, at the row that produces the token; both runs share the text so
    far, and the image-free one has the image tokens deleted.

    k: `top`, per layer; `over` the "layer", as we read Eq. 5, or the whole "model" together. `distance` says what
    stands in the place of ‖·‖₂.

    Raises:
        ValueError: top below 1, or another word.
    """

    top: int | None = count(None, "heads per layer", "By default half of them. The paper does not state k.", low=1)
    over: Literal["layer", "model"] = one_of(("layer", "model"), "what the largest divergences are taken of")
    distance: Distance = one_of(
        DISTANCES, "of a head's outputs with and without the image",
        "squared as a port has it; cosine and relative do not grow with the size of the output.",
    )  # fmt: skip

    def readings(self, lvlm: Any, inputs: Any) -> Iterator[Any]:
        layers, branch, pairs = range(len(lvlm.layers)), "vhd/image_free", _Pairs(self.distance)
        yield Branch(branch, lvlm.image_free(inputs))
        yield Reading("vhd/with_image", layers, keep=pairs.first, of="heads")
        yield Reading("vhd", layers, keep=pairs.second, of="heads", branch=branch)

    def divergence(self, record: Record) -> Float[Tensor, "sample token layer head"]:
        return record["vhd"]

    def features(self, lvlm: Any, inputs: Any, ids: Tensor) -> Float[Tensor, "sample token layer head"]:
        """VHD of every head for a finished text."""
        from ..pipelines.generate import teacher_force

        return self.divergence(teacher_force(lvlm, inputs, ids, [self]))

    def score(self, record: Record) -> Float[Tensor, "sample token"]:
        vhd = self.divergence(record)
        count = min(self.top or max(1, vhd.shape[-1] // 2), vhd.shape[-1])
        if self.over == "model":
            count, vhd = count * vhd.shape[-2], vhd.flatten(2)[:, :, None]
        return -vhd.topk(count, dim=-1).values.sum((-1, -2))


class _Pairs:
    """Keeps distances alone: a layer reads its readings in their order, and outputs are head_dim times as large."""

    def __init__(self, kind: Distance) -> None:
        self.kind, self.with_image = kind, torch.empty(0)

    def first(self, heads: Float[Tensor, "row token head head_dim"]) -> Float[Tensor, "row token head nothing"]:
        self.with_image = heads.clone()  # of a prompt this may be a view of all its positions
        return heads[..., :0]

    def second(self, heads: Float[Tensor, "row token head head_dim"]) -> Float[Tensor, "row token head"]:
        return distance(self.with_image, heads, self.kind)
