"""Vision-aware Head Divergence as a detector (T-VHD).

He et al., "Cracking the Code of Hallucination in LVLMs with Vision-aware Head Divergence", ACL 2025, arXiv 2412.13949.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from ..pipelines.declarations import Branch, Reading
from ..pipelines.record import Record


@dataclass(frozen=True)
class VHD:
    r"""Risk = −T-VHD, T-VHD_t = Σ_l Σ of the k largest ‖A_{l,i}(image) − A_{l,i}(no image)‖₂   (Eq. 4–5)

    A: a head's output before the output projection, at the row that produces the token; both runs share the text so
    far, and the image-free one has the image tokens deleted.

    Args:
        top: k heads per layer; None is half of them. The paper does not state k.
    """

    top: int | None = None

    paper: ClassVar[str] = "arXiv 2412.13949"
    reads: ClassVar[str] = "head outputs, with and without the image"

    def readings(self, lvlm: Any, inputs: Any) -> Iterator[Any]:
        layers, branch = range(len(lvlm.layers)), "vhd/image_free"
        yield Branch(branch, lvlm.image_free(inputs))
        yield Reading("vhd/seeing", layers, keep=lambda heads: heads, of="heads")
        yield Reading("vhd/blind", layers, keep=lambda heads: heads, of="heads", branch=branch)

    def divergence(self, record: Record) -> Float[Tensor, "sample token layer head"]:
        return (record["vhd/seeing"].float() - record["vhd/blind"].float()).norm(dim=-1)

    def features(self, lvlm: Any, inputs: Any, ids: Tensor) -> Float[Tensor, "sample token layer head"]:
        """VHD of every head for given text."""
        from ..pipelines.generate import teacher_force

        return self.divergence(teacher_force(lvlm, inputs, ids, [self]))

    def score(self, record: Record) -> Float[Tensor, "sample token"]:
        vhd = self.divergence(record)
        count = self.top or max(1, vhd.shape[-1] // 2)
        return -vhd.topk(min(count, vhd.shape[-1]), dim=-1).values.sum((-1, -2))
