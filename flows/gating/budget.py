"""A budget of time: the gate that lets a decoder act at the most steps within so many times plain decoding's time.

    ratio = Σ gated seconds / Σ plain seconds, over pairs of runs of the same batch

A setting fits if the upper end of its ratio is within the budget: the ratio of pairs (g, p) plus t · s, where s² =
n / (n − 1) · Σ (g − ratio · p)² / (Σ p)² and t is Student's quantile of LEVEL with n − 1 degrees of freedom. The two
runs of a pair follow each other, and which comes first alternates.

Thresholds are quantiles of a detector's risk over plain captions of the same images. The detectors are those that cost
nothing beside the text, one of each kind: three read the same distribution and open at much the same steps. Of the
first detector the shares are halved; of another one the share above the best so far is tried, and those above it if
that fits. Timing a setting ends after EARLY pairs where both ends of its ratio are on one side of the budget; the one
that is chosen is timed on all images.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Context
from typing import TYPE_CHECKING, Any

from .choice import Choice, Setting, steps_of

if TYPE_CHECKING:
    from ...pipelines.lvlm import LVLM
    from ...pipelines.results import Answer

SHARES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)  # of the tokens, for which thresholds are tried
PAIRS, EARLY = 4, 2  # timed pairs: at least of the setting that is chosen, and before it is known on which side one is
LEVEL = 0.9  # one-sided, of each end of a ratio
SETTINGS = 6  # that are timed, about

Clock = Callable[[], float]
# (decoders, detectors, batch) -> an answer for each item of the batch
Answering = Callable[[Sequence[str], Sequence[str], Sequence[Any]], list["Answer"]]


class NothingFits(ValueError):
    """No gate stays within the budget; the message has the cheapest one's ratio and what to do."""


def gated(decoder: str, detector: str, threshold: float) -> str:
    """The text of a gated decoder.

    >>> gated("vcd:alpha=0.5", "entropy", 0.25)
    "gate:decoder='vcd:alpha=0.5',detector=entropy,threshold=0.25"
    """
    return f"gate:decoder={decoder!r},detector={detector},threshold={threshold!r}"


def free_detectors() -> list[str]:
    """Of the detectors that cost nothing beside the text one for each thing that they read, by what their registry says
    of them; a gate's own default before others.

    >>> free_detectors()
    ['entropy', 'position']
    """
    from ...decoders.gate import Gate
    from ...pipelines.registry import DETECTORS

    free = {name: row.reads for name, row in DETECTORS.names.items() if row.cost == "nothing"}
    names = sorted(free, key=lambda name: name != Gate.detector)
    return [name for place, name in enumerate(names) if free[name] not in [free[one] for one in names[:place]]]


def images_for(batch_size: int) -> int:
    """How many images are captioned to find out: four batches, 16 to 32, and at least one batch.

    >>> images_for(1), images_for(8), images_for(64)
    (16, 32, 64)
    """
    return max(16, batch_size, min(32, PAIRS * batch_size))


def check(decoders: Sequence[str], budget: float, model: str = "") -> str:
    """The one decoder that a budget is for.

    Raises:
        ValueError: a budget that plain decoding exceeds; none or several decoders, or one that no gate takes.
        UnknownName: no such decoder.
    """
    from ...decoders.gate import Gate
    from ...pipelines.chain import chain, split

    if not (math.isfinite(budget) and budget > 1):
        raise ValueError(
            f"budget={budget:g} is not above 1, which is plain decoding's own time; 1.2 is a fifth more than that."
        )
    alone = "a budget gates one decoder, such as -d vcd"
    if len(decoders) != 1:
        raise ValueError(f"{alone}; found {len(decoders)}: {', '.join(decoders) or 'none'}. Name one of them.")
    procedure, methods = split(chain(decoders[0], model))
    if procedure is not None:
        raise ValueError(f"{alone}; {decoders[0]} asks the model several times for one text, which no gate can spare.")
    if not methods:
        raise ValueError(f"{alone}; {decoders[0]} is plain decoding and costs no more than that: leave the budget out.")
    if len(methods) > 1:
        raise ValueError(f"{alone}; {decoders[0]} joins {len(methods)}. Name one of them, or gate each by hand.")
    if isinstance(methods[0], Gate):
        raise ValueError(f"{alone}; {decoders[0]} is a gate already. Name its decoder, or leave the budget out.")
    Gate(decoders[0], threshold=0.0)  # which refuses what cannot be gated
    return decoders[0]


def fit(
    lvlm: LVLM, decoder: str, images: Sequence[Any], budget: float, batch_size: int = 8, detectors: Sequence[str] = (),
    clock: Clock | None = None, **options: Any,
) -> Choice:  # fmt: skip
    """The gate on `decoder` with the largest share of steps whose captions of these images stay within the budget.

    Args:
        images: as `lvlm.caption` takes them, like those that will be captioned; those that cannot be read are skipped.
        budget: times plain decoding's time, above 1.
        detectors: that read along in any case, in plain captions too.
        clock: seconds.
        options: of `lvlm.caption`: prompt, system, seed, and what generate takes.

    Raises:
        ValueError: as `check`; or no image can be used. NothingFits: no gate is cheap enough.
    """
    check([decoder], budget, lvlm.name)
    first = options.pop("seed", 0)

    def answers(decoders: Sequence[str], more: Sequence[str], batch: Sequence[tuple[int, Any]]) -> list[Answer]:
        return lvlm.caption(
            [image for _, image in batch], list(decoders), list(more), batch_size=len(batch), errors="row",
            seed=[first + place for place, _ in batch], **options,
        )  # fmt: skip

    items = list(enumerate(images))
    batches = [items[start : start + batch_size] for start in range(0, len(items), batch_size)]
    return choose(Bench(answers, batches, detectors, clock or time.perf_counter), decoder, budget)


@dataclass
class Bench:
    """Batches of images on which settings are timed beside plain decoding.

    answers: what is timed. detectors: that read along. advance: called when a setting is done. plain: seconds and
    images of all plain runs that were timed. runs: decoder -> seconds of its pairs, (gated, plain), and steps of its
    answers with those at which it acted.
    """

    answers: Answering
    batches: Sequence[Sequence[Any]]
    detectors: Sequence[str]
    clock: Clock
    advance: Callable[[int], None] = lambda count: None
    plain: list[tuple[float, int]] = field(default_factory=list)
    runs: dict[str, tuple[list[tuple[float, float]], list[tuple[float, float]]]] = field(default_factory=dict)

    def risks(self, detectors: Sequence[str]) -> tuple[dict[str, list[float]], int]:
        """Risks of the tokens of plain captions, by detector, and how many images cannot be used: they are left out.

        Raises:
            ValueError: none can be used.
        """
        risks: dict[str, list[float]] = {name: [] for name in detectors}
        kept, skipped = [], 0
        for batch in self.batches:
            answers = self._quietly([], detectors, batch)
            good = [item for item, answer in zip(batch, answers, strict=True) if answer.error is None]
            skipped += len(batch) - len(good)
            kept += [good] if good else []
            for answer in answers:
                for name in risks:
                    risks[name] += answer.risk.get(name, [])
        if not kept:
            raise ValueError("none of the first images can be used, so that no time can be measured; check the images.")
        self.batches = kept
        return risks, skipped

    def timed(self, decoder: str, detector: str | None, budget: float, whole: bool = False) -> Setting:
        """Time a setting beside plain decoding, pair by pair. whole: on all images, whatever the first pairs say."""
        pairs, acted = self.runs.setdefault(decoder, ([], []))
        if not pairs:
            self._quietly([decoder], self.detectors, self.batches[0][:1])  # what is loaded or built at the first call
        for number in range(len(pairs), math.ceil(PAIRS / len(self.batches)) * len(self.batches)):
            if not whole and number >= EARLY and (ratio(pairs)[1] > budget or ratio(pairs)[2] <= budget):
                break
            rounds, place = divmod(number, len(self.batches))
            batch, seconds = self.batches[place], {}
            for one in ([], [decoder]) if (rounds + place) % 2 == 0 else ([decoder], []):
                began = self.clock()
                answers = self._quietly(one, self.detectors, batch)
                seconds[bool(one)] = self.clock() - began
                acted += [steps_of(answer.acted) for answer in answers] if one else []
            pairs.append((seconds[True], seconds[False]))
            self.plain.append((seconds[False], len(batch)))
        self.advance(1)
        value, low, high = ratio(pairs)
        steps, done = (sum(column) for column in zip(*acted, strict=True))
        return Setting(decoder, detector, done / steps if steps else 0.0, value, low, high, len(pairs), high <= budget)

    def _quietly(self, decoders: Sequence[str], detectors: Sequence[str], batch: Sequence[Any]) -> list[Answer]:
        """Answers without warnings: what is chosen raises its own when it is used."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.answers(decoders, detectors, batch)


def choose(bench: Bench, decoder: str, budget: float, skipped: int = 0) -> Choice:
    """The setting that fits with the largest share of steps. skipped: images that the bench has not seen.

    Raises:
        NothingFits: none does. ValueError: no image can be used.
    """
    from .curve import thresholds

    began = bench.clock()
    detectors = free_detectors()
    risks, failed = bench.risks(detectors)
    tried = {decoder: bench.timed(decoder, None, budget)}
    least = 0  # place in SHARES above the best so far
    for number, detector in enumerate(detectors if not tried[decoder].fits else ()):
        values = [_short(value, risks[detector]) for value in thresholds(risks[detector], SHARES)]
        texts = [gated(decoder, detector, value) for value in values]

        def fits(text: str, detector: str = detector) -> bool:
            if text not in tried:
                tried[text] = bench.timed(text, detector, budget)
            return tried[text].fits

        opening = (place for place, value in enumerate(values) if any(risk > value for risk in risks[detector]))
        first = low = max(least, next(opening, len(SHARES)))
        high = len(SHARES)  # all from `first` to below `low` fit, and none from `high` on
        if number and low < high and not fits(texts[low]):
            continue
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if fits(texts[middle]) else (low, middle)
        least = low if low > first else least
    while fitting := [one for one in tried.values() if one.fits and one.share]:
        # a gate that never opens is plain decoding, whatever it is called
        best = max(fitting, key=lambda one: (one.share, -one.ratio))
        chosen = tried[best.decoder] = bench.timed(best.decoder, best.detector, budget, whole=True)
        if chosen.fits:
            break
    else:
        raise NothingFits(_nothing(decoder, budget, list(tried.values())))
    took = bench.clock() - began
    seconds, images = (sum(column) for column in zip(*bench.plain, strict=True))
    return Choice(
        budget, decoder, chosen, tuple(tried.values()), sum(map(len, bench.batches)), skipped + failed, took,
        took / (seconds / images),
    )  # fmt: skip


def ratio(pairs: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """Σ g / Σ p with its lower and upper end, as the module has it.

    >>> ratio([(3.0, 2.0), (6.0, 4.0), (3.0, 2.0)])
    (1.5, 1.5, 1.5)
    """
    from scipy.special import stdtrit

    count, whole = len(pairs), sum(plain for _, plain in pairs)
    if not whole:
        raise ValueError("plain captions took no time, so that no ratio to it can be measured; is the clock right?")
    value = sum(gated for gated, _ in pairs) / whole
    spread = math.sqrt(count / (count - 1) * sum((gated - value * plain) ** 2 for gated, plain in pairs)) / whole
    margin = float(stdtrit(count - 1, LEVEL)) * spread
    return value, value - margin, value + margin


# -- helpers -------------------------------------------------------------------------------------------------------
def _short(threshold: float, risks: Sequence[float]) -> float:
    """A threshold of four digits, or of as many as it takes to let the same of these risks pass.

    >>> _short(0.123456, [0.123456, 0.5]), _short(10.21875, [10.21875, 10.21878, 10.3])
    (0.1235, 10.21875)
    """
    above = min((risk for risk in risks if risk > threshold), default=math.inf)
    shorter = (float(Context(digits, ROUND_CEILING).create_decimal_from_float(threshold)) for digits in range(4, 17))
    return next((value for value in shorter if threshold <= value < above), threshold)


def _nothing(decoder: str, budget: float, tried: Sequence[Setting]) -> str:
    acting = [one for one in tried if one.share] or tried
    best, ungated = min(acting, key=lambda one: one.high), tried[0]
    enough = math.ceil(best.high * 100) / 100
    return (
        f"nothing of {decoder} stays within {budget:g} times plain decoding's time. The cheapest of {len(acting)} "
        f"settings was {best.decoder}: ×{best.ratio:.2f} (up to ×{best.high:.2f}) at {best.share:.1%} of the steps; "
        f"ungated {decoder} took ×{ungated.ratio:.2f}. Possible: --budget {enough:.2f} or more; a decoder whose branch "
        "is read late (docs/gating.md); or plain captions, -d greedy."
    )
