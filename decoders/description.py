"""A model's own description of each image, as token ids: CODE puts it in the image's place."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from PIL import Image
from torch import Tensor

from ..pipelines.engine.run import run
from ..pipelines.inputs.prepare import prepare
from .prefix import question_starts
from .rewritten import each_sample, rebuilt, unpadded, words_of
from .view import outcome

if TYPE_CHECKING:
    from ..pipelines.model.layout import Inputs, Layout

REQUEST = (
    "Provide a detailed description of the image, covering all visible elements and their interactions, so as to "
    "thoroughly answer any potential questions about the image."
)
KEPT = 4096  # descriptions per model
_KNOWN: WeakKeyDictionary[Any, dict[str, list[int]]] = WeakKeyDictionary()


def template_row(lvlm: Layout, text: str) -> dict[str, Tensor]:
    """The prompt of a question about a grey image, as the model's processor makes it."""
    return prepare(lvlm, [Image.new("RGB", (64, 64), (128, 128, 128))], [text])


def descriptions(
    lvlm: Layout, inputs: Inputs, describe: Callable[..., Any] | None, tokens: int
) -> list[list[list[int]]]:
    """For each sample, one description for all of its images, or one for each of them.

    describe: what returns them; None lets the model describe the images, in at most so many tokens.
    """
    samples = len(inputs["input_ids"])
    if describe is None:
        return [[ids] for ids in own_descriptions(lvlm, inputs, tokens)]
    out = []
    for row, entry in enumerate(each_sample("description", outcome(describe, lvlm, inputs), samples)):
        several = isinstance(entry, list | tuple) and len(entry) > 0 and hasattr(entry[0], "__len__")
        out.append([words_of(lvlm, "description", row, text) for text in (entry if several else [entry])])
    return out


def own_descriptions(lvlm: Layout, inputs: Inputs, tokens: int) -> list[list[int]]:
    """Greedy descriptions without special tokens. Those of images that were described before are not made anew.

    Raises:
        ValueError: no processor, which has the words of the request, or no image.
    """
    if lvlm.processor is None:
        raise ValueError(
            f"{lvlm.name} has no processor that could ask for a description of the image: give description=…, a "
            "callable from the inputs to the token ids of each sample's, or load the model with its processor"
        )
    if "pixel_values" not in inputs:
        raise ValueError(f"there is no image to describe: inputs lack pixel_values; found {', '.join(inputs)}")
    requested = requests(lvlm, inputs)
    keys, known = _keys(lvlm, requested, tokens), _KNOWN.setdefault(lvlm.model, {})
    if keys is None:
        return _described(lvlm, requested, tokens)
    new = {key: row for row, key in enumerate(keys) if key not in known}
    found = {key: known[key] for key in keys if key in known}
    if new:
        rows = picked(requested, sorted(new.values()))
        found |= dict(zip(sorted(new, key=new.__getitem__), _described(lvlm, rows, tokens), strict=True))
        known |= {key: found[key] for key in new}
        for key in list(known)[: max(0, len(known) - KEPT)]:
            del known[key]
    return [found[key] for key in keys]


def requests(lvlm: Layout, inputs: Inputs) -> dict[str, Tensor]:
    """The same prompts up to their images, with the request for a description in place of all that follows."""
    reference = template_row(lvlm, REQUEST)
    (start,) = question_starts(lvlm, reference)
    tail = reference["input_ids"][0, start:].tolist()
    starts, mask = question_starts(lvlm, inputs), inputs["attention_mask"]
    real = [int(row[:start].sum()) for row, start in zip(mask, starts, strict=True)]  # tokens in front of the question
    rows = [[*row[:count], *tail] for row, count in zip(unpadded(inputs), real, strict=True)]
    questions = {name: value.expand(len(rows), -1) for name, value in reference.items() if name.startswith("qformer_")}
    return {**rebuilt(lvlm, inputs, rows, images=True), **questions}


def picked(inputs: Inputs, rows: list[int]) -> dict[str, Tensor]:
    """These rows with their images; one image for each row."""
    out = {name: value[rows] for name, value in inputs.items() if name != "pixel_values"}
    grids = inputs.get("image_grid_thw")
    parts = inputs["pixel_values"] if grids is None else inputs["pixel_values"].split(grids.prod(1).tolist())
    chosen = [parts[row] for row in rows]
    return {**out, "pixel_values": torch.stack(chosen) if grids is None else torch.cat(chosen)}


def _keys(lvlm: Layout, inputs: Inputs, tokens: int) -> list[str] | None:
    """What a description depends on, of each row; None where the rows have not one image each."""
    rows, grids = len(inputs["input_ids"]), inputs.get("image_grid_thw")
    if any(len(value) != rows for name, value in inputs.items() if grids is None or name != "pixel_values"):
        return None
    if not bool(lvlm.image_mask(inputs["input_ids"]).any(1).all()):
        return None
    weights = sum(weight._version for weight in lvlm.model.parameters())
    state = f"{weights} {lvlm.dtype} {lvlm.device} {lvlm.attention_implementation} {tokens}"
    out = []
    for row, ids in enumerate(unpadded(inputs)):
        one = picked(inputs, [row])
        digest = hashlib.sha256(f"{state} {ids}".encode())
        for name in sorted(set(one) - {"input_ids", "attention_mask"}):
            value = one[name].detach().cpu()
            digest.update(name.encode() + (value.float() if value.is_floating_point() else value).numpy().tobytes())
        out.append(digest.hexdigest())
    return out


def _described(lvlm: Layout, inputs: Inputs, tokens: int) -> list[list[int]]:
    output, fold, prompt = run(lvlm, inputs, [], max_new_tokens=tokens, do_sample=False, num_beams=1)
    rows = output if isinstance(output, Tensor) else output.sequences
    special = {*lvlm.processor.tokenizer.all_special_ids, *lvlm.end_tokens, lvlm.pad_token, lvlm.image_token}
    texts = [ids[real] for ids, real in zip(rows[:, prompt:].cpu(), fold.real, strict=True)]
    return [[token for token in ids.tolist() if token not in special] for ids in texts]
