"""What is chosen from, and what is demanded: one frozen object of plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ...metrics.risk_control import images_needed
from ...pipelines.model.spec import ModelSpec
from ..benchmarks.base import Source
from ..evaluation.request import Evaluation, chain

PLAIN = "greedy"
BENCHMARK = "chair"


@dataclass(frozen=True)
class Choice:
    """A request for a setting.

    Args:
        source: images with annotations, of a COCO folder or of the embedded world; limit of them are captioned.
        level: the largest expected share of hallucinated mentions in a caption.
        confidence: with which the level is kept; None controls the expectation itself, by conformal risk control.
        recall_loss: tolerable loss of CHAIR's recall against plain decoding. seconds: per image, at most; None is any.
        decoders: candidates, each as it is and with `drop` by the detector's risk of a sentence.
        gate_shares: of tokens; every candidate but plain decoding is also gated so that it acts at this share of steps.
        calibration_share: of the images that choose; the others certify. seed: of that division.
    """

    model: ModelSpec = field(default_factory=lambda: ModelSpec("embedded"))
    source: Source = field(default_factory=Source)
    level: float = 0.1
    confidence: float | None = 0.9
    recall_loss: float = 0.05
    seconds: float | None = None
    decoders: Sequence[str] = (PLAIN, "m3id:gate=0.5")
    detector: str = "lookback_lens"
    gate_shares: Sequence[float] = ()
    calibration_share: float = 1 / 3
    seed: int = 0
    batch_size: int = 32
    max_new_tokens: int | None = None

    @property
    def candidates(self) -> list[str]:
        """Decoders to run, plain decoding among them: recall is compared with its."""
        return list(dict.fromkeys([PLAIN, *self.decoders]))

    def check(self) -> None:
        """Refuse what cannot be chosen before any image is captioned.

        Raises:
            ValueError: a share or level outside 0 to 1, a budget below 0, a candidate that is a procedure, or too few
                images for any claim.
            UnknownName: no such decoder or detector.
        """
        from ...pipelines.chain import split
        from ...pipelines.registry import DETECTORS

        for name, value in [("calibration_share", self.calibration_share), *[("share", s) for s in self.gate_shares]]:
            if not 0 < value < 1:
                raise ValueError(f"{name}={value:g} is outside 0 to 1.")
        if not 0 <= self.recall_loss <= 1:
            raise ValueError(f"recall_loss={self.recall_loss:g} is outside 0 to 1 (0.02 is two points of recall).")
        if self.seconds is not None and self.seconds <= 0:
            raise ValueError(f"seconds={self.seconds:g} is not above 0 (per image).")
        self.enough(self.source.limit)
        for decoder in self.candidates:
            if split(chain(decoder, self.model.name))[0] is not None:
                raise ValueError(f"{decoder} is a procedure; candidates are decoders, to which `drop` is added here.")
        DETECTORS.make(self.detector)

    def enough(self, images: int) -> None:
        """Refuse a number of images of which too few certify.

        Raises:
            ValueError: says how many are needed.
        """
        needed = images_needed(self.level, self.confidence)
        certify = images - self.calibrating(images)
        if self.calibrating(images) < 1 or certify < needed:
            demand = f"{self.level:g}" + ("" if self.confidence is None else f" with confidence {self.confidence:g}")
            raise ValueError(
                f"{images} images leave {certify} to certify with; a level of {demand} takes {needed} even if no "
                "caption has a mistake: give more images, a higher level or less confidence."
            )

    def calibrating(self, images: int) -> int:
        """How many of so many images choose."""
        return round(images * self.calibration_share)

    def evaluation(self, decoders: Sequence[str]) -> Evaluation:
        """The run of candidates with the detector reading along."""
        generation = {} if self.max_new_tokens is None else {"max_new_tokens": self.max_new_tokens}
        return Evaluation(
            self.model, decoders, [self.detector], [BENCHMARK], self.source, self.batch_size, generation,
            attention_maps=0,
        )

    def record(self) -> dict[str, Any]:
        return asdict(self)
