"""Trains the embedded world's matcher: `veridical train-matcher`. Minutes on one core, so it is not resumed."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader

from . import build
from .lessons import Batch, Lessons


@dataclass(frozen=True)
class Recipe:
    """The number of images, their batches, and the peak learning rate."""

    images: int = 24_000
    batch: int = 32
    rate: float = 1.5e-3
    decay: float = 0.05
    warmup: int = 50
    seed: int = 0

    @property
    def steps(self) -> int:
        return max(1, self.images // self.batch)


class Trainer:
    """The model and its optimizer. loss: of the last step. seconds: of the run."""

    def __init__(self, recipe: Recipe, device: str = "cpu") -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.device = recipe, device
        self.words = build.tokenizer()
        self.model = build.model(len(self.words)).to(device)
        self.trained = [one for one in self.model.parameters() if one.requires_grad]
        self.state = torch.optim.AdamW(self.trained, lr=0.0, weight_decay=recipe.decay, betas=(0.9, 0.98))
        self.loss, self.seconds = math.nan, 0.0

    def encode(self, texts: Any) -> Tensor:
        """(text, position) token ids, ended and filled up as open_clip's tokenizer does it."""
        ids = self.words(list(texts), padding="max_length", truncation=True, max_length=build.WORDS).input_ids
        return torch.tensor(ids, device=self.device)

    def batches(self) -> Iterator[Batch]:
        lessons = Lessons()
        yield from DataLoader(
            lessons, batch_size=self.recipe.batch, collate_fn=lessons.batch, num_workers=1, prefetch_factor=8
        )

    def run(self, log_every: int = 100) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        began = time.monotonic()
        with Progress(*columns) as progress:
            task = progress.add_task("matcher", total=self.recipe.steps)
            for step, batch in enumerate(self.batches()):
                self.loss = self.advance(batch, step)
                progress.update(task, advance=1, description=f"matcher loss {self.loss:.3f}")
                if (step + 1) % log_every == 0:
                    progress.console.print(f"step {step + 1} loss {self.loss:.4f}")
                if step + 1 == self.recipe.steps:
                    break
        self.seconds = time.monotonic() - began

    def rate(self, step: int) -> float:
        """Learning rate: warm-up, then cosine to 2 %."""
        warm = min(1.0, (step + 1) / min(self.recipe.warmup, max(1, self.recipe.steps // 10)))
        return self.recipe.rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / self.recipe.steps)))

    def advance(self, batch: Batch, step: int) -> float:
        for group in self.state.param_groups:
            group["lr"] = self.rate(step)
        with torch.autocast(self.device, dtype=torch.bfloat16):
            images = self.model.encode_image(batch.pixels.to(self.device), normalize=True)
            texts = self.model.encode_text(self.encode(batch.texts), normalize=True)
        loss = self.sigmoid_loss(images.float(), texts.float(), batch.true.to(self.device))
        self.state.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.state.step()
        return float(loss.detach())

    def sigmoid_loss(self, images: Tensor, texts: Tensor, true: Tensor) -> Tensor:
        """Sigmoid loss of every image with every text (SigLIP, Zhai et al., ICCV 2023), summed per image."""
        logits = self.model.logit_scale.exp() * images @ texts.T + self.model.logit_bias
        return binary_cross_entropy_with_logits(logits, true, reduction="none").sum(1).mean()

    def export(self, folder: Path) -> None:
        """Write the trained model as a folder that open_clip loads."""
        build.export(self.model, self.words, folder)
