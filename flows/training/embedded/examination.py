"""What the embedded LVLM must show, measured on test scenes: the figures of its model card."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ....datasets.captions import DETAIL_PROMPT
from ....datasets.examples import world_captions, world_pope
from ....datasets.pope import STRATEGIES
from ....metrics import pope
from ....metrics.chair import Chair
from ....metrics.estimate import Estimate

if TYPE_CHECKING:
    from ....pipelines.lvlm import LVLM


def examine(
    lvlm: LVLM, images: int = 500, split: str = "test", decoders: Any = (), batch_size: int = 32
) -> dict[str, Estimate]:
    """Captions and POPE answers on the first `images` scenes of a split, greedy, 95 % intervals by image.

    Returns chair_s, chair_i, chair_i_first_half, chair_i_second_half, recall, precision, length, repetition,
    pope_<strategy> accuracy and yes ratio, and pope_shuffled: accuracy with each question about another image.
    """
    examples = world_captions(split, images)
    opened = [example.open() for example in examples]
    answers = lvlm.caption(opened, decoders, prompt=DETAIL_PROMPT, batch_size=batch_size, max_new_tokens=128)
    captions: dict[int | str, str] = {e.image_id: answer.text for e, answer in zip(examples, answers, strict=True)}
    scored = Chair().score(captions, {example.image_id: example.objects for example in examples})
    found = dict(scored.estimates())
    found["chair_i_first_half"], found["chair_i_second_half"] = scored.first_half_second_half()
    answered: dict[tuple[int | str, str], str] = {}  # the strategies share their questions about what is there
    for strategy in STRATEGIES:
        part = answer_pope(lvlm, images, strategy, split, decoders, batch_size, answered=answered)
        found[f"pope_{strategy}"], found[f"pope_{strategy}_yes"] = part["accuracy"], part["yes_ratio"]
    shuffled = answer_pope(lvlm, images, "random", split, decoders, batch_size, shift=1)
    found["pope_shuffled"] = shuffled["accuracy"]
    return found


def answer_pope(
    lvlm: LVLM, images: int, strategy: str, split: str = "test", decoders: Any = (), batch_size: int = 32,
    shift: int = 0, answered: dict[tuple[int | str, str], str] | None = None,
) -> dict[str, Estimate]:  # fmt: skip
    """POPE on the first scenes with three categories; with a shift each question is about another scene's image.

    answered: (image, question) -> answer, of questions without a shift that were put before; it is filled further.
    """
    examples = world_pope(split, images, strategy)
    opened = {example.image_id: example.open() for example in examples}
    names, texts = list(opened), {} if answered is None else answered
    shown = {name: opened[names[(place + shift) % len(names)]] for place, name in enumerate(names)}
    pairs = [(example.image_id, str(example.question)) for example in examples]
    new = [pair for pair in dict.fromkeys(pairs) if pair not in texts]
    answers = lvlm.answer(
        [shown[image] for image, _ in new], [question for _, question in new], decoders, batch_size=batch_size,
        max_new_tokens=4,
    )  # fmt: skip
    texts.update({pair: answer.text for pair, answer in zip(new, answers, strict=True)})
    labels = [str(example.label) for example in examples]
    return pope.estimates([texts[pair] for pair in pairs], labels, [example.image_id for example in examples])
