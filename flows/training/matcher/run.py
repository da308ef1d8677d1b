"""Trains the embedded world's matcher: one run, the export, and its model card.

`python -m veridical.flows.training.matcher.run [FOLDER] [SCENES]` measures the shipped matcher, or another, and trains
none.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def train_matcher(out: Path, images: int | None = None, device: str = "auto", examined: int = 200) -> Path:
    """Train and export to `out`; returns it.

    Args:
        images: how many; None is the recipe's.
        examined: test scenes that the finished matcher is measured on for its model card; 0 for none.

    Raises:
        ValueError: `out` holds something that would be overwritten, or a device that is not there.
    """
    import torch

    from .training import Recipe, Trainer

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there already and not empty. Give another --out, or delete it.")
    recipe = Recipe() if images is None else Recipe(images=images)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device not in ("cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise ValueError(f'device="{device}" cannot be used here; possible: auto, cpu, and cuda where there is a GPU.')
    trainer = Trainer(recipe, device)
    trainer.run()
    trainer.export(out)
    if examined:
        examine_and_write_card(out, recipe, trainer.seconds, examined)
    return out


def examine_and_write_card(
    folder: Path, recipe: Any, seconds: float, scenes: int, hardware: str | None = None
) -> None:
    """Measure the exported matcher on test scenes and write its model card."""
    from ....pipelines.matching.open_clip import OpenClipMatcher
    from .card import write_card
    from .examination import examine

    matcher = OpenClipMatcher.load(folder)
    parameters = sum(weight.numel() for weight in matcher.model.parameters())
    write_card(folder, recipe, examine(matcher, scenes), scenes, seconds, parameters, hardware)


def main(folder: str | None = None, scenes: str = "200") -> None:
    """Print the model card's table, measured anew on test scenes."""
    from ....models import MATCHER
    from ....pipelines.matching.open_clip import OpenClipMatcher
    from .card import table
    from .examination import examine

    print(table(examine(OpenClipMatcher.load(Path(folder or MATCHER)), int(scenes))))


if __name__ == "__main__":
    main(*sys.argv[1:])
