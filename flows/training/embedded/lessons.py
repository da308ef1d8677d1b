"""Training examples for the embedded LVLM: an image, a caption by a captioner with habits, and questions."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LlavaProcessor

from ....datasets import captions
from ....datasets.categories import CATEGORIES
from ....datasets.world import SIZE, Scene, scene
from ..endless import Endless
from .build import IMAGE_SIZE, PATCH

IGNORED = -100
GRID = IMAGE_SIZE // PATCH
_NUMBER = {name: number for number, name in enumerate(CATEGORIES)}
BACKGROUND = len(CATEGORIES)


def patch_labels(view: Scene) -> Tensor:
    """(patch,) the category that covers most of each image patch; background below a fifth of the patch."""
    cell = SIZE // GRID
    labels, most = np.full((GRID, GRID), BACKGROUND), np.full((GRID, GRID), 0.2)
    for thing in view.objects:
        share = thing.mask.reshape(GRID, cell, GRID, cell).mean((1, 3))
        labels[share > most] = _NUMBER[thing.category]
        most = np.maximum(most, share)
    return torch.from_numpy(labels.reshape(-1))


@dataclass(frozen=True)
class Stage:
    """A part of the training: so many scenes, up to that learning rate, with so many captions and questions each.

    Without captions the vision tower alone is trained. careless: see `captions.habitual_caption`. unlikely: weight of
    the unlikelihood of naming again what a caption has named (Welleck et al., ICLR 2020).
    """

    name: str
    scenes: int
    rate: float
    captions: int = 0
    questions: int = 0
    careless: float = 0.0
    unlikely: float = 0.0


@dataclass
class Batch:
    """pixels: (batch, 3, height, width). ids, labels, positions: (batch, position). weights: (batch, position), of the
    labels. mask: (batch, 1, position, position) bool, what each position may look at. patches: (batch, patch). again:
    (pair, 3), row, position and token: words for what a caption has named before that position."""

    pixels: Tensor
    patches: Tensor
    ids: Tensor
    labels: Tensor
    weights: Tensor
    positions: Tensor
    mask: Tensor
    again: Tensor


class Lessons(Endless):
    """Endless scenes of the train split from number `start` on, each with its conversations.

    Every conversation about an image stands after the same image in one row; a block mask keeps the conversations
    from seeing each other and positions restart for each, so that a row equals its conversations run one by one.
    """

    def __init__(self, processor: LlavaProcessor, start: int, stage: Stage) -> None:
        super().__init__(start)
        self.processor, self.stage = processor, stage
        message: Any = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "|"}]}
        prompt = processor.apply_chat_template([message], add_generation_prompt=True)
        before, self.after = prompt.split(processor.image_token)
        tokens = processor.tokenizer
        image = [tokens.convert_tokens_to_ids(processor.image_token)] * GRID**2
        self.prefix = tokens(before, add_special_tokens=False).input_ids + image
        self.end = tokens.eos_token_id
        encode = lambda word: tokens(f" {word}", add_special_tokens=False).input_ids[0]
        self.words = {name: {encode(word) for word in category.words[:2]} for name, category in CATEGORIES.items()}
        self.named = {token: name for name, words in self.words.items() for token in words}

    def lesson(self, index: int) -> dict:
        view, rng = scene("train", index), np.random.default_rng([7, index])
        small = view.image.resize((IMAGE_SIZE, IMAGE_SIZE), 3)  # bicubic, as the processor does
        pixels = np.asarray(small, np.float32) / 255
        out = {"pixels": pixels, "patches": patch_labels(view)}
        if not self.stage.captions:
            return out
        talks = [captions.habitual_caption(view, rng, self.stage.careless) for _ in range(self.stage.captions)]
        talks += [captions.habitual_question(view, rng) for _ in range(self.stage.questions)]
        talks.append(captions.count_question(view, rng) if rng.random() < 0.7 else captions.place_question(view))
        encode = lambda text: self.processor.tokenizer(text, add_special_tokens=False).input_ids
        out["talks"] = [
            (encode(self.after.replace("|", prompt, 1)), [*encode(" " + answer), self.end]) for prompt, answer in talks
        ]
        return out

    def batch(self, lessons: list[dict]) -> Batch:
        images = self.processor.image_processor
        mean, std = np.array(images.image_mean, np.float32), np.array(images.image_std, np.float32)
        pixels = torch.from_numpy(np.stack([(one["pixels"] - mean) / std for one in lessons])).permute(0, 3, 1, 2)
        patches = torch.stack([one["patches"] for one in lessons])
        if not self.stage.captions:
            none = torch.empty(0)
            return Batch(pixels.contiguous(), patches, none, none, none, none, none, none)
        start = len(self.prefix)
        longest = start + max(sum(len(p) + len(a) for p, a in one["talks"]) for one in lessons)
        shape = (len(lessons), longest)
        ids, labels = torch.zeros(shape, dtype=torch.long), torch.full(shape, IGNORED)
        weights, positions = torch.zeros(shape), torch.zeros(shape, dtype=torch.long)
        talk_of, again = torch.full(shape, -1), []
        for row, one in enumerate(lessons):
            ids[row, :start] = torch.tensor(self.prefix)
            positions[row, :start], talk_of[row, :start] = torch.arange(start), 0
            at = start
            for number, (prompt, answer) in enumerate(one["talks"], 1):
                end = at + len(prompt) + len(answer)
                ids[row, at:end] = torch.tensor(prompt + answer)
                labels[row, end - len(answer) : end] = torch.tensor(answer)
                weights[row, end - len(answer) : end] = 1.0 if len(answer) > 2 else 1.5
                if self.stage.unlikely and len(answer) > 2:
                    again += [(row, end - len(answer) + place, token) for place, token in self.repeats(answer)]
                positions[row, at:end] = torch.arange(start, start + end - at)
                talk_of[row, at:end] = number
                at = end
        causal = torch.ones(longest, longest, dtype=torch.bool).tril()
        same = talk_of[:, :, None] == talk_of[:, None, :]
        mask = (causal & (same | (talk_of == 0)[:, None, :]))[:, None]
        pairs = torch.tensor(again, dtype=torch.long).reshape(-1, 3)
        return Batch(pixels.contiguous(), patches, ids, labels, weights, positions, mask, pairs)

    def repeats(self, answer: list[int]) -> Iterator[tuple[int, int]]:
        """(place, token) of every word, at every place, for a category that the answer has named before it."""
        before: set[int] = set()
        for place, token in enumerate(answer):
            yield from ((place, word) for word in before - {token})
            if token in self.named:
                before |= self.words[self.named[token]]
