"""Writes the model card of the embedded world's matcher: how it was made, and what it was found to show."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ....metrics.estimate import Estimate
from ....pipelines.results import versions
from ..card import figures_table, machine
from .lessons import EMPTY

if TYPE_CHECKING:
    from .training import Recipe

_ROWS = {
    "concentration": "concentration: mass in the boxes of the question's object ÷ their share of the image, mean",
    "mass": "mass in the boxes",
    "area": "the boxes' share of the image",
    "three": "questions with a concentration of 3 or more",
    "elsewhere": "control: concentration in the same boxes under a question about something else in the scene",
    "present": "cosine with a question about what is there",
    "absent": "cosine with a question about what is not there",
    "order": "the former is the higher of the two",
}
_CARD = """---
license: apache-2.0
library_name: open_clip
pipeline_tag: zero-shot-image-classification
---
# The embedded world's matcher

An open_clip model with {parameters:.1f} M parameters, saved in float16 ({megabytes:.1f} MB). It says how well a scene
of the embedded world (`veridical.datasets.world`) and a prompt fit, and, by GradCAM, which part of the scene has to do
with the prompt. AGLA masks images with it, so that `veridical caption photo.png -d agla` runs offline. It knows
nothing of photographs.

<!-- not run: needs a checkout -->
```python
import open_clip

model, _, preprocess = open_clip.create_model_and_transforms("local-dir:models/matcher")
tokenizer = open_clip.get_tokenizer("local-dir:models/matcher")
```

Vision: 96 × 96 pixels, 12-pixel patches; the five layers of the embedded LVLM's vision tower, locked, and a sixth.
Text: two layers of width 128 that read the embedded LVLM's tokens in lower case, 32 at most. Sprites: Noto Color Emoji
(OFL-1.1).

## Training

`veridical train-matcher`: {images:,} images of the train split, one in {empty} a place in which nothing stands.
Each batch of {batch} is compared with a question or phrase about every category, with prompts such as "please describe
this image in detail", which fit every image but the empty ones, and with its own captions, by the sigmoid loss (Zhai
et al., ICCV 2023). AdamW, peak learning rate {rate:g}, cosine, bfloat16 autocast, seed {seed}. It took {minutes:.0f}
minutes on {hardware}.

No boxes or masks were used here. The locked layers come from the LVLM's training, whose first stage used them: which
category covers each patch.

A first version, in which all of a tower of five layers was trained (20,000 images), had a concentration of 7.6 on 60
validation scenes where this one had 8.4: there, what is in the image reaches the class token in earlier layers, too,
and GradCAM looks at the last alone.

## What it shows

The first {scenes} scenes of the test split; there is a question about every category in each ("is there a dog in the
image?"), and about as many that are not there. Maps as AGLA uses them: GradCAM on the last layer's attention, resized,
blurred, from 0 to 1. 95 % bootstrap intervals by scene.

{table}

A map that knows nothing has a concentration of 1; the aim was 3. Measured with {versions}, open_clip
{open_clip}. `python -m veridical.flows.training.matcher.run` measures it again.
"""


def table(figures: Mapping[str, Estimate]) -> str:
    """What `matcher_examination.examine` found, as the card has it."""
    return figures_table(figures, _ROWS)


def write_card(
    folder: Path, recipe: Recipe, figures: Mapping[str, Estimate], scenes: int, seconds: float, parameters: int,
    hardware: str | None = None,
) -> Path:  # fmt: skip
    """Write README.md into the matcher's folder and return its path."""
    import open_clip

    size = (folder / "open_clip_model.safetensors").stat().st_size
    text = _CARD.format(
        parameters=parameters / 1e6, megabytes=size / 1e6, images=recipe.images, empty=round(1 / EMPTY),
        batch=recipe.batch, rate=recipe.rate, seed=recipe.seed, minutes=seconds / 60, hardware=hardware or machine(),
        scenes=scenes, table=table(figures), open_clip=open_clip.__version__,
        versions=", ".join(f"{name} {number}" for name, number in versions().items()),
    )  # fmt: skip
    path = folder / "README.md"
    path.write_text(text, encoding="utf-8")
    return path
