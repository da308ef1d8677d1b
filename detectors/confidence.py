"""Baselines that need nothing but the next-token distribution: the confidence of the model in its token."""

import math
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from ..pipelines.engine.record import Record
from ..pipelines.method import Detector


@dataclass(frozen=True)
class TokenProbability(Detector):
    """Negative log-likelihood of the chosen token, −ln p(y_t), nats, 0 or more.

    p is the model's own distribution, before any contrast, cut or temperature. It reads the token itself, and so judges
    texts that the model did not write; there a word stands out to which the model gives less than 1 %.
    """

    judges_texts: ClassVar[bool] = True
    text_threshold: ClassVar[float | None] = math.log(100)

    def score(self, record: Record) -> Float[Tensor, "sample token"]:
        return -record.log_probability


@dataclass(frozen=True)
class Entropy(Detector):
    """Entropy of the next-token distribution, −Σ_v p ln p over the whole vocabulary, nats."""

    def score(self, record: Record) -> Float[Tensor, "sample token"]:
        return record.entropy
