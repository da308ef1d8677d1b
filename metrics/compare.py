"""Two systems side by side: paired differences, a verdict that refuses to rank inside the noise, several runs, and
what makes two results incomparable.

The test and its interval are those of metrics/paired.py, by image; many verdicts are corrected together (Holm).
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import Any, Literal, TypeVar

from . import chair_score, pope
from .chair import Chair
from .chair_score import ChairScore
from .estimate import Estimate
from .paired import Difference, holm

Verdict = Literal["better", "worse", "differs", "inside the noise"]
Found = dict[str, "Comparison"]
C = TypeVar("C", bound="Comparison")


BOX = r"\[\s*\d*\.?\d+(?:\s*,\s*\d*\.?\d+)+\s*\]"
COORDINATES = re.compile(rf"\s?\(\s*{BOX}(?:\s*[;,]\s*{BOX})*\s*\)|\s?{BOX}(?:\s*[;,]\s*{BOX})*")
FEWEST = 6  # with fewer images that differ even unanimity does not reach 5 % in a two-sided sign test


@dataclass(frozen=True)
class Comparison:
    """One figure of two systems.

    Args:
        first, second: the figure of each.
        difference: first minus second, with its interval over images.
        higher_is_better: None where neither direction is, as for a caption's length.
        p: of the paired test (metrics/paired.py); None where there was none.
        level: of the interval.
        differing: images (or questions) on which the two differ in this figure; None where that is not known.
        adjusted: p corrected for all verdicts that are read beside this one (`together`); None where it stands alone.
    """

    first: float
    second: float
    difference: Estimate
    higher_is_better: bool | None
    p: float | None = None
    level: float = 0.95
    differing: int | None = None
    adjusted: float | None = None

    @property
    def testable(self) -> bool:
        """Whether enough images differ for any verdict."""
        return min(self.difference.n, self.difference.n if self.differing is None else self.differing) >= FEWEST

    @property
    def verdict(self) -> Verdict:
        """The first system against the second; see the function `verdict`."""
        p = self.p if self.adjusted is None else self.adjusted
        return verdict(self.difference, self.higher_is_better, p, self.level, self.differing)

    def __str__(self) -> str:
        d, p = self.difference, "" if self.p is None else f", p={self.p:.3g}"
        values = f"{self.first:.3f} against {self.second:.3f}: {d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}]"
        return f"{values} (n={d.n}{p}), {self.verdict}"


def verdict(
    difference: Estimate, higher_is_better: bool | None, p: float | None = None, level: float = 0.95,
    differing: int | None = None,
) -> Verdict:  # fmt: skip
    """What a difference says about the first system: "better", "worse", or "inside the noise" where it ranks nothing.

    Inside the noise: the interval holds 0 (its ends too); p, where there is one, is above 1 − level (several verdicts
    that are read together have their adjusted p's here); or there are fewer than 6 images, or fewer than 6 on which the
    two differ. A figure in which neither direction is better "differs".

    >>> verdict(Estimate(-0.05, -0.09, -0.01, 500), higher_is_better=False)
    'better'
    >>> verdict(Estimate(-0.05, -0.11, 0.01, 500), higher_is_better=False)
    'inside the noise'
    """
    enough = min(difference.n, difference.n if differing is None else differing) >= FEWEST
    clear = enough and (difference.low > 0 or difference.high < 0)
    if not clear or (p is not None and p > 1 - level):
        return "inside the noise"
    if higher_is_better is None:
        return "differs"
    return "better" if (difference.value > 0) is higher_is_better else "worse"


def compare_chair(first: ChairScore, second: ChairScore, level: float = 0.95, **options) -> Found:
    """Every figure of CHAIR for two systems on the same images.

    Options: samples and seed of `metrics.paired.paired_differences`. Captions of different length are no fair
    comparison: see `length_matched`.

    Raises:
        ValueError: other images, or another word family.
    """
    differences = first.difference(second, level=level, **options)
    return _compared(first.to_dict(), second.to_dict(), differences, chair_score.HIGHER_IS_BETTER, level)


def length_matched(
    chair: Chair,
    first: Mapping[int | str, str],
    second: Mapping[int | str, str],
    truth: Mapping[int | str, Collection[str]],
) -> tuple[ChairScore, ChairScore]:
    """CHAIR of two systems as if neither had written more than the other: per image both captions count up to the
    shorter one's number of tokens.

    Who says less hallucinates less; what is left of a difference here does not come from length. Tokens are CHAIR's,
    double words joined, so none is torn; captions are read whole, so a mention does not change where the rest is left
    out. What a cut sentence mentions still counts. Coordinates, "([0.1, 0.2, 0.5, 0.9])", are no words: they are taken
    out first (`without_coordinates`).

    Args:
        chair: vocabulary and word family.
        first, second: image id -> caption, of the same images.
        truth: image id -> categories.

    >>> a, b = length_matched(Chair(), {1: "A dog and a hot dog and a cat."}, {1: "A dog, a cup."}, {1: {"dog", "cup"}})
    >>> [score.per_caption[1].caption for score in (a, b)]
    ['A dog and a hot dog and', 'A dog, a cup.']

    Raises:
        ValueError: other images, and as `Chair.score`.
    """
    if first.keys() != second.keys():
        shared = len(first.keys() & second.keys())
        raise ValueError(f"{len(first)} and {len(second)} images with {shared} in common: needed are the same images.")
    texts = [{image: without_coordinates(caption) for image, caption in one.items()} for one in (first, second)]
    ends = [{image: token_ends(chair, caption) for image, caption in one.items()} for one in texts]
    tokens = {image: min(len(one[image]) for one in ends) for image in first}
    found = []
    for captions, places in zip(texts, ends, strict=True):
        score = chair.score(captions, truth, tokens)
        cut = {
            image: one if tokens[image] == len(places[image]) else replace(
                one, caption=one.caption[: places[image][tokens[image] - 1] if tokens[image] else 0]
            )
            for image, one in score.per_caption.items()
        }  # fmt: skip
        found.append(ChairScore(cut, score.family))
    return found[0], found[1]


def without_coordinates(caption: str) -> str:
    """A caption without the boxes that some programs write behind objects.

    >>> without_coordinates("Two men([0.145, 0.438, 0.215, 0.659];[0.8, 0.4, 0.9, 0.6]) on a beach([0.0, 0.6, 1, 1]).")
    'Two men on a beach.'
    """
    return COORDINATES.sub("", caption)


def token_ends(chair: Chair, caption: str) -> list[int]:
    """Where each of CHAIR's tokens ends in a caption, in characters.

    >>> token_ends(Chair(), "Two hot dogs, please")
    [3, 12, 13, 20]
    """
    raw, _, starts, spans = chair.read(caption)
    return [spans[following - 1][1] for following in [*starts[1:], len(raw)]] if raw else []


def compare_pope(
    first: Sequence[str],
    second: Sequence[str],
    labels: Sequence[str],
    images: Sequence[str | int] | None = None,
    protocol: str = "official",
    level: float = 0.95,
    **options,
) -> Found:
    """Every figure of POPE for two systems on the same questions.

    Args:
        first, second: answers in the order of labels.
        labels, images, protocol: as in `pope.estimates`; with images, those are swapped with all their questions.
            Without, questions count as independent, and the p of accuracy is McNemar's.
        level: of the intervals.
        options: samples and seed of `metrics.paired.paired_differences`.

    >>> labels = ["yes", "no"] * 20
    >>> found = compare_pope(labels, ["yes"] * 40, labels)
    >>> found["accuracy"].verdict, found["yes_ratio"].verdict, round(found["accuracy"].p, 7)
    ('better', 'differs', 1.9e-06)

    Raises:
        ValueError: as `pope.estimates`.
    """
    differences = pope.difference(first, second, labels, images, protocol, level=level, **options)
    one, two = (pope.score(answers, labels, protocol) for answers in (first, second))
    return _compared(one, two, differences, pope.HIGHER_IS_BETTER, level)


def _compared(
    one: Mapping[str, Any], two: Mapping[str, Any], differences: Mapping[str, Difference], better: Mapping[str, bool],
    level: float,
) -> Found:  # fmt: skip
    return {
        name: Comparison(float(one[name]), float(two[name]), d.estimate, better.get(name), d.p, level, d.differing)
        for name, d in differences.items()
    }


def together(comparisons: Sequence[C]) -> list[C]:
    """The same with p adjusted (Holm): the chance that one verdict or more is false is at most 1 − level.

    Figures in which too few images differ for any verdict are not among those that the correction counts: whether they
    are is known before it is known who is ahead.

    >>> some = [Comparison(0.5, 0.4, Estimate(0.1, 0.02, 0.18, 90), True, p, differing=20) for p in (0.03, 0.01)]
    >>> [(one.adjusted, one.verdict) for one in together(some)]
    [(0.03, 'better'), (0.02, 'better')]
    >>> [one.verdict for one in together([*some, *some])]
    ['inside the noise', 'better', 'inside the noise', 'better']
    """
    tested = [place for place, one in enumerate(comparisons) if one.testable and one.p is not None]
    adjusted = dict(zip(tested, holm([comparisons[place].p or 0.0 for place in tested]), strict=True))
    return [replace(one, adjusted=adjusted.get(place, one.p)) for place, one in enumerate(comparisons)]


@dataclass(frozen=True)
class Runs:
    """A figure over several runs: seeds, or samples of images. sd is that of a sample (n − 1); 0 for a single run.

    >>> str(over_runs([0.45, 0.47, 0.49]))
    '0.470 ± 0.020 (3 runs)'
    """

    mean: float
    sd: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.sd:.3f} ({self.n} run{'s' if self.n > 1 else ''})"


def over_runs(values: Sequence[float]) -> Runs:
    """Mean and sample standard deviation over runs.

    Raises:
        ValueError: no runs.
    """
    if not len(values):
        raise ValueError("no runs to average.")
    mean = sum(values) / len(values)
    spread = sum((value - mean) ** 2 for value in values) / max(len(values) - 1, 1)
    return Runs(mean, sqrt(spread), len(values))


def figures_over_runs(runs: Sequence[Mapping[str, float]]) -> dict[str, Runs]:
    """Mean and sd of every figure that all runs have, in the order of the first.

    >>> str(figures_over_runs([{"chair_s": 0.5}, {"chair_s": 0.3, "n": 9}])["chair_s"])
    '0.400 ± 0.141 (2 runs)'

    Raises:
        ValueError: no runs.
    """
    if not runs:
        raise ValueError("no runs to average.")
    shared = [name for name in runs[0] if all(name in run for run in runs)]
    return {name: over_runs([run[name] for run in runs]) for name in shared}


# What must agree for two results to be comparable: keys of a manifest -> what they are.
WATCHED = {
    "prompt": "prompts", "prompts": "prompts", "question": "prompts", "template": "prompts", "suffix": "prompts",
    "protocol": "protocols", "protocols": "protocols", "version": "protocols",
    "image_ids": "image sets", "images": "image sets", "dataset": "image sets", "split": "image sets",
    "limit": "image sets", "data_sha256": "data files", "sha256": "data files", "files": "data files",
    "max_new_tokens": "token budgets",
    "family": "word families", "families": "word families", "synonyms": "word families",
    "do_sample": "decoding", "num_beams": "decoding", "temperature": "decoding", "top_p": "decoding",
    "top_k": "decoding",
}  # fmt: skip


def warnings_between(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """What makes two results incomparable, a sentence each; empty where nothing does.

    Two manifests are walked side by side. Compared are, wherever they stand: prompts, protocols and their versions,
    image sets, data files, token budgets, word families, and how tokens are chosen. Methods, models, seeds, library
    versions and hardware may differ: they are what is compared, or what an interval is for.

    >>> warnings_between({"chair": {"max_new_tokens": 512}}, {"chair": {"max_new_tokens": 64}})
    ['token budgets differ (chair.max_new_tokens): 512 against 64.']
    """
    one, two = _watched(first), _watched(second)
    differences: list[str] = []
    alone: dict[tuple[str, str], dict[str, None]] = {}
    for path, (what, a) in one.items():
        if path not in two:
            alone.setdefault(("first", _missing(path, two)), {})[what] = None
            continue
        b, where = two[path][1], ".".join(path)
        if what == "image sets" and _is_list(a) and _is_list(b):
            a, b = set(map(str, a)), set(map(str, b))
            if a != b:
                differences.append(f"{what} differ ({where}): {len(a)} and {len(b)} with {len(a & b)} in common.")
        elif a != b:
            differences.append(f"{what} differ ({where}): {_short(a)} against {_short(b)}.")
    for path, (what, _) in two.items():
        if path not in one:
            alone.setdefault(("second", _missing(path, one)), {})[what] = None
    for (which, where), whats in alone.items():
        differences.append(f"only the {which} says {where}: {', '.join(whats)} cannot be compared.")
    return differences


# Parts of a manifest that may differ: how it was asked for, what was compared, where it ran.
SKIPPED = ("request", "decoders", "detectors", "versions", "hardware", "model", "settings")


def _watched(
    manifest: Mapping[str, Any], path: tuple[str, ...] = (), under: str | None = None
) -> dict[tuple[str, ...], tuple[str, Any]]:
    """Path -> (what it is, value) of all that must agree; all that stands below a watched key is watched."""
    found: dict[tuple[str, ...], tuple[str, Any]] = {}
    for key, value in manifest.items():
        what = WATCHED.get(key, under)
        if isinstance(value, Mapping):
            if key not in SKIPPED:
                found |= _watched(value, (*path, str(key)), what)
        elif what is not None:
            found[(*path, str(key))] = what, value
    return found


def _missing(path: tuple[str, ...], other: Mapping[tuple[str, ...], Any]) -> str:
    """The first part of a path that the other manifest has nothing below."""
    sizes = range(1, len(path) + 1)
    return ".".join(next(path[:size] for size in sizes if not any(p[:size] == path[:size] for p in other)))


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple, set, frozenset))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
