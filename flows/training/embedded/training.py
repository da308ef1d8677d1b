"""Trains the embedded LVLM on the embedded world: `veridical train-embedded`. Stops and goes on where it was.

Five stages: the vision tower alone learns which category covers each patch; then everything learns to describe and to
answer, from captions with habits and annotators who lean to "yes" (see `datasets/captions.py`); then it revises with
more and careless captions, from which it learns not to name a thing twice though it was miscounted or out of order;
in the last two, naming a thing again is made unlikely outright.
"""

import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from . import build
from .lessons import BACKGROUND, IGNORED, Batch, Lessons, Stage


@dataclass(frozen=True)
class Recipe:
    """The stages of a training. images: scenes of the vision stage; lessons: of the joint one."""

    images: int = 80_000
    lessons: int = 112_000
    batch: int = 32
    rate: float = 1.2e-3
    revision_rate: float = 5e-4
    decay: float = 0.05
    warmup: int = 200
    seed: int = 0

    @property
    def revision(self) -> int:
        """Scenes of the revision."""
        return self.lessons // 7

    @property
    def repeats(self) -> int:
        """Scenes of each of the two last stages."""
        return self.lessons // 14

    @property
    def stages(self) -> tuple[Stage, ...]:
        revision = Stage("revision", self.revision, self.revision_rate, captions=3, questions=3, careless=0.3)
        return (
            Stage("images", self.images, self.rate),
            Stage("lessons", self.lessons, self.rate, captions=1, questions=5),
            revision,
            *(
                replace(revision, name="repeats", scenes=self.repeats, rate=0.6 * self.revision_rate, unlikely=weight)
                for weight in (1.0, 6.0)
            ),
        )


class Trainer:
    def __init__(self, folder: Path, recipe: Recipe, device: str = "cpu", compiled: bool = False) -> None:
        torch.manual_seed(recipe.seed)
        self.folder, self.recipe, self.device = folder, recipe, device
        self.processor: Any = build.processor()
        self.model = cast(Any, build.model(self.processor.tokenizer))
        self.model.set_attn_implementation("eager" if device == "cpu" else "sdpa")
        self.patches = nn.Linear(self.model.config.vision_config.hidden_size, BACKGROUND + 1)
        self.weights = torch.tensor([1.0] * BACKGROUND + [0.2], device=device)
        self.model.to(device)
        self.patches.to(device)
        if compiled:
            self.model.model.language_model.compile(dynamic=True)
        self.step, self.seconds = 0, 0.0
        self.restore()
        self.began = time.monotonic() - self.seconds

    # -- steps ---------------------------------------------------------------------------------------------------
    @property
    def starts(self) -> list[int]:
        """The step at which each stage starts, and the one after the last."""
        out = [0]
        for stage in self.recipe.stages:
            out.append(out[-1] + stage.scenes // self.recipe.batch)
        return out

    def optimizer(self) -> torch.optim.AdamW:
        everything = [*self.model.parameters(), *self.patches.parameters()]
        return torch.optim.AdamW(everything, lr=0.0, weight_decay=self.recipe.decay, betas=(0.9, 0.98), fused=True)

    def rate(self, stage: Stage, step: int, steps: int) -> float:
        warm = min(1, (step + 1) / min(self.recipe.warmup, max(1, steps // 10)))
        return stage.rate * warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))

    def vision_loss(self, batch: Batch) -> Tensor:
        features = self.model.model.vision_tower(batch.pixels).last_hidden_state[:, 1:]
        guess = self.patches(features).float().flatten(0, 1)
        return cross_entropy(guess, batch.patches.flatten(), weight=self.weights)

    def language_loss(self, batch: Batch, unlikely: float = 0.0) -> Tensor:
        allowed = torch.zeros(batch.mask.shape, device=self.device).masked_fill_(~batch.mask, -1e9)
        hidden = self.model.model(
            input_ids=batch.ids, pixel_values=batch.pixels, attention_mask=allowed, position_ids=batch.positions,
            use_cache=False,
        ).last_hidden_state  # fmt: skip
        labelled = batch.labels[:, 1:] != IGNORED
        logits = self.model.lm_head(hidden[:, :-1][labelled]).float()
        loss = cross_entropy(logits, batch.labels[:, 1:][labelled], reduction="none")
        weight = batch.weights[:, 1:][labelled]
        likely = (loss * weight).sum() / weight.sum()
        if not unlikely or not len(batch.again):
            return likely
        place = labelled.flatten().cumsum(0).reshape(labelled.shape) - 1  # of each label among the labels
        row, position, token = batch.again.unbind(1)
        chance = logits.softmax(-1)[place[row, position - 1], token]
        return likely - unlikely * (1 - chance).clamp(min=1e-6).log().sum() / weight.sum()

    def batches(self, start: int, stage: Stage) -> Iterator[Batch]:
        lessons = Lessons(self.processor, start, stage)
        loader = DataLoader(
            lessons, batch_size=self.recipe.batch, collate_fn=lessons.batch, prefetch_factor=6,
            num_workers=1 if self.device == "cpu" else max(1, (os.cpu_count() or 2) - 2),
        )  # fmt: skip
        for batch in loader:
            yield Batch(**{name: value.to(self.device) for name, value in vars(batch).items()})

    # -- the run -------------------------------------------------------------------------------------------------
    def run(self, save_every: int = 500) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        starts = self.starts
        with Progress(*columns) as progress:
            for stage, begin, end in zip(self.recipe.stages, starts, starts[1:], strict=False):
                if self.step >= end:
                    continue
                task = progress.add_task(stage.name, total=end - begin, completed=self.step - begin)
                for batch in self.batches(self.step * self.recipe.batch, stage):
                    loss = self.advance(batch, self.rate(stage, self.step - begin, end - begin), stage)
                    progress.update(task, advance=1, description=f"{stage.name} loss {loss:.3f}")
                    if self.step % save_every == 0 and self.step < end:
                        self.save()
                        progress.console.print(f"step {self.step} {stage.name} loss {loss:.4f}")
                    if self.step >= end:
                        break
                self.state = self.optimizer()  # each stage starts with a fresh optimizer
                self.save()

    def advance(self, batch: Batch, rate: float, stage: Stage) -> float:
        for group in self.state.param_groups:
            group["lr"] = rate
        with torch.autocast(self.device, dtype=torch.bfloat16):
            loss = self.language_loss(batch, stage.unlikely) if stage.captions else self.vision_loss(batch)
        self.state.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([p for group in self.state.param_groups for p in group["params"]], 1.0)
        self.state.step()
        self.step += 1
        return loss.item()

    # -- stopping and going on -----------------------------------------------------------------------------------
    def save(self) -> None:
        """Write the state so that a run killed at any moment goes on from the last whole one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items() if k != "lm_head.weight"}
        tensors |= {f"patches.{k}": v for k, v in self.patches.state_dict().items()}
        for index, state in self.state.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
        tensors = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        partial = self.folder / "state.partial"
        save_file(tensors, partial, metadata=self._about())
        partial.replace(self.folder / "state.safetensors")

    def _about(self) -> dict[str, str]:
        self.seconds = time.monotonic() - self.began
        recipe = json.dumps(asdict(self.recipe))
        return {"step": str(self.step), "seconds": f"{self.seconds:.0f}", "recipe": recipe}

    def restore(self) -> None:
        self.state = self.optimizer()
        path = self.folder / "state.safetensors"
        if not path.exists():
            return
        with safe_open(path, "pt") as file:
            about = file.metadata()
        self.step, self.seconds = int(about["step"]), float(about.get("seconds", 0))
        tensors = load_file(path, device=self.device)
        part = lambda name: {k[len(name) :]: v for k, v in tensors.items() if k.startswith(name)}
        self.model.load_state_dict(part("model."), strict=False)
        self.patches.load_state_dict(part("patches."))
        state = self.state.state_dict()
        for name, value in part("optimizer.").items():
            index, key = name.split(".")
            state["state"].setdefault(int(index), {})[key] = value
        if state["state"] and self.step not in self.starts:
            self.state.load_state_dict(state)

    def export(self, folder: Path) -> None:
        """Write the trained model in bfloat16, with its processor, as any transformers checkpoint."""
        copy = self.model.to(torch.bfloat16)
        copy.save_pretrained(folder)
        self.processor.save_pretrained(folder)
