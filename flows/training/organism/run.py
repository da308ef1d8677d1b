"""Trains embedded-smollm2: one run that can be stopped and resumed, then the export and its card."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ..embedded.run import check_state, usable_device


def train(
    out: Path, state: Path, images: int | None = None, lessons: int | None = None, device: str = "auto",
    resume: bool = False, examined: int = 500, compiled: bool = False,
) -> Path:  # fmt: skip
    """Train and export to `out`; returns it.

    Args:
        state: folder of the state, from which a stopped run goes on, with the optimizer as it was.
        images, lessons: scenes in the two stages; None is the recipe's. images=0 starts from the shipped weights, with
            a fresh optimizer, and trains the second stage alone.
        resume: go on with the state that is there.
        compiled: let torch compile the language layers: a fifth faster on a CPU; wants a C++ compiler.
        examined: test scenes that the finished model is measured on for its card; 0 for none.

    Raises:
        ValueError: a state is there without `resume`, or it belongs to another recipe.
        FileNotFoundError: nothing to resume. NoBase: SmolLM2 is not here.
    """
    from .training import OrganismTrainer, Recipe

    scenes = {"images": images, "lessons": lessons}
    recipe = Recipe(**{name: value for name, value in scenes.items() if value is not None})
    device = usable_device(device)
    check_state(state, dataclasses.asdict(recipe), resume)
    trainer = OrganismTrainer(state, recipe, device, compiled)
    trainer.run(save_every=50)
    trainer.export(out)
    if examined:
        examine_and_write_card(out, recipe, trainer.seconds, examined)
    return out


def examine_and_write_card(folder: Path, recipe: object, seconds: float, images: int, hardware: str = "") -> None:
    """Measure what was exported to the folder on test scenes and write its model card."""
    from ....pipelines.model.load import load
    from ..embedded.examination import examine
    from .card import write_card
    from .sinks import sinks

    lvlm = load(folder)
    figures = examine(lvlm, images, batch_size=16)
    figures |= sinks(lvlm, min(images, 50))
    write_card(folder, recipe, figures, images, seconds, hardware)
