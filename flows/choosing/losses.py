"""What every setting does to every image: losses and recall, from captions and risks that were recorded once.

`drop` leaves out the sentences whose risk exceeds a threshold: what it does at any threshold follows from the caption
and its risks, without another run of the model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...datasets.examples import Example
from ...metrics.chair import Chair
from ...pipelines.inputs.text_alignment import risk_of, sentences

THRESHOLDS = 200  # quantiles of the sentences' risks


@dataclass(frozen=True)
class Recorded:
    """One decoder's captions of all images.

    Args:
        texts: of each image. parts: its sentences and their risks. truth: the objects of each image.
        seconds: per image, mean.
    """

    decoder: str
    texts: Sequence[str]
    parts: Sequence[Sequence[tuple[str, float]]]
    truth: Sequence[frozenset[str]]
    seconds: float


@dataclass(frozen=True, eq=False)
class Losses:
    """A decoder at every threshold, the safest (the lowest) first.

    Args:
        thresholds: of `drop`; the last is infinite, which drops nothing.
        loss: (images, thresholds), share of the mentions that are hallucinated; 0 where nothing is mentioned.
        counts: (images, thresholds, 4): distinct objects named and there, objects there, mentions, wrong mentions.
    """

    decoder: str
    thresholds: Sequence[float]
    loss: NDArray
    counts: NDArray
    seconds: float

    def setting(self, at: int, detector: str) -> str:
        """The text that names the decoder with `drop` at a threshold, as -d takes it."""
        threshold = self.thresholds[at]
        if math.isinf(threshold):
            return self.decoder
        dropped = f"drop:detector={detector!r},threshold={threshold!r}"
        return dropped if self.decoder == "greedy" else f"{dropped}+{self.decoder}"

    def recall(self, images: NDArray) -> NDArray:
        """(thresholds,), over some of the images."""
        named, there = self.counts[images, :, 0].sum(0), self.counts[images, :, 1].sum(0)
        return named / np.maximum(there, 1)


def recorded(decoder: str, detector: str, examples: Sequence[Example], rows: Sequence[Mapping[str, Any]]) -> Recorded:
    """The captions of an evaluation's rows, cut into sentences; all rows are without an error.

    detector: the name of the risk that rows have.
    """
    parts = []
    for row in rows:
        found = []
        for part in sentences(row["text"], row["tokens"]):
            risk = [math.nan if r is None else r for r in row["risk"][detector][part.first : part.last]]
            found.append((part.text, risk_of(risk, "max")))
        parts.append(found)
    seconds = sum(row["seconds"] for row in rows) / max(len(rows), 1)
    return Recorded(decoder, [row["text"] for row in rows], parts, [example.objects for example in examples], seconds)


def thresholds(found: Recorded, images: Sequence[int]) -> list[float]:
    """Quantiles of the risks of the sentences of some images, from the lowest to infinity."""
    risks = [risk for image in images for _, risk in found.parts[image] if math.isfinite(risk)]
    if not risks:
        return [math.inf]
    at = np.quantile(risks, np.linspace(0, 1, THRESHOLDS + 1)[:-1], method="inverted_cdf")
    return [*(float(one) for one in dict.fromkeys(at.tolist())), math.inf]


def losses(found: Recorded, chair: Chair, limits: Sequence[float]) -> Losses:
    """The losses of every image at every threshold.

    A sentence stays unless its risk exceeds the threshold, as in `drop`.
    """

    @cache
    def objects(text: str) -> tuple[str, ...]:
        return tuple(chair.parse(text).objects)

    counts = np.zeros((len(found.parts), len(limits), 4))
    for image, (parts, truth) in enumerate(zip(found.parts, found.truth, strict=True)):
        for at, limit in enumerate(limits):
            kept = [text for text, risk in parts if not risk > limit]
            named = objects(" ".join(kept) if len(kept) < len(parts) else found.texts[image])
            wrong = sum(name not in truth for name in named)
            counts[image, at] = len(truth & set(named)), len(truth), len(named), wrong
    loss = counts[:, :, 3] / np.maximum(counts[:, :, 2], 1)
    return Losses(found.decoder, limits, loss, counts, found.seconds)
