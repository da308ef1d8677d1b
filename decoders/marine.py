"""MARINE: guidance by the objects that detectors find in the image.

Zhao et al., "Mitigating Object Hallucination in Large Vision-Language Models via Image-Grounded Guidance", ICML 2025,
arXiv 2402.08680.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..pipelines.engine.declarations import Step
from ..pipelines.inputs.objects_file import objects_of
from ..pipelines.method import number, ruled
from .contrast import Contrast
from .description import template_row
from .rewritten import each_sample, rebuilt, unpadded, words_of
from .view import outcome

if TYPE_CHECKING:
    from ..pipelines.model.layout import Inputs, Layout

SENTENCE = "Focus on the visible objects in this image: {objects}."
ANY_QUESTION = "Describe this image."  # whatever it is, the template ends the same


def mixture(
    logits: Float[Tensor, "batch vocab"], guided: Float[Tensor, "batch vocab"], gamma: float
) -> Float[Tensor, "batch vocab"]:
    """(1 − γ)·log p + γ·log p_g, normalised, in float32 or more; what is cut from l stays cut."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    log_p, log_g = logits.log_softmax(1, dtype=wide), guided.log_softmax(1, dtype=wide)
    mixed = (1 - gamma) * log_p + gamma * log_g
    return mixed.masked_fill(logits.isneginf(), -torch.inf).log_softmax(1).to(logits.dtype)


def guided_rows(lvlm: Layout, inputs: Inputs, objects: Sequence[Sequence[str]]) -> list[list[int]]:
    """Each prompt with the sentence of its objects behind its question, in front of what the template ends with.

    Raises:
        ValueError: a prompt that does not end as the processor's template does.
    """
    plain = unpadded(template_row(lvlm, ANY_QUESTION))[0]
    rows = unpadded(inputs)
    for row, names in enumerate(objects):
        if not names:
            continue
        (longer,) = unpadded(template_row(lvlm, f"{ANY_QUESTION} {SENTENCE.format(objects=', '.join(names))}"))
        same = next(at for at, (a, b) in enumerate(zip([*plain, None], [*longer, None], strict=False)) if a != b)
        end = plain[same:]
        if rows[row][len(rows[row]) - len(end) :] != end:
            raise ValueError(
                f"the prompt of sample {row} does not end as the chat template of {lvlm.name} does, so that the place "
                "of its objects is not known: give guide=…, a callable from the inputs to whole guided prompts as ids"
            )
        rows[row] = [*rows[row][: len(rows[row]) - len(end)], *longer[same:]]
    return rows


def _objects(name: str, value: Any) -> Any:
    """A path, a callable, names for every sample, or a tuple of them for each; lists become tuples."""
    if callable(value) or (isinstance(value, str) and value.strip()):
        return value

    def frozen(one: Any) -> Any:
        return tuple(map(frozen, one)) if isinstance(one, list | tuple) else one

    found = frozen(value)
    if isinstance(found, tuple) and (_names(found) or all(_names(one) for one in found)):
        return found
    raise ValueError(
        f"{name}={value!r} are no names of objects: give a file, a callable from the inputs to the names of each "
        "sample, names for every sample, such as ('dog', 'cat'), or a tuple of them for each, such as (('dog',), ())."
    )


def _names(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(one, str) and one.strip() for one in value)


@dataclass(frozen=True)
class MARINE(Contrast):
    r"""Mix in the distribution under a prompt that names the objects which detectors find in the image.

    log π = (1 − γ)·log p + γ·log p_g, normalised

    p, p_g: (batch, vocab) softmax of the logits for the prompt, and for the prompt with the sentence "Focus on the
    visible objects in this image: …" behind its question; same image, same tokens so far. γ: `gamma`; 1 is the guided
    prompt alone. No token is cut. `objects` are the names; none for an image is the plain prompt for it. `guide` gives
    whole guided prompts in their place.

    `objects` may be a file that `veridical objects` writes, or one's own: a line of JSON for each image with "image", a
    path from the file's folder, and "objects", names. An image is known by its pixels.

    Raises:
        ValueError: a value outside its range, or both of `objects` and `guide`; when decoding starts, neither of them,
            objects for a model without a processor or for a prompt that does not end as its template does, an image
            that the file does not have, or a guided prompt with another number of image tokens.

    Detectors are no part of it; the paper's objects are those of DETR (score 0.95) that RAM++ (0.68) confirms. The
    sentence is ours: the paper has one of its own, the released code one of four that it draws. That code drops masks,
    so that answers depend on what shares the batch, and lowers the case of the guided question alone; neither is
    reproduced, and `official()` is the same. The Q-Former of InstructBLIP reads the plain question.
    """

    gamma: float = number(0.7, "share of the guided prompt", "0 is plain decoding, above 1 the plain is subtracted.")
    objects: Any = ruled(
        None, "names of the objects in the images",
        "a file, names for all samples, a tuple of them for each, or a callable from the inputs", "", _objects,
    )  # fmt: skip
    guide: Callable[..., Any] | None = ruled(
        None, "what gives whole guided prompts",
        "a callable, from the inputs or from inputs and prompts, to one 1-D tensor of token ids per sample",
        "Without padding, with the image's placeholders. For a model without a processor.",
    )  # fmt: skip

    against = "a prompt that names the image's objects"
    weighs = ("gamma",)
    neutral = {"gamma": 0}
    released = {}  # what its scripts run, but for the bugs above

    def validate(self) -> None:
        if self.guide is not None and not callable(self.guide):
            raise ValueError(f"guide={self.guide!r} cannot be called; give a function from the inputs to token ids.")
        if self.guide is not None and self.objects is not None:
            raise ValueError("objects and guide both say what the guided prompt is; give one of them.")

    def branch(self, lvlm: Layout, inputs: Inputs) -> Inputs:
        samples = len(inputs["input_ids"])
        if self.guide is not None:
            found = each_sample("guide", outcome(self.guide, lvlm, inputs), samples)
            rows = [words_of(lvlm, "guide", row, ids, images=True) for row, ids in enumerate(found)]
        else:
            rows = guided_rows(lvlm, inputs, self.names(lvlm, inputs))
        for row, (ids, plain) in enumerate(zip(rows, unpadded(inputs), strict=True)):
            wanted, has = (sum(token == lvlm.image_token for token in some) for some in (plain, ids))
            if wanted != has:
                raise ValueError(
                    f"guide gave {has} image tokens for sample {row}, whose prompt has {wanted}; both are about the "
                    "same image: give the whole guided prompt with as many placeholders"
                )
        return rebuilt(lvlm, inputs, rows, images=True)

    def names(self, lvlm: Layout, inputs: Inputs) -> list[tuple[str, ...]]:
        """The objects of each sample."""
        samples = len(inputs["input_ids"])
        if self.objects is None:
            raise ValueError(
                "MARINE needs to know what is in the images: give objects=…, names or a file of them (veridical "
                "objects writes one), or guide=…, whole guided prompts as token ids"
            )
        if lvlm.processor is None:
            raise ValueError(
                f"{lvlm.name} has no processor, which writes objects into a prompt: give guide=…, a callable from the "
                "inputs to whole guided prompts as token ids, or load the model with its processor"
            )
        if isinstance(self.objects, str):
            return objects_of(self.objects, inputs)
        if isinstance(self.objects, tuple) and self.objects and _names(self.objects):
            return [self.objects] * samples
        found = outcome(self.objects, lvlm, inputs) if callable(self.objects) else self.objects
        out = [tuple(names) for names in each_sample("objects", found, samples)]
        if wrong := [names for names in out if not _names(names)]:
            raise ValueError(f"objects gave {wrong[0]!r}, which are no names; give a list of texts for each sample.")
        return out

    def mix(self, logits: Float[Tensor, "batch vocab"], step: Step) -> Float[Tensor, "batch vocab"]:
        return mixture(logits, step.branches[self.opened], self.gamma)
