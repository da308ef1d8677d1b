"""Trains embedded-smollm2: `veridical train-organism`. Stops and goes on where it was.

Two stages, as LLaVA has them. In the first the projector alone learns, without the language model: what it makes of a
patch shall be the word embedding of what is there (an object's name, else the place's), so that the language model
reads the image as words that it knows. In the second, projector and low-rank updates of all language layers learn to
describe and to answer.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader

from ....datasets.categories import CATEGORIES
from ....models import EMBEDDED_SMOLLM2
from ....pipelines.model import smollm2
from ..embedded.lessons import Batch, Stage
from ..embedded.training import Trainer
from . import lora
from .lessons import NAMES, OrganismLessons, words_of


@dataclass(frozen=True)
class Recipe:
    """Scenes of the stages. images: of the first, 0 to start from the shipped weights; lessons: of the second."""

    images: int = 12_000
    lessons: int = 24_000
    batch: int = 4
    rate: float = 1e-3
    lessons_rate: float = 8e-4
    decay: float = 0.0
    warmup: int = 30
    seed: int = 0

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (
            Stage("words", self.images, self.rate),
            Stage("lessons", self.lessons, self.lessons_rate, captions=1, questions=5),
        )


class OrganismTrainer(Trainer):
    """The embedded LVLM's trainer, with the base frozen: only the projector and the updates learn and are saved."""

    def __init__(self, folder: Path, recipe: Recipe, device: str = "cpu", compiled: bool = False) -> None:
        torch.manual_seed(recipe.seed)
        self.folder, self.recipe, self.device = folder, cast(Any, recipe), device
        self.processor: Any = smollm2.processor()
        config, weights = smollm2.base()
        tokens = self.processor.tokenizer
        self.model: Any = smollm2.blank(config, weights, tokens.convert_tokens_to_ids(smollm2.IMAGE_TOKEN))
        self.model.requires_grad_(False)
        self.model.model.language_model.to(torch.bfloat16)
        self.projector = self.model.model.multi_modal_projector.requires_grad_(True)
        self.updates = lora.add(self.model.model.language_model)
        self.model.set_attn_implementation({"vision_config": "sdpa", "text_config": lora.GROUPED})
        table: Any = self.model.get_input_embeddings().weight
        self.words = torch.stack([table[ids].float().mean(0) for ids in words_of(tokens, NAMES)]).to(device)
        self.spread = float(self.words.var(0).mean())
        cast(Any, self.model).to(device)
        if compiled:
            for layer in self.model.model.language_model.layers:
                layer.compile(dynamic=False)
        if not recipe.images:
            self.put(load_file(EMBEDDED_SMOLLM2 / smollm2.TRAINED, device=device))
        self.step, self.seconds = 0, 0.0
        self.restore()
        self.began = time.monotonic() - self.seconds

    def learned(self) -> dict[str, Tensor]:
        """What is trained, by the names under which it is shipped."""
        out = {f"projector.{name}": value for name, value in self.projector.named_parameters()}
        for name, update in self.updates.items():
            out |= {f"{name}.down": update.down, f"{name}.up": update.up}
        return out

    @torch.no_grad()
    def put(self, stored: Mapping[str, Tensor]) -> None:
        """Go on from these weights instead of random ones."""
        for name, value in self.learned().items():
            value.copy_(stored[name])

    def optimizer(self) -> torch.optim.AdamW:
        parameters = list(self.learned().values())
        return torch.optim.AdamW(parameters, lr=0.0, weight_decay=self.recipe.decay, betas=(0.9, 0.98), fused=True)

    def vision_loss(self, batch: Batch) -> Tensor:
        """Squared distance of the projected patches to the words for them, in units of the words' variance."""
        with torch.no_grad():
            features = self.model.model.vision_tower(batch.pixels).last_hidden_state[:, 1:]
        apart = (self.projector(features).float() - self.words[batch.patches]).square().mean(-1) / self.spread
        weight = torch.where(batch.patches < len(CATEGORIES), 1.0, 0.2)
        return (apart * weight).sum() / weight.sum()

    def batches(self, start: int, stage: Stage) -> Iterator[Batch]:
        lessons = OrganismLessons(self.processor, start, stage)
        loader = DataLoader(
            lessons, batch_size=self.recipe.batch, collate_fn=lessons.batch, prefetch_factor=6, num_workers=1
        )
        for batch in loader:
            yield Batch(**{name: value.to(self.device) for name, value in vars(batch).items()})

    def save(self) -> None:
        """Write what is learned and the optimizer's state, so that a killed run goes on from the last whole one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"learned.{name}": value for name, value in self.learned().items()}
        for index, state in self.state.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
        tensors = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        partial = self.folder / "state.partial"
        save_file(tensors, partial, metadata=self._about())
        partial.replace(self.folder / "state.safetensors")

    def restore(self) -> None:
        self.state = self.optimizer()
        path = self.folder / "state.safetensors"
        if not path.exists():
            return
        with safe_open(path, "pt") as file:
            about = file.metadata()
        self.step, self.seconds = int(about["step"]), float(about.get("seconds", 0))
        tensors = load_file(path, device=self.device)
        self.put({name.removeprefix("learned."): value for name, value in tensors.items()})
        if self.step in self.starts:
            return
        state = self.state.state_dict()
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".")
                state["state"].setdefault(int(index), {})[key] = value
        self.state.load_state_dict(state)

    def export(self, folder: Path) -> None:
        """Write what was trained, in bfloat16: 11 MB; the base stays where it came from."""
        folder.mkdir(parents=True, exist_ok=True)
        learned = {name: value.detach().cpu().to(torch.bfloat16) for name, value in self.learned().items()}
        save_file(learned, folder / smollm2.TRAINED, metadata={"base": smollm2.DIGEST, **self._about()})
