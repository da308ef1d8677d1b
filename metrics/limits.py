"""Perceptual limits: accuracy and hallucination as a function of one thing that is varied in otherwise equal scenes.

The definitions are ours. What is resampled, and swapped between two systems, is the scene with all its settings: they
share object and background, and so do not vote independently.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .estimate import Estimate, ratio
from .paired import Difference, paired_differences

HIGHER_IS_BETTER = {
    "accuracy": True, "hit_rate": True, "false_alarm_rate": False, "caption_recall": True, "chair_i": False,
    "count_accuracy": True,
}  # fmt: skip
FIGURES = tuple(HIGHER_IS_BETTER)
Sums = dict[int, tuple[float, float]]  # scene -> top and bottom of a ratio


@dataclass(frozen=True)
class Outcome:
    """What one answer shows.

    Args:
        scene: whose settings belong together. levels: (factor, level) pairs that its setting stands for.
        kind: "present" or "absent" (a yes/no question about an object that is there, or is not), "count", "caption".
        yes: of yes/no questions: the answer is yes. right: of questions: the answer is right.
        named: of captions: the object is mentioned. mentions, hallucinated: of captions, how many, and how many wrong.
    """

    scene: int
    levels: Sequence[tuple[str, object]]
    kind: str
    yes: bool = False
    right: bool = False
    named: bool = False
    mentions: int = 0
    hallucinated: int = 0


def parts(outcome: Outcome) -> dict[str, tuple[float, float]]:
    """Figure -> (top, bottom) that one answer adds.

    accuracy: yes/no questions that are right; half of them are about what is there. hit_rate: "yes" to what is there.
    false_alarm_rate: "yes" to what is not. caption_recall: captions that mention the object. chair_i: mentions of what
    is not there / mentions. count_accuracy: numbers that are exactly right. All lie within 0 to 1.

    >>> parts(Outcome(0, (), "absent", yes=True))
    {'accuracy': (0.0, 1.0), 'false_alarm_rate': (1.0, 1.0)}
    """
    right = float(outcome.right), 1.0
    if outcome.kind == "present":
        return {"accuracy": right, "hit_rate": (float(outcome.yes), 1.0)}
    if outcome.kind == "absent":
        return {"accuracy": right, "false_alarm_rate": (float(outcome.yes), 1.0)}
    if outcome.kind == "count":
        return {"count_accuracy": right}
    return {
        "caption_recall": (float(outcome.named), 1.0),
        "chair_i": (float(outcome.hallucinated), float(outcome.mentions)),
    }


def sums(outcomes: Sequence[Outcome]) -> dict[tuple[str, object], dict[str, Sums]]:
    """(factor, level) -> figure -> scene -> summed (top, bottom); ("", "") stands for all answers, each once."""
    found: dict[tuple[str, object], dict[str, Sums]] = {}
    for outcome in outcomes:
        for figure, (top, bottom) in parts(outcome).items():
            for level in [("", ""), *outcome.levels]:
                if figure == "count_accuracy" and level[0] not in ("", "number"):
                    continue  # the plain setting is counted for the number's sake
                by_scene = found.setdefault(level, {}).setdefault(figure, {})
                before = by_scene.get(outcome.scene, (0.0, 0.0))
                by_scene[outcome.scene] = before[0] + top, before[1] + bottom
    return found


def estimates(summed: Mapping[tuple[str, object], Mapping[str, Sums]]) -> dict[tuple[str, object], dict[str, Estimate]]:
    """Every figure at every level with its 95 % interval; n is the number of scenes.

    >>> seen = [Outcome(scene, [("size", 12)], "present", yes=scene < 3, right=scene < 3) for scene in range(4)]
    >>> estimates(sums(seen))["size", 12]["hit_rate"].value
    0.75
    """
    return {
        level: {name: _estimate(by_scene) for name, by_scene in table.items()}
        for level, table in summed.items()
    }


def changes(
    summed: Mapping[tuple[str, object], Mapping[str, Sums]], factor: str, reference: object
) -> dict[object, dict[str, Difference]]:
    """Level -> figure -> figure at that level minus figure at the reference, paired by scene.

    Scenes that lack one of the two levels are left out of that difference.
    """
    base = summed.get((factor, reference), {})
    found: dict[object, dict[str, Difference]] = {}
    for (name, level), table in summed.items():
        if name != factor or level == reference:
            continue
        by_scenes: dict[tuple[int, ...], list[str]] = {}
        for figure in table:
            shared = tuple(scene for scene in table[figure] if scene in base.get(figure, {}))
            if shared:
                by_scenes.setdefault(shared, []).append(figure)
        for shared, figures in by_scenes.items():
            columns = {figure: _columns(table[figure], base[figure], shared) for figure in figures}
            found.setdefault(level, {}).update(paired_differences(columns))
    return found


def _estimate(by_scene: Sums) -> Estimate:
    tops, bottoms = np.array(list(by_scene.values())).T
    return ratio(tops, bottoms)


def _columns(one: Sums, two: Sums, scenes: Sequence[int]) -> tuple[np.ndarray, ...]:
    mine, theirs = (np.array([by_scene[scene] for scene in scenes]).T for by_scene in (one, two))
    return (*mine, *theirs)
