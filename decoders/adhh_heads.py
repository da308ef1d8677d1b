"""Which heads push hallucinated words: every head is silenced in turn where such a word is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..pipelines.engine.declarations import HeadEdit
from ..pipelines.engine.run import prefill
from ..pipelines.inputs.prepare import prepare
from ..pipelines.inputs.rows import extended, repeated
from ..pipelines.inputs.text_alignment import answer_tokens
from ..pipelines.inputs.token_spans import spans
from ..pipelines.model import families
from ..pipelines.prefill.last_position import LastPosition

if TYPE_CHECKING:
    from ..pipelines.engine.call import AttentionCall
    from ..pipelines.model.layout import Layout

MEASURES = ("prob_diff", "absolute", "log")


@dataclass(frozen=True)
class Influence:
    """How heads are scored.

    measure: "prob_diff" p − p′, "absolute" |p − p′|, "log" log p − log p′. question: what the captions answer.
    rows: heads that are tried in one pass, each with the prompt's keys and values beside it.
    """

    measure: Literal["prob_diff", "absolute", "log"] = "prob_diff"
    question: str = "Please describe this image in detail."
    rows: int = 16


class Place(NamedTuple):
    """A word of a caption: the number of its first token, and whether it is hallucinated."""

    token: int
    wrong: bool


def places(
    text: str, tokens: Sequence[str], hallucinated: Sequence[str], true: Sequence[str]
) -> list[Place]:
    """The first tokens of these words in a text, each occurrence; a word inside a longer one is none.

    >>> places("A bench, a ball.", ["A", " ben", "ch", ",", " a", " ball", "."], ["ball"], ["bench", "all"])
    [Place(token=5, wrong=True), Place(token=1, wrong=False)]
    """
    placed = spans(text, tokens)
    out = []
    for wrong, words in ((True, hallucinated), (False, true)):
        for word in dict.fromkeys(words):
            start = text.lower().find(word.lower())
            while start >= 0:
                end = start + len(word)
                whole = not (text[start - 1 : start] or " ").isalnum() and not (text[end : end + 1] or " ").isalnum()
                first = next((at for at, (a, b) in enumerate(placed) if a < end and b > start), None)
                if whole and first is not None:
                    out.append(Place(first, wrong))
                start = text.lower().find(word.lower(), end)
    return out


def influence(
    lvlm: Layout, images: Sequence[Any], captions: Sequence[str], hallucinated: Sequence[Sequence[str]],
    true: Sequence[Sequence[str]], how: Influence,
) -> Float[Tensor, "layer head"]:  # fmt: skip
    """`ADHH.attribute`."""
    if len({len(images), len(captions), len(hallucinated), len(true)}) != 1:
        sizes = f"{len(images)} images, {len(captions)} captions, {len(hallucinated)} and {len(true)} lists of words"
        raise ValueError(f"adhh scores heads on {sizes}; give one of each for each image.")
    if how.measure not in MEASURES:
        raise ValueError(f"measure={how.measure!r} is none of {', '.join(map(repr, MEASURES))}.")
    sums = {wrong: torch.zeros(len(lvlm.layers), lvlm.heads, dtype=torch.float64) for wrong in (True, False)}
    counts = dict.fromkeys(sums, 0)
    for image, caption, wrong_words, true_words in zip(images, captions, hallucinated, true, strict=True):
        inputs, ids = prepare(lvlm, [image], [how.question]), answer_tokens(lvlm, how.question, caption)
        pieces = [lvlm.processor.tokenizer.decode([token]) for token in ids[0].tolist()]
        for place in places(caption.strip(), pieces, wrong_words, true_words):
            kind = families.appended(lvlm.model, "token_type_ids")
            rows = extended(inputs, ids[:, : place.token], kind) if place.token else inputs
            found = influences(lvlm, rows, int(ids[0, place.token]), how, whole=place.token == 0)
            sums[place.wrong] += found
            counts[place.wrong] += 1
    if not all(counts.values()):
        lacking = "hallucinated" if not counts[True] else "true"
        raise ValueError(f"adhh compares hallucinated and true words, and there is no {lacking} one in these captions.")
    return (sums[True] / counts[True] - sums[False] / counts[False]).float()


def influences(
    lvlm: Layout, rows: Any, token: int, how: Influence, whole: bool = False
) -> Float[Tensor, "layer head"]:
    """The influence of every head on a token behind one row; whole: the head is silent at all positions of it."""
    layers, heads = len(lvlm.layers), lvlm.heads
    logs = lambda logits: logits.double().log_softmax(-1)[:, token].cpu()
    prompt = LastPosition(lvlm, rows)
    plain, out = logs(prompt.logits(1, [])), []
    for start in range(0, layers * heads, how.rows):
        tried = list(range(start, min(start + how.rows, layers * heads)))

        def mute(states: Float[Tensor, "row query head head_dim"], call: AttentionCall, tried: Any = tried) -> Tensor:
            states = states.clone()
            for row, number in enumerate(tried):
                if number // heads == call.layer:
                    states[row, slice(None) if whole else -1, number % heads] = 0
            return states

        touched = sorted({number // heads for number in tried})
        edit = HeadEdit(touched, mute)
        if whole:
            batch = repeated(rows, len(tried), lvlm.pad_token)
            out.append(logs(prefill(lvlm, batch, [edit]).branches["main"]))
        else:
            out.append(logs(prompt.logits(len(tried), [edit])))
    muted = torch.cat(out).view(layers, heads)
    if how.measure == "log":
        return plain - muted
    change = plain.exp() - muted.exp()
    return change.abs() if how.measure == "absolute" else change
