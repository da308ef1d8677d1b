"""Perceptual limits as a benchmark: pairs of scenes of the embedded world that differ in one thing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from ...datasets.examples import Example
from ...datasets.limits.questions import ABSENT, CAPTION, PRESENT, limit_examples
from ...datasets.limits.scenes import LEVELS, settings
from ...metrics import limits
from ...metrics.counted import Counted, of_sums
from ...metrics.estimate import Estimate
from .base import Benchmark, Mark, Source, followed
from .closed_answers import READER, answer_marks, is_right, read

_STANDS_FOR = {setting.text: tuple(levels) for setting, levels in settings().items()}
COMPARED = ("accuracy", "chair_i", "count_accuracy")
_SHOWN = ("accuracy", "false_alarm_rate", "caption_recall", "chair_i")


def level_name(level: object) -> str:
    """As figures have it.

    >>> level_name(0.25), level_name(12), level_name("foreign")
    ('0.25', '12', 'foreign')
    """
    return f"{level:g}" if isinstance(level, int | float) else str(level)


def _at(factor: str, figure: str) -> list[str]:
    return [f"{factor}_{figure}_{level_name(level)}" for level in _ordered(factor)]


def _ordered(factor: str) -> list[Any]:
    """The levels as an axis has them."""
    levels = list(LEVELS[factor])
    return levels if isinstance(levels[0], str) else sorted(levels)


def _figures(factor: str) -> tuple[str, ...]:
    return (*_SHOWN, "count_accuracy") if factor == "number" else _SHOWN


def _all() -> dict[str, bool]:
    """Every figure and whether higher is better."""
    found = dict(limits.HIGHER_IS_BETTER)
    for factor in LEVELS:
        for figure, better in limits.HIGHER_IS_BETTER.items():
            if figure == "count_accuracy" and factor != "number":
                continue
            for level in _ordered(factor):
                found[f"{factor}_{figure}_{level_name(level)}"] = better
                if level != LEVELS[factor][0]:
                    found[f"{factor}_{figure}_change_{level_name(level)}"] = better
    return found


class Limits(Benchmark):
    """Perceptual limits: accuracy and hallucination by an object's size, place, occlusion, number and distractors.

    Each of `limit` scenes is drawn in 23 settings that differ in one thing. Of every image: is the object there, is one
    there that is expected and absent, a caption; where the number varies, how many. n is the number of scenes, which
    are resampled with all their settings. "change": a level minus the plain one, paired by scene.
    """

    name = "limits"
    version = "1"
    prompt = None
    max_new_tokens = 128
    unit = "questions"
    higher_is_better: Mapping[str, bool] = _all()
    tables: Mapping[str, Sequence[str]] = {
        "": limits.FIGURES,
        **{f"{factor}_{figure}": tuple(_at(factor, figure)) for factor in LEVELS for figure in _figures(factor)},
    }
    headline = (
        "accuracy", "chair_i", "size_accuracy_12", "place_accuracy_1", "occlusion_accuracy_0.9",
        "number_count_accuracy_6", "distractors_accuracy_5", "background_accuracy_foreign",
    )  # fmt: skip

    def examples(self, source: Source) -> Sequence[Example]:
        return _examples(source)

    def estimates(self, source: Source, examples: Sequence[Example], texts: Sequence[str]) -> dict[str, Estimate]:
        summed = limits.sums(outcomes(source, examples, texts))
        found = {
            _name(factor, figure, level): estimate
            for (factor, level), table in limits.estimates(summed).items() for figure, estimate in table.items()
        }  # fmt: skip
        for factor, levels in LEVELS.items():
            for level, changed in limits.changes(summed, factor, levels[0]).items():
                for figure, one in changed.items():
                    found[f"{factor}_{figure}_change_{level_name(level)}"] = one.estimate
        return {name: found[name] for name in self.higher_is_better if name in found}

    def counted(self, source: Source, examples: Sequence[Example], texts: Sequence[str]) -> dict[str, Counted]:
        """Accuracy and CHAIR_i at every level, and every figure over all answers; whole scenes are swapped.

        The others at every level are left to `estimates`: the more verdicts, the less any of them can show.
        """
        tables: dict[str, dict[str, limits.Sums]] = {}
        for (factor, level), table in limits.sums(outcomes(source, examples, texts)).items():
            for figure, by_scene in table.items():
                if not factor or (figure in COMPARED and figure in _figures(factor)):
                    tables.setdefault(factor, {})[_name("", figure, level)] = by_scene
        return {factor: of_sums(figures) for factor, figures in tables.items()}

    def marks(self, source: Source, example: Example, text: str) -> list[Mark]:
        if example.facts["kind"] != CAPTION:
            return answer_marks(example, text)
        found = source.chair.parse(text)
        return [
            Mark(start, end, name in example.objects)
            for (start, end), name in zip(found.spans, found.objects, strict=True)
        ]

    def protocol(self, source: Source) -> dict[str, Any]:
        """How answers are read, and the settings."""
        return {"name": READER, "suffix": source.suffix or "", "levels": {f: list(LEVELS[f]) for f in LEVELS}}


def outcomes(source: Source, examples: Sequence[Example], texts: Sequence[str]) -> list[limits.Outcome]:
    """What every answer shows."""
    return [_outcome(source, example, text) for example, text in zip(examples, texts, strict=True)]


def _outcome(source: Source, example: Example, text: str) -> limits.Outcome:
    kind, scene, levels = example.facts["kind"], example.facts["scene"], _STANDS_FOR[example.facts["setting"]]
    if kind == CAPTION:
        named = source.chair.parse(text).objects
        wrong = sum(name not in example.objects for name in named)
        return limits.Outcome(scene, levels, kind, named=example.facts["object"] in named, mentions=len(named),
                              hallucinated=wrong)  # fmt: skip
    yes = kind in (PRESENT, ABSENT) and read(example, text) == "yes"
    return limits.Outcome(scene, levels, kind, yes=yes, right=is_right(example, text))


def _name(factor: str, figure: str, level: object) -> str:
    return "_".join(part for part in (factor, figure, level_name(level)) if part)


@lru_cache(maxsize=4)
def _examples(source: Source) -> Sequence[Example]:
    source.own("limits")
    if source.coco is not None:
        raise ValueError("limits draws its own scenes of the embedded world: leave the COCO folder out.")
    return followed(limit_examples(source.split or "test", source.limit), source.suffix or "")
