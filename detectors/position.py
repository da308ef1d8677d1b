"""The control that every attention detector must beat: it knows only where the token stands."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ..pipelines.engine.record import Record


@dataclass(frozen=True)
class Position:
    """t / (t + 32) for generated token t = 0, 1, …: later means riskier, and nothing else is looked at.

    Hallucinated words come later in captions, so that a score that merely falls with position looks like a detector.
    """

    paper: ClassVar[str] = "control"
    reads: ClassVar[str] = "nothing"

    def readings(self, lvlm: Any, inputs: Any) -> Iterator[Any]:
        yield from ()

    def score(self, record: Record) -> Float[Tensor, "sample token"]:
        place = torch.arange(record.ids.shape[1], device=record.ids.device, dtype=torch.float32)
        return (place / (place + 32)).expand(record.ids.shape)
