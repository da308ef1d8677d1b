"""The control that every attention detector must beat: it knows only where the token stands."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..pipelines.engine.record import Record
from ..pipelines.method import Detector


@dataclass(frozen=True)
class Position(Detector):
    """t / (t + 32) for generated token t = 0, 1, …: later means riskier, and nothing else counts.

    Hallucinated words come later in captions, so that a score that merely falls with position resembles a detector.
    """

    def score(self, record: Record) -> Float[Tensor, "sample token"]:
        place = torch.arange(record.ids.shape[1], device=record.ids.device, dtype=torch.float32)
        return (place / (place + 32)).expand(record.ids.shape)
