"""What the embedded world's matcher must show on test scenes: relevance lies on the object of the question."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ....datasets.captions import QUESTION
from ....datasets.categories import CATEGORIES
from ....datasets.world import SIZE, Scene, scene
from ....metrics.estimate import Estimate, bootstrap
from .lessons import with_article

if TYPE_CHECKING:
    from ....pipelines.matching.base import Matcher


def question_of(name: str) -> str:
    """The question about a category, as a matcher gets it."""
    return QUESTION.format(with_article(name)).lower()


def box_mask(view: Scene, name: str) -> np.ndarray:
    """(SIZE, SIZE) bool, inside a box of an object of that category."""
    out = np.zeros((SIZE, SIZE), bool)
    for thing in view.objects:
        if thing.category == name:
            x, y, width, height = thing.box
            out[y : y + height, x : x + width] = True
    return out


def pixels(view: Scene) -> Tensor:
    """(3, SIZE, SIZE), 0 to 255."""
    return torch.from_numpy(np.array(view.image.convert("RGB"))).permute(2, 0, 1)


def absent(view: Scene, count: int) -> list[str]:
    """Categories that are not in the scene, drawn by its number."""
    others = [name for name in CATEGORIES if name not in view.categories]
    return [str(name) for name in np.random.default_rng([19, view.index]).permutation(others)[:count]]


def examine(matcher: Matcher, scenes: int = 200, split: str = "test") -> dict[str, Estimate]:
    """Figures over the first scenes of a split, with a question for every category in them, 95 % intervals by scene.

    concentration: mean over questions of (the map's mass inside the boxes of the question's object, as a share of its
    total) / (the boxes' share of the image): 1 is a map that knows nothing. mass: that share; area: the boxes' share.
    elsewhere: concentration in the same boxes under a question about something else in the scene. three: questions with
    a concentration of 3 or more. present, absent: mean cosine with questions about what is there and about as much that
    is not. order: how often the former's is the higher of the two.
    """
    rows: list[Tensor] = []
    for view in (scene(split, index) for index in range(scenes)):
        names, others = view.categories, absent(view, len(view.categories))
        found = matcher.match([pixels(view)] * (2 * len(names)), [question_of(name) for name in (*names, *others)])
        maps = [match.spread(SIZE, SIZE).numpy() for match in found[: len(names)]]
        boxes = [box_mask(view, name) for name in names]
        cosines = torch.tensor([match.similarity for match in found])
        rows.append(torch.tensor([*_inside(maps, boxes), *_cosines(cosines, len(names))], dtype=torch.float64))
    units = torch.stack(rows).numpy()
    share = lambda top, bottom: bootstrap(units, lambda sums: sums[..., top] / sums[..., bottom])
    columns = {"concentration": (1, 0), "mass": (2, 0), "area": (3, 0), "three": (4, 0), "elsewhere": (5, 6)}
    columns |= {"present": (7, 0), "absent": (8, 0), "order": (9, 0)}
    return {name: share(*pair) for name, pair in columns.items()}


def _inside(maps: Sequence[np.ndarray], boxes: Sequence[np.ndarray]) -> Iterator[float]:
    """Sums over a scene's questions: questions, concentration, mass, area, at least three; elsewhere, of how many."""
    mass = np.array([[cam[box].sum() / max(cam.sum(), 1e-12) for box in boxes] for cam in maps])  # question × boxes
    area = np.array([box.mean() for box in boxes])
    ratio, own = mass / area, np.eye(len(maps), dtype=bool)
    yield from (len(maps), ratio[own].sum(), mass[own].sum(), area.sum(), (ratio[own] >= 3).sum())
    yield from (ratio[~own].sum(), (~own).sum())


def _cosines(cosines: Tensor, present: int) -> Iterator[float]:
    there, not_there = cosines[:present], cosines[present:]
    yield from (float(there.sum()), float(not_there.mean() * present))
    yield float((there[:, None] > not_there[None]).double().mean() * present)
