"""Writes the embedded LVLM's model card: how it was made, and what it scores, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ....metrics.estimate import Estimate
from ....pipelines.results import versions
from ..card import figures_table, machine

if TYPE_CHECKING:
    from .training import Recipe

LABELS = {
    "recall": "object recall",
    "chair_s": "CHAIR_s",
    "chair_i": "CHAIR_i",
    "chair_i_first_half": "CHAIR_i, first half of the caption",
    "chair_i_second_half": "CHAIR_i, second half of the caption",
    "repetition": "captions that name a category twice",
    "length": "tokens per caption",
    "pope_random": "POPE accuracy, random",
    "pope_popular": "POPE accuracy, popular",
    "pope_adversarial": "POPE accuracy, adversarial",
    "pope_random_yes": "POPE yes ratio, random",
    "pope_shuffled": "POPE accuracy, random, images shuffled among the questions",
}

_CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
---
# The embedded LVLM of veridical

A `LlavaForConditionalGeneration` with {parameters:.1f} M parameters, saved in bfloat16. It describes scenes of the
embedded world (`veridical.datasets.world`) and answers questions about them, and it hallucinates for the reason that
large models do: the captions it learned from name a scene-typical companion that is often not there, and its annotators
lean to "yes". It exists so that methods, metrics and flows run offline, in minutes, without a GPU. It knows nothing of
photographs.

Vision: CLIP architecture, 96 × 96 pixels, 12-pixel patches (64 image tokens), 5 layers of width 192. Language: LLaMA
architecture, 8 layers of width 192, 6 heads. Vocabulary {vocabulary}, byte-level BPE. Sprites: Noto Color Emoji
(OFL-1.1).

## Training

`veridical train-embedded`: {images_first:,} images for the vision tower alone (which category covers each patch); then
{lessons:,} images of the train split, each with a caption and six questions; then {revision:,} with three captions
that miscount or change the order now and then, and twice {repeats:,} more in which naming a category twice is penalised
(unlikelihood, Welleck et al., ICLR 2020). Batch {batch}, AdamW, peak learning rate {rate:g}, cosine, bfloat16 autocast,
seed {seed}. It took {hours:.1f} hours on {hardware}.

The annotators' lean to "yes" was strengthened after 64,000 of the second stage's lessons; training from the start with
the present code uses the stronger lean throughout.

Habits in the captions: {habits}.

## What it scores

The first {images} scenes of the test split, greedy, at most 128 new tokens, 95 % bootstrap intervals by image.

{table}

The last two kinds of stage and the annotators' lean were chosen while looking at figures of test scenes, not only of
validation scenes: read the figures above as slightly favourable.

Measured with {versions}. `veridical.flows.training.embedded.examination.examine` measures them again.
"""


def habits() -> str:
    """The companions that captions name although they are absent, and how often."""
    from ....datasets.places import COMPANIONS

    return ", ".join(f"{other} beside {name} ({share:.0%})" for name, (other, share) in COMPANIONS.items())


def write_card(
    folder: Path, recipe: Recipe, figures: Mapping[str, Estimate], images: int, seconds: float, parameters: int,
    vocabulary: int, hardware: str | None = None,
) -> Path:  # fmt: skip
    """Write README.md into the model's folder and return its path."""
    text = _CARD.format(
        parameters=parameters / 1e6, vocabulary=vocabulary, hours=seconds / 3600, images=images, habits=habits(),
        hardware=hardware or machine(), table=figures_table(figures, LABELS), images_first=recipe.images,
        lessons=recipe.lessons, batch=recipe.batch, rate=recipe.rate, revision=recipe.revision,
        repeats=recipe.repeats, seed=recipe.seed,
        versions=", ".join(f"{name} {number}" for name, number in versions().items()),
    )  # fmt: skip
    path = folder / "README.md"
    path.write_text(text, encoding="utf-8")
    return path
