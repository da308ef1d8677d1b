"""How unsure the model is of its token: the baselines that need nothing but the next-token distribution."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from ..pipelines.engine.record import Record


@dataclass(frozen=True)
class TokenProbability:
    """Negative log-likelihood of the chosen token, −ln p(y_t), nats, 0 or more.

    p is the model's own distribution, before any contrast, cut or temperature.
    """

    paper: ClassVar[str] = "baseline"
    reads: ClassVar[str] = "logits"

    def readings(self, lvlm: Any, inputs: Any) -> Iterator[Any]:
        yield from ()

    def score(self, record: Record) -> Float[Tensor, "sample token"]:
        return -record.log_probability


@dataclass(frozen=True)
class Entropy:
    """Entropy of the next-token distribution, −Σ_v p ln p over the whole vocabulary, nats."""

    paper: ClassVar[str] = "baseline"
    reads: ClassVar[str] = "logits"

    def readings(self, lvlm: Any, inputs: Any) -> Iterator[Any]:
        yield from ()

    def score(self, record: Record) -> Float[Tensor, "sample token"]:
        return record.entropy
