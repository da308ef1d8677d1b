"""The adaptive plausibility cut that contrastive methods share."""

import math

from jaxtyping import Float
from torch import Tensor


def cut(
    mixed: Float[Tensor, "batch vocab"], original: Float[Tensor, "batch vocab"], beta: float
) -> Float[Tensor, "batch vocab"]:
    """Remove tokens that the original branch finds implausible.

    mixed[v] = −inf  where  original[v] < max original + ln β,   that is  p(v) < β · max p

    Ties stay; β = 0 cuts nothing; β = 1 keeps the original's arg-max alone. Li et al., contrastive decoding, ACL 2023.
    """
    if beta == 0:
        return mixed
    floor = original.max(dim=1, keepdim=True).values + math.log(beta)
    return mixed.masked_fill(original < floor, -math.inf)
