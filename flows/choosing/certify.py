"""Choosing among settings on one part of the images, and certifying on the other; from recorded losses alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...metrics.estimate import Estimate, ratio
from ...metrics.paired import paired_difference
from ...metrics.risk_control import conformal_setting, fixed_sequence, frontier
from .losses import Losses
from .request import PLAIN, Choice

Setting = tuple[int, int]  # decoder's place, threshold's place


@dataclass(frozen=True)
class Certified:
    """A setting with its guarantee, or the reason why there is none.

    Args:
        losses: of its decoder. at: its threshold's place. p: of "its risk is above the level", on the certifying part;
            None in expectation.
        tested: how many settings were tested, the last of them perhaps in vain.
        calibration, certification: the images of both parts.
        reason: why nothing is claimed; "" where something is.
    """

    losses: Losses | None
    at: int
    p: float | None
    tested: int
    calibration: NDArray
    certification: NDArray
    reason: str = ""

    def figures(self, plain: Losses) -> dict[str, Estimate]:
        """What the setting does on the certifying part, and what plain decoding does, with 95 % intervals.

        risk: mean share of hallucinated mentions per caption, which is what is controlled. chair_i, recall: CHAIR's.
        recall_change: minus plain decoding's, paired by image.
        """
        assert self.losses is not None
        found: dict[str, Estimate] = {}
        rows = {"": (self.losses, self.at), "plain_": (plain, len(plain.thresholds) - 1)}
        for prefix, (one, at) in rows.items():
            counts, loss = one.counts[self.certification, at], one.loss[self.certification, at]
            found[f"{prefix}risk"] = ratio(loss, np.ones(len(loss)))
            found[f"{prefix}chair_i"] = ratio(counts[:, 3], counts[:, 2])
            found[f"{prefix}recall"] = ratio(counts[:, 0], counts[:, 1])
        mine, theirs = (one.counts[self.certification, at, :2] for one, at in rows.values())
        found["recall_change"] = paired_difference(mine, theirs).estimate
        return found


def divide(images: int, request: Choice) -> tuple[NDArray, NDArray]:
    """The images that choose and those that certify, at random by the request's seed, each in random order."""
    order = np.random.default_rng(request.seed).permutation(images)
    at = request.calibrating(images)
    return order[:at], order[at:]


def choose(request: Choice, found: Sequence[Losses], calibration: NDArray, certification: NDArray) -> Certified:
    """The setting with the highest recall among those that are certified, or the reason why none is.

    Tolerable are the settings that on the calibration part lose at most `recall_loss` of plain decoding's recall, and
    take at most `seconds`. With a confidence, those that no other beats in risk and recall are tested on the
    certification part from the least risky on (`metrics.risk_control.fixed_sequence`). In expectation, the decoder with
    the highest recall at the level is taken, and its thresholds are controlled on the certification part
    (`conformal_setting`).

    Args:
        found: every candidate; plain decoding is among them.
        calibration, certification: images, without one in common.
    """
    nothing = lambda reason, tested=0: Certified(None, 0, None, tested, calibration, certification, reason)
    plain = next(one for one in found if one.decoder == PLAIN)
    least = plain.recall(calibration)[-1] - request.recall_loss
    risks = [one.loss[calibration].mean(axis=0) for one in found]
    recalls = [one.recall(calibration) for one in found]
    tolerable: list[Setting] = [
        (d, k) for d, one in enumerate(found) for k in range(len(one.thresholds))
        if recalls[d][k] >= least - 1e-12 and (request.seconds is None or one.seconds <= request.seconds)
    ]  # fmt: skip
    if not tolerable:
        fastest = min(one.seconds for one in found)
        return nothing(f"no setting is within the budget: the fastest takes {fastest:.3f} seconds per image.")
    if request.confidence is None:
        return _in_expectation(request, found, tolerable, (calibration, certification), risks, recalls)
    places = frontier([risks[d][k] for d, k in tolerable], [recalls[d][k] for d, k in tolerable])
    sequence = [tolerable[place] for place in places]
    columns = np.stack([found[d].loss[certification, k] for d, k in sequence], axis=1)
    passed, ps = fixed_sequence(columns, request.level, request.confidence)
    if not passed:
        d, k = sequence[0]
        return nothing(
            f"the least risky tolerable setting has a risk of {columns[:, 0].mean():.3f} on {len(certification)} "
            f"images (p = {ps[0]:.3g}), which does not show that it is at most {request.level:g}: allow a higher "
            "level, more loss of recall, or give more images.", 1,
        )  # fmt: skip
    d, k = sequence[passed - 1]
    return Certified(found[d], k, ps[passed - 1], len(ps), calibration, certification)


def _in_expectation(
    request: Choice, found: Sequence[Losses], tolerable: Sequence[Setting], parts: tuple[NDArray, NDArray],
    risks: Sequence[NDArray], recalls: Sequence[NDArray],
) -> Certified:  # fmt: skip
    within = [(d, k) for d, k in tolerable if risks[d][k] <= request.level]
    if within:
        best, _ = max(within, key=lambda one: (recalls[one[0]][one[1]], -risks[one[0]][one[1]]))
    else:
        best, _ = min(tolerable, key=lambda one: risks[one[0]][one[1]])
    places = [k for d, k in tolerable if d == best]
    at = conformal_setting(found[best].loss[parts[1]][:, places], request.level)
    if at is None:
        return Certified(
            None, 0, None, len(places), *parts,
            f"no tolerable threshold of {found[best].decoder} has an expected risk of at most {request.level:g} on "
            f"{len(parts[1])} images: allow a higher level, more loss of recall, or give more images.",
        )  # fmt: skip
    return Certified(found[best], places[at], None, len(places), *parts)


def statement(request: Choice, certified: Certified) -> str:
    """What is guaranteed, and under which assumption."""
    n, claimed = len(certified.certification), certified.losses is not None
    if not claimed:
        return f"Nothing is guaranteed: {certified.reason}"
    share = f"the expected share of hallucinated mentions in a caption is at most {request.level:g}"
    if request.confidence is not None:
        return (
            f"With confidence {request.confidence:g}, {share}: if these {n} images and later ones are drawn alike, "
            f"the chance that this sentence is wrong is at most {1 - request.confidence:.3g}, whatever the "
            "distribution. It is about the mean over images, not about each one, and holds for this model, prompt and "
            "number of tokens. Recall and time are estimates, without a guarantee."
        )
    return (
        f"On average over draws of these {n} images and of a later one, {share}, if they are exchangeable, whatever "
        "the distribution; a single draw may lie above. It holds for this model, prompt and number of tokens. Recall "
        "and time are estimates, without a guarantee."
    )


def record(request: Choice, certified: Certified, found: Sequence[Losses]) -> dict[str, Any]:
    """What a setting file says of how the setting was found."""
    plain = next(one for one in found if one.decoder == PLAIN)
    figures = {} if certified.losses is None else certified.figures(plain)
    return {
        "guarantee": statement(request, certified), "claim": certified.losses is not None,
        "level": request.level, "confidence": request.confidence, "p": certified.p,
        "images": {"calibration": len(certified.calibration), "certification": len(certified.certification)},
        "settings tested": certified.tested,
        "figures": {name: dict(vars(estimate)) for name, estimate in figures.items()},
        "seconds per image": {one.decoder: one.seconds for one in found},
    }  # fmt: skip
