"""How often `compare` ranks two systems that are alike, and how often it sees a difference that is there.

Captions and answers of the embedded model are sampled several times per scene; a pair of systems draws scenes with
replacement and two different samples for each, so that the two are alike by construction. The same number is given for
the rule that was here before (percentile bootstrap, and McNemar's test for shares).

    python benchmarks/false_verdicts.py --out /tmp/verdicts --scenes 600 --samples 6
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from veridical.metrics import chair_score, pope
from veridical.metrics.chair_score import ChairCounts
from veridical.metrics.compare import FEWEST
from veridical.metrics.estimate import mcnemar
from veridical.metrics.paired import Difference, paired_differences

SIZES = (5, 10, 20, 50, 100, 500)
ALPHA = 0.05
Pair = tuple[NDArray, NDArray]  # counts of two systems, (images, counts)


# -- what is drawn -------------------------------------------------------------------------------------------------
def captions(scenes: int, samples: int, temperature: float = 0.7) -> NDArray:
    """(samples, scenes, counts) of sampled captions of the embedded model."""
    import veridical
    from veridical.datasets import examples
    from veridical.metrics.chair import Chair

    lvlm, chair, scored = veridical.load("embedded"), Chair(), examples.world_captions("test", scenes)
    truth, found = {e.image_id: e.objects for e in scored}, []
    for seed in range(samples):
        answers = lvlm.caption(
            [e.open() for e in scored], max_new_tokens=128, batch_size=32, do_sample=True, temperature=temperature,
            seed=seed,
        )  # fmt: skip
        texts = {e.image_id: a.text for e, a in zip(scored, answers, strict=True)}
        found.append(chair.score(texts, truth).units)
    return np.array(found)


def answers(scenes: int, samples: int) -> NDArray:
    """(samples, scenes, counts) of sampled answers to POPE's popular questions, six per scene."""
    import veridical
    from veridical.datasets import examples

    lvlm, scored = veridical.load("embedded"), examples.world_pope("test", scenes, "popular", 0)
    images = {e.image: e.open() for e in scored}
    found = []
    for seed in range(samples):
        answers = lvlm.answer(
            [images[e.image] for e in scored], [e.question for e in scored], max_new_tokens=4, batch_size=64,
            do_sample=True, temperature=1.0, seed=seed,
        )  # fmt: skip
        rows = pope.outcomes([a.text for a in answers], [e.label or "" for e in scored])
        found.append(np.stack(pope._columns(rows, [e.image_id for e in scored]), axis=-1))
    return np.array(found)


def alike(drawn: NDArray, n: int, generator: np.random.Generator) -> Pair:
    """Scenes with replacement, and two different samples of each."""
    scenes = generator.integers(drawn.shape[1], size=n)
    first = generator.integers(drawn.shape[0], size=n)
    second = (first + generator.integers(1, drawn.shape[0], size=n)) % drawn.shape[0]
    return drawn[first, scenes], drawn[second, scenes]


def simulated(n: int, generator: np.random.Generator, words: tuple[float, float] = (3, 3), risk: float = 1.0) -> Pair:
    """Mentions of two made systems: 1 + Poisson(words) each; an image's share of wrong ones is Beta(1, 4) for both,
    `risk` times that for the first."""
    share = generator.beta(1, 4, n)
    parts = []
    for mean, factor in zip(words, (risk, 1.0), strict=True):
        mentions = 1 + generator.poisson(mean, n)
        wrong = generator.binomial(mentions, np.minimum(share * factor, 1))
        parts.append(np.stack([np.ones(n), wrong > 0, mentions, wrong], axis=-1).astype(float))
    return parts[0], parts[1]


def rare(n: int, generator: np.random.Generator, rate: float = 0.02) -> Pair:
    """Shares of `rate` that some images have far more of: Beta(rate/2, (1 − rate)/2)."""
    risk = generator.beta(rate / 2, (1 - rate) / 2, n)
    parts = [np.stack([np.ones(n), generator.random(n) < risk], axis=-1).astype(float) for _ in range(2)]
    return parts[0], parts[1]


# -- the rules -----------------------------------------------------------------------------------------------------
def is_verdict(one: Difference) -> bool:
    """As `compare.verdict` has it, for a figure that stands alone."""
    return min(one.differing, one.estimate.n) >= FEWEST and one.p <= ALPHA


def percentile(figures: dict[str, tuple[NDArray, ...]], weights: NDArray, shares: tuple[str, ...]) -> dict[str, bool]:
    """The rule that was here before."""
    found = {}
    for name, (top_a, bottom_a, top_b, bottom_b) in figures.items():
        with np.errstate(divide="ignore", invalid="ignore"):
            drawn = (weights @ top_a) / (weights @ bottom_a) - (weights @ top_b) / (weights @ bottom_b)
        drawn = drawn[~np.isnan(drawn)]
        low, high = np.quantile(drawn, [0.025, 0.975]) if len(drawn) else (0, 0)
        enough = int(((top_a != top_b) | (bottom_a != bottom_b)).sum()) >= FEWEST
        found[name] = enough and bool(low > 0 or high < 0)
        if name in shares:
            found[name] &= mcnemar(list(top_a > 0), list(top_b > 0)) <= ALPHA
    return found


def figures_of(ratios: dict[str, Callable], columns: Callable, first: NDArray, second: NDArray) -> dict[str, tuple]:
    one, two = columns(*first.T), columns(*second.T)
    return {name: (*parts(one), *parts(two)) for name, parts in ratios.items()}


SIMULATED = {"chair_s": lambda ones, any_wrong, mentions, wrong: (any_wrong, ones),
        "chair_i": lambda ones, any_wrong, mentions, wrong: (wrong, mentions)}  # fmt: skip


def simulated_figures(pair: Pair) -> dict[str, tuple]:
    return {name: (*parts(*pair[0].T), *parts(*pair[1].T)) for name, parts in SIMULATED.items()}


def rare_figures(pair: Pair) -> dict[str, tuple]:
    (ones, first), (_, second) = pair[0].T, pair[1].T
    return {"chair_s": (first, ones, second, ones)}


def rates(draw: Callable[[], dict[str, tuple]], n: int, pairs: int, shares: tuple[str, ...] = ("chair_s",),
          unbounded: tuple[str, ...] = (), samples: int = 1999, before: bool = True, seed: int = 0
          ) -> dict[str, tuple[float, float]]:  # fmt: skip
    """Per figure, the share of pairs with a verdict: by the rule, and by the one before (nan where not computed)."""
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=1000).astype(float)
    counts: dict[str, NDArray] = {}
    for _ in range(pairs):
        figures = draw()
        tested = paired_differences(figures, unbounded, samples)
        now = {name: is_verdict(one) for name, one in tested.items()}
        then = percentile(figures, weights, shares) if before else dict.fromkeys(figures, False)
        for name in figures:
            counts.setdefault(name, np.zeros(2))
            counts[name] += now[name], then[name]
    return {name: (both[0] / pairs, both[1] / pairs if before else float("nan")) for name, both in counts.items()}


# -- the table -----------------------------------------------------------------------------------------------------
def cases(out: Path, scenes: int, samples: int) -> Iterator[tuple[str, Callable, tuple, tuple]]:
    """(what, draw(n, generator), shares, unbounded). What is sampled from the model is kept in `out`."""

    @cache
    def kept(name: str) -> NDArray:
        path = out / f"{name}.npy"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, captions(scenes, samples) if name == "captions" else answers(scenes // 2, samples))
        return np.load(path).astype(float)

    chair = lambda pair: figures_of(chair_score.RATIOS, ChairCounts, *pair)
    yes_no = lambda pair: figures_of(pope.RATIOS, pope.Outcome, *pair)
    yield "captions, alike", lambda n, g: chair(alike(kept("captions"), n, g)), ("chair_s",), chair_score.UNBOUNDED
    yield "POPE, alike", lambda n, g: yes_no(alike(kept("answers"), n, g)), (), ()
    yield "made, alike", lambda n, g: simulated_figures(simulated(n, g)), ("chair_s",), ()
    yield "made, twice the mentions", lambda n, g: {
        "chair_i": simulated_figures(simulated(n, g, words=(2, 6)))["chair_i"]}, (), ()  # fmt: skip
    yield "CHAIR_s of 2 %, alike", lambda n, g: rare_figures(rare(n, g)), ("chair_s",), ()
    yield "made, half the risk", lambda n, g: simulated_figures(simulated(n, g, risk=0.5)), ("chair_s",), ()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=600)
    parser.add_argument("--samples", type=int, default=6)
    parser.add_argument("--pairs", type=int, default=4000)
    parser.add_argument("--only", default="")
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    options = parser.parse_args()
    for what, draw, shares, unbounded in cases(options.out, options.scenes, options.samples):
        for n in options.sizes if options.only in what else ():
            generator = np.random.default_rng(n)
            found = rates(lambda n=n, draw=draw, g=generator: draw(n, g), n, options.pairs, shares, unbounded)
            cells = " | ".join(f"{name} {100 * now:.1f} ({100 * then:.1f})" for name, (now, then) in found.items())
            print(f"{what} | {n} | {cells}", flush=True)


if __name__ == "__main__":
    main()
