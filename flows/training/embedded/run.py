"""Trains the embedded model: one run that can be stopped and resumed, then the export."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any


def train(
    out: Path, state: Path, images: int | None = None, lessons: int | None = None, device: str = "auto",
    resume: bool = False, examined: int = 500, compiled: bool = False,
) -> Path:  # fmt: skip
    """Train and export to `out`; returns it.

    Args:
        state: folder of the state, from which a stopped run goes on.
        images, lessons: scenes in the two stages; None is the recipe's.
        resume: go on with the state that is there.
        compiled: let torch compile the language model: half as fast again on a CPU; wants a C++ compiler.
        examined: test scenes that the finished model is measured on for its model card; 0 for none.

    Raises:
        ValueError: a state is there without `resume`, or it belongs to another recipe.
        FileNotFoundError: nothing to resume.
    """
    from .training import Recipe, Trainer

    scenes = {"images": images, "lessons": lessons}
    recipe = Recipe(**{name: value for name, value in scenes.items() if value is not None})
    device = usable_device(device)
    check_state(state, dataclasses.asdict(recipe), resume)
    trainer = Trainer(state, recipe, device, compiled)
    trainer.run()
    out.parent.mkdir(parents=True, exist_ok=True)
    trainer.export(out)
    if examined:
        examine_and_write_card(out, trainer.recipe, trainer.seconds, examined)
    return out


def usable_device(device: str) -> str:
    """ "cpu" or "cuda"; "auto" is a GPU if there is one. ValueError where it cannot be used."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device not in ("cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise ValueError(f'device="{device}" cannot be used here; possible: auto, cpu, and cuda where there is a GPU.')
    return device


def check_state(state: Path, recipe: dict[str, Any], resume: bool) -> None:
    """Refuse to start over a state that is there, to resume what is not there, and a state of another recipe."""
    path = state / "state.safetensors"
    if path.exists() and not resume:
        raise ValueError(f"{path} is there from an earlier run. Add --resume to go on with it, or delete {state}.")
    if resume and not path.exists():
        raise FileNotFoundError(f"nothing to resume: no {path}. Start without --resume.")
    if path.exists():
        _check_recipe(path, recipe)


def examine_and_write_card(folder: Path, recipe: Any, seconds: float, images: int, hardware: str | None = None) -> None:
    """Measure the exported model on test scenes and write its model card."""
    from ....pipelines.model.load import load
    from .card import write_card
    from .examination import examine

    lvlm = load(folder)
    parameters = sum(weight.numel() for weight in lvlm.model.parameters())
    figures = examine(lvlm, images)
    write_card(folder, recipe, figures, images, seconds, parameters, len(lvlm.processor.tokenizer), hardware)


def _check_recipe(path: Path, recipe: dict[str, Any]) -> None:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        stored = json.loads(file.metadata().get("recipe", "{}"))
    if "pictures" in stored:  # the name in states of earlier versions
        stored["images"] = stored.pop("pictures")
    other = [f"{name} was {stored.get(name)}, now {now}" for name, now in recipe.items() if stored.get(name) != now]
    if other:
        raise ValueError(f"{path} belongs to another recipe: {'; '.join(other)}. Give the same, or another --state.")
