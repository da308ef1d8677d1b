"""Baselines that need nothing but the next-token distribution: the confidence of the model in its token."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ..pipelines.engine.record import Record
from ..pipelines.method import Detector


@dataclass(frozen=True)
class TokenProbability(Detector):
    """Negative log-likelihood of the chosen token, −ln p(y_t), nats, 0 or more.

    p is the model's own distribution, before any contrast, cut or temperature.
    """

    def score(self, record: Record) -> Float[Tensor, "sample token"]:
        return -record.log_probability


@dataclass(frozen=True)
class Entropy(Detector):
    """Entropy of the next-token distribution, −Σ_v p ln p over the whole vocabulary, nats."""

    def score(self, record: Record) -> Float[Tensor, "sample token"]:
        return record.entropy
