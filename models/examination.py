"""What the embedded LVLM must show, measured on test scenes: the figures of its model card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..datasets import pope as pope_questions
from ..datasets.captions import DETAIL_PROMPT
from ..datasets.world import Scene, scene
from ..metrics import pope
from ..metrics.chair import Chair
from ..metrics.estimate import Estimate

if TYPE_CHECKING:
    from ..pipelines.lvlm import LVLM

STRATEGIES = ("random", "popular", "adversarial")


def examine(
    lvlm: LVLM, images: int = 500, split: str = "test", decoders: Any = (), batch_size: int = 32
) -> dict[str, Estimate]:
    """Captions and POPE answers on the first `images` scenes of a split, greedy, 95 % intervals by image.

    Returns chair_s, chair_i, chair_i_first_half, chair_i_second_half, recall, precision, length, repetition,
    pope_<strategy> accuracy and yes ratio, and pope_shuffled: accuracy with each question asked of another picture.
    """
    scenes = [scene(split, index) for index in range(images)]
    said = lvlm.caption(
        [s.image for s in scenes], decoders, prompt=DETAIL_PROMPT, batch_size=batch_size, max_new_tokens=128
    )
    captions: dict[int | str, str] = {s.name: answer.text for s, answer in zip(scenes, said, strict=True)}
    truth: dict[int | str, set[str]] = {s.name: set(s.categories) for s in scenes}
    scored = Chair().score(captions, truth)
    found = dict(scored.estimates())
    found["chair_i_first_half"], found["chair_i_second_half"] = scored.first_half_second_half()
    for strategy in STRATEGIES:
        part = answer_pope(lvlm, scenes, strategy, decoders, batch_size)
        found[f"pope_{strategy}"], found[f"pope_{strategy}_yes"] = part["accuracy"], part["yes_ratio"]
    found["pope_shuffled"] = answer_pope(lvlm, scenes, "random", decoders, batch_size, shift=1)["accuracy"]
    return found


def answer_pope(
    lvlm: LVLM, scenes: Sequence[Scene], strategy: str, decoders: Any = (), batch_size: int = 32, shift: int = 0
) -> dict[str, Estimate]:
    """POPE on scenes with at least three categories; with a shift each question is asked of another scene's picture."""
    objects = {s.name: s.categories for s in scenes if len(s.categories) >= 3}
    asked = pope_questions.questions(objects, strategy)
    names = list(objects)
    other = {name: names[(number + shift) % len(names)] for number, name in enumerate(names)}
    pictures = {s.name: s.image for s in scenes}
    answers = lvlm.answer(
        [pictures[other[q["image"]]] for q in asked], [q["text"] for q in asked], decoders, batch_size=batch_size,
        max_new_tokens=4,
    )  # fmt: skip
    said = [answer.text for answer in answers]
    return pope.estimates(said, [q["label"] for q in asked], [q["image"] for q in asked])
