"""The prompts of papers by name, "@opera", since figures made with other words are not comparable.

A caption prompt is used as it is. A frame has {question} and is put around the question of a benchmark or a user. A
name may stand for one of each. Wording as in the released code or the paper that is named.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from ...datasets.prompts import DETAIL_PROMPT as DETAIL
from ..registry import UnknownName

MARK, SLOT = "@", "{question}"


@dataclass(frozen=True)
class Prompt:
    """One paper's prompts. caption: to describe an image. frame: around a question. source: whose, and where used."""

    source: str
    caption: str | None = None
    frame: str | None = None


HELP = "Please help me describe the image in detail."
ONE_WORD = "{question} Please answer this question with one word."

PROMPTS: Mapping[str, Prompt] = {
    "detail": Prompt("CHAIR in OPERA, AGLA, VHR and others", caption=DETAIL),
    "opera": Prompt("OPERA, arXiv 2311.17911: CHAIR; POPE asks the bare question", DETAIL, "{question}"),
    "vcd": Prompt("VCD, arXiv 2311.16922, and those who follow it: POPE", frame=ONE_WORD),
    "agla": Prompt("AGLA, arXiv 2406.12718: CHAIR and POPE", DETAIL, ONE_WORD),
    "vhr": Prompt("VHR, arXiv 2412.13949: CHAIR", caption=DETAIL),
    "vista": Prompt("VISTA, arXiv 2502.03628, released code: CHAIR", caption=HELP),
    "pai": Prompt("PAI, arXiv 2407.21771: CHAIR", caption=HELP),
    "svar": Prompt("SVAR, arXiv 2411.16724: CHAIR", caption=HELP),
    "imbalanced": Prompt("arXiv 2501.12206: CHAIR", caption=HELP),
    "helpd": Prompt("HELPD, arXiv 2409.20429, released script: CHAIR", caption="Describe the content of the image."),
    "amber": Prompt("AMBER, arXiv 2311.07397: generative part", caption="Describe this image."),
    "mvp": Prompt("MVP, plain baseline: POPE", frame=ONE_WORD),
    "llava": Prompt(
        "LLaVA-1.5 and lmms-eval: short answers",
        frame="{question}\nAnswer the question using a single word or phrase.",
    ),
    "vicrop": Prompt(
        "ViCrop, with LLaVA: short answers, and its general prompt",
        "Write a general description of the image.",
        "{question} Answer the question using a single word or phrase.",
    ),
    "vicrop-blip": Prompt("ViCrop, with InstructBLIP: short answers", frame="Question: {question} Short answer:"),
    "vlmevalkit": Prompt("VLMEvalKit, for some models: yes/no questions", frame="{question} Please answer yes or no."),
}


def find(name: str) -> Prompt:
    """The prompt of that name, with or without "@".

    Raises:
        UnknownName: with near names.
    """
    plain = name.removeprefix(MARK)
    if plain not in PROMPTS:
        near = difflib.get_close_matches(plain.lower(), PROMPTS, n=1, cutoff=0.5)
        hint = f' Did you mean "@{near[0]}"?' if near else ""
        raise UnknownName(f'no prompt "@{plain}".{hint} Known: {", ".join(f"@{one}" for one in sorted(PROMPTS))}.')
    return PROMPTS[plain]


def caption_prompt(wanted: str) -> str:
    """The text that asks for a caption: the given one, or the caption prompt that "@name" stands for.

    >>> caption_prompt("Describe the dog."), caption_prompt("@amber")
    ('Describe the dog.', 'Describe this image.')

    Raises:
        UnknownName: no prompt of that name. ValueError: it has no caption prompt, or is a frame.
    """
    found = caption_of(wanted)
    if found is None:
        raise ValueError(f"{wanted!r} frames questions and asks for no caption; {_with('caption')}, or write the text.")
    return found


def caption_of(wanted: str) -> str | None:
    """The same; None where it is only a frame."""
    return find(wanted).caption if wanted.startswith(MARK) else None if SLOT in wanted else wanted


def frame_of(wanted: str) -> str | None:
    """The frame that "@name" stands for or that a text with {question} is; None where it is only a caption prompt."""
    return find(wanted).frame if wanted.startswith(MARK) else wanted if SLOT in wanted else None


def framed(question: str, wanted: str | None) -> str:
    """A question in its frame.

    >>> framed("Is there a dog?", "@vcd")
    'Is there a dog? Please answer this question with one word.'

    Raises:
        UnknownName: no prompt of that name. ValueError: it frames no question.
    """
    if wanted is None:
        return question
    frame = frame_of(wanted)
    if frame is None:
        raise ValueError(f"{wanted!r} asks for a caption and frames no question; {_with('frame')}, or write {SLOT}.")
    return frame.replace(SLOT, question)


def _with(kind: str) -> str:
    names = ", ".join(f"@{name}" for name, prompt in PROMPTS.items() if getattr(prompt, kind) is not None)
    return f"possible: {names}"
