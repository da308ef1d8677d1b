"""Questions that follow an answer: batches in which it is there already, and the conversation so far."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ...datasets.examples import Example

if TYPE_CHECKING:
    from ...pipelines.lvlm import LVLM
    from ...pipelines.results import Answer

Question = str | tuple[str, ...] | None
NO_ANSWER = "the answer that this question follows is missing"


def batches(examples: Sequence[Example], size: int, lengths: Sequence[int]) -> Iterator[list[int]]:
    """Places of examples, `size` at a time and of like length; one never shares a batch with the answer it follows.

    Examples that follow an answer come after it, and those that do stand together. lengths: of their prompts.

    >>> one, two = (Example(name, name, "", "?", None, frozenset()) for name in "ab")
    >>> then = Example("c", "", "", "Really?", None, frozenset(), after="a")
    >>> list(batches([one, two, then], 16, [5, 9, 9]))
    [[1, 0], [2]]
    """
    from ...pipelines.inputs.lengths import batches as of_like_length

    start = 0
    for _, run in groupby(examples, key=lambda example: bool(example.after)):
        images = [example.image for example in run]
        here = lengths[start : start + len(images)]
        for part in of_like_length(here, images, size):
            yield [start + place for place in part]
        start += len(images)


def prompt_lengths(lvlm: LVLM, examples: Sequence[Example], prompt: str | None) -> list[int]:
    """The lengths by which `batches` sorts; of a conversation those of its newest question.

    They depend on nothing that a run finds out, so that the batches are the same wherever it was stopped. prompt: the
    benchmark's, for examples without a question.
    """
    from ...pipelines.inputs.lengths import lengths

    questions = [example.question or prompt or "" for example in examples]
    return lengths(lvlm.processor, [example.path for example in examples], questions)


def questions(
    part: Sequence[Example], examples: Sequence[Example], prompt: str | None, texts: Mapping[str, str]
) -> list[Question]:
    """The question of each example in `part`: a text, or the turns of a conversation; None without its earlier answer.

    Args:
        examples: all of the benchmark. prompt: the benchmark's, for examples without a question.
        texts: example id -> the model's answer.
    """
    before = {e.after for e in part if e.after}
    first = {e.id: e.question or prompt or "" for e in examples if e.id in before} if before else {}
    out: list[Question] = []
    for example in part:
        question = example.question or prompt or ""
        if not example.after:
            out.append(question)
        elif example.after in texts:
            out.append((first[example.after], kept(texts[example.after], example.words), question))
        else:
            out.append(None)
    return out


def kept(text: str, words: int | None) -> str:
    """The first words of a text.

    >>> kept("One dog, two cats.", 2), kept("One dog.", None)
    ('One dog,', 'One dog.')
    """
    return text if words is None else " ".join(text.split()[:words])


def answered(
    lvlm: LVLM, part: Sequence[Example], questions: Sequence[Question], seeds: Sequence[int], **options: Any
) -> list[Answer]:
    """The answers of `lvlm.answer`, and an error row for each question without the answer that it follows.

    Args:
        questions, seeds: of `part`. options: as `lvlm.answer`.
    """
    from ...pipelines.results import Answer

    good = [place for place, question in enumerate(questions) if question is not None]
    images = [part[place].path or part[place].open() for place in good]
    seeds = [seeds[place] for place in good]
    answers = iter(lvlm.answer(images, [questions[place] for place in good], errors="row", seed=seeds, **options))
    return [Answer("", error=NO_ANSWER) if question is None else next(answers) for question in questions]
