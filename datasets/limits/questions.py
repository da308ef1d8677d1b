"""What is asked about controlled scenes: the object that is there, one that is not, a caption, and a number."""

from __future__ import annotations

from ..captions import COUNT_QUESTION, NUMBERS
from ..categories import CATEGORIES
from ..examples import WORLD, Example
from ..prompts import DETAIL_PROMPT
from ..seen import is_there
from .scenes import Setting, plan, settings

PRESENT, ABSENT, CAPTION, COUNT = "present", "absent", "caption", "count"


def limit_examples(split: str = "test", limit: int = 100) -> list[Example]:
    """All that is asked about the first `limit` controlled scenes of a split, each in every setting.

    About each image: "Is there a …?" of the object (truth: yes) and of an object that one would expect beside it and
    that is not there (truth: no), and a caption; where the number is varied also "How many … are there?". The two
    objects are the same in all settings of a scene.

    Returns:
        Examples with facts scene (its index), setting (a text), kind (present, absent, caption, count) and object; the
        number where it is counted. A caption's question is the prompt for a long description.

    >>> examples = limit_examples("test", 1)
    >>> len(examples), examples[0].image, examples[0].question, examples[1].label
    (74, 'world:test/0/plain', 'Is there a bottle in the image?', 'no')

    Raises:
        ValueError: an unknown split, or a limit below 1.
    """
    if limit < 1:
        raise ValueError(f"limit={limit} is below 1 (number of scenes).")
    return [
        example for index in range(limit) for setting, levels in settings().items()
        for example in _about(split, index, setting, any(factor == "number" for factor, _ in levels))
    ]  # fmt: skip


def _about(split: str, index: int, setting: Setting, counted: bool) -> list[Example]:
    base = plan(split, index)
    objects = frozenset([base.object, *(name for name, _, _ in base.others[: setting.distractors])])
    questions: list[tuple[str, str, str | None]] = [
        (PRESENT, is_there(base.object), "yes"), (ABSENT, is_there(base.absent), "no"), (CAPTION, DETAIL_PROMPT, None),
    ]  # fmt: skip
    if counted:
        questions.append((COUNT, COUNT_QUESTION.format(CATEGORIES[base.object].plural), NUMBERS[setting.number]))
    name, where = f"{split}_{index:06d}/{setting.text}", f"{WORLD}{split}/{index}/{setting.text}"
    facts = {"scene": index, "setting": setting.text, "object": base.object}
    return [
        Example(
            f"{name}: {kind}", where, name, question, label, objects,
            facts={**facts, "kind": kind, **({"number": setting.number} if kind == COUNT else {})},
        )
        for kind, question, label in questions
    ]  # fmt: skip
