"""Checks of what callers hand to the Python interface, each with an error that names what is possible."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.generation import GenerationMixin

from .checks import check_flag, whole_number
from .engine.options import ARGUMENTS, OTHER_LOOPS
from .model.layout import Layout

LEAST = {
    "max_new_tokens": 1, "min_new_tokens": 0, "max_length": 1, "min_length": 0, "num_beams": 1, "top_k": 0,
    "num_return_sequences": 1, "no_repeat_ngram_size": 0,
}  # fmt: skip
SHARES = ("top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
POSITIVE = ("repetition_penalty", "encoder_repetition_penalty")
FLAGS = ("do_sample", "use_cache", "early_stopping", "return_dict_in_generate")
# What generate takes beside its signature and its configuration, in one release of transformers or another.
FURTHER = frozenset((*ARGUMENTS, *OTHER_LOOPS, "past_key_values", "cache", "penalty_alpha", "use_model_defaults"))


@cache
def _known() -> frozenset[str]:
    names = {*vars(GenerationConfig()), *inspect.signature(GenerationMixin.generate).parameters, *FURTHER}
    return frozenset(name for name in names if not name.startswith("_")) - {"self", "kwargs", "inputs"}


def check_options(options: Mapping[str, Any], beside: Iterable[str] = ()) -> None:
    """Options of transformers' generate: names that it knows, with values in their range. None is its default.

    beside: the arguments that stand beside the options, which a misspelt name may mean.

    Raises:
        TypeError: an unknown name. ValueError: a value outside its range.
    """
    for name, value in options.items():
        if name not in _known():
            near = difflib.get_close_matches(name, [*beside, *_known()], n=1, cutoff=0.6)
            hint = f' Did you mean "{near[0]}"?' if near else ""
            raise TypeError(
                f"unknown argument {name!r}.{hint} Possible: {', '.join(beside)}, and what transformers' generate "
                "takes, such as max_new_tokens, do_sample, temperature, top_p and num_beams."
            )
        if value is None:
            continue
        if name in LEAST:
            check_whole(name, value, LEAST[name])
        elif name in FLAGS and not (name == "early_stopping" and value == "never"):
            check_flag(name, value, "an option of generate")
        elif name in SHARES:
            _check_number(name, value, 0 <= value <= 1 if _is_number(value) else False, "a share between 0 and 1")
        elif name == "temperature":
            _check_number(name, value, value >= 0 if _is_number(value) else False, "a number of at least 0")
        elif name in POSITIVE:
            _check_number(name, value, value > 0 if _is_number(value) else False, "a number above 0")


def check_whole(name: str, value: Any, least: int) -> int:
    """The value as a whole number of at least `least`, or ValueError."""
    found = whole_number(value)
    if found is None or found < least:
        raise ValueError(f"{name}={value!r} is no whole number of at least {least}; give one, such as {max(least, 8)}.")
    return found


def check_prompt(prompt: Any, default: str) -> str:
    """The prompt of a caption, or ValueError if it is no text."""
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError(
            f'prompt={prompt!r} is no text; give a text, a paper\'s prompt such as "@vista", or leave it out for '
            f"{default!r}."
        )
    return prompt


def check_questions(questions: Any, count: int) -> list[Any]:
    """One question for each image: a text, or a sequence of turns; a single text is for all.

    Raises:
        ValueError: something that is no text, an empty text, or another number of questions than of images.
    """
    if questions is None:
        raise ValueError("questions=None: give one text for all images, or one for each; `caption` has a prompt.")
    many = [questions] * count if isinstance(questions, str) else list(questions)
    if len(many) != count:
        raise ValueError(f"{len(many)} questions for {count} images; give one for all, or one for each")
    for place, question in enumerate(many):
        turns = [question] if isinstance(question, str) else question
        if not isinstance(turns, Sequence) or not turns or not all(isinstance(t, str) and t.strip() for t in turns):
            raise ValueError(f"question {place} is {question!r}; a question is a text that is not empty, or its turns.")
    return many


def check_layout(lvlm: Any, where: str) -> None:
    """Raise TypeError unless this is a model with its layout."""
    if not isinstance(lvlm, Layout):
        wrap = f"veridical.LVLM({'model' if isinstance(lvlm, torch.nn.Module) else '…'}, processor)"
        raise TypeError(
            f"{where} takes an LVLM; found {type(lvlm).__name__}. Wrap a loaded transformers model as {wrap}, or load "
            "one by veridical.load(name)."
        )


def check_ids(lvlm: Layout, inputs: Mapping[str, Tensor], ids: Any) -> Tensor:
    """The token ids to score, (batch, token), or an error.

    Raises:
        TypeError: a text. ValueError: another shape, another number of rows, or an id outside the vocabulary.
    """
    if isinstance(ids, str) or (isinstance(ids, list | tuple) and any(isinstance(one, str) for one in ids)):
        raise TypeError(
            "veridical.score takes token ids of shape (batch, token); found a text. For a text take "
            "answer_tokens(lvlm, question, text) of veridical.pipelines.inputs.text_alignment."
        )
    found = torch.as_tensor(ids)
    rows = len(inputs["input_ids"]) if "input_ids" in inputs else None
    if found.dim() != 2 or found.is_floating_point() or found.dtype == torch.bool:
        raise ValueError(
            f"veridical.score takes whole token ids of shape (batch, token); found {found.dtype} of shape "
            f"{tuple(found.shape)}."
        )
    if rows is not None and len(found) != rows:
        raise ValueError(f"ids have {len(found)} rows and the inputs {rows}; give one row of ids for each prompt.")
    size = lvlm.model.get_input_embeddings().weight.shape[0]
    if found.numel() and not 0 <= int(found.min()) <= int(found.max()) < size:
        wrong = int(found.min()) if int(found.min()) < 0 else int(found.max())
        raise ValueError(f"ids hold {wrong}, which is no token: the vocabulary of {lvlm.name} is 0 to {size - 1}.")
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _check_number(name: str, value: Any, fits: bool, possible: str) -> None:
    if not fits:
        raise ValueError(f"{name}={value!r} is not {possible}.")
