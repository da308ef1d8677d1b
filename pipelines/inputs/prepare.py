"""An image and a question as a prompt, and many of them as a batch of left-padded rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..model.families import family, q_former_first
from ..model.layout import Layout
from .complete import moved
from .images import passed_on
from .rows import Rows


def prompt_of(layout: Layout, question: str | Sequence[str], system: str | None = None, images: int = 1) -> str:
    """The exact prompt of one question about one or more images. Raises as `prompt_text`."""
    return prompt_text(layout.processor, question, images, system, template=family(layout.model).template)


def prepare(
    layout: Layout, images: Sequence[Any], questions: Sequence[str | Sequence[str]], system: str | None = None
) -> dict[str, Tensor]:
    """Rows for `veridical.generate`: one question each, left-padded, on the model's device.

    images: one for each question, or a list of several images that it is about.
    """
    shown = [list(image) if isinstance(image, list | tuple) else [image] for image in images]
    prompts = [
        prompt_of(layout, question, system, len(several)) for question, several in zip(questions, shown, strict=True)
    ]
    layout.processor.tokenizer.padding_side = "left"
    rows = layout.processor(
        images=[[passed_on(one) for one in several] for several in shown], text=prompts, padding=True,
        return_tensors="pt",
    )
    tensors = {name: moved(value, layout.device) for name, value in rows.items() if isinstance(value, Tensor)}
    return Rows.about(q_former_first(tensors), shown)


def conversation(question: str | Sequence[str], images: int = 1, system: str | None = None) -> list[dict]:
    """The chat messages of one question about one or more images, or of several turns: user, model, …, user.

    Raises:
        ValueError: turns that do not end with the user's.
    """
    first, *more = [question] if isinstance(question, str) else question
    if len(more) % 2:
        raise ValueError(f"a conversation of {1 + len(more)} turns ends with the model's; the last turn is the user's")
    content: list[dict] = [{"type": "image"}] * images + [{"type": "text", "text": first}]
    messages: list[dict] = [{"role": "user", "content": content}]
    for place, text in enumerate(more):
        messages.append({"role": "user" if place % 2 else "assistant", "content": [{"type": "text", "text": text}]})
    if system:
        messages.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
    return messages


def prompt_text(
    processor: Any, question: str | Sequence[str], images: int = 1, system: str | None = None,
    template: str | None = None,
) -> str:  # fmt: skip
    """The exact prompt string that the processor's chat template makes, or `template` where it has none.

    question: a text, or the turns of a conversation (see `conversation`).
    template: the family's own, with {image}, once per image, and {question}.

    Raises:
        ValueError: the processor has no chat template, and neither has its family; or its template has no place for a
            system prompt, or for the model's earlier turns.
    """
    if not isinstance(question, str) and getattr(processor, "chat_template", None) is None:
        raise ValueError(f"{type(processor).__name__} has no chat template, so that it takes one turn and no second")
    if getattr(processor, "chat_template", None) is None and template is not None:
        placeholder = str(getattr(processor, "image_token", ""))
        text = template.format(image=placeholder * images, question=question)
        return f"{system}\n{text}" if system else text
    if getattr(processor, "chat_template", None) is None:
        raise ValueError(
            f"{type(processor).__name__} has no chat template; give the whole prompt as inputs from your own processor "
            "call, or set processor.chat_template"
        )
    messages = conversation(question, images, system)
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    lost = [] if isinstance(question, str) else [turn for turn in question if turn.strip() not in text]
    if lost:
        raise ValueError(f"the chat template of this {type(processor).__name__} leaves out the turn {lost[0]!r:.80}")
    if system and system.strip() not in text:
        raise ValueError(
            f"the chat template of this {type(processor).__name__} leaves the system prompt out; put it into the "
            "question, or set processor.chat_template"
        )
    return text
