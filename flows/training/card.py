"""What the model cards of trained models have in common: the table of figures, and the machine of the training."""

from __future__ import annotations

import platform
from collections.abc import Mapping

import torch

from ...metrics.estimate import Estimate


def figures_table(figures: Mapping[str, Estimate], labels: Mapping[str, str]) -> str:
    """A Markdown table of the figures that have a label, in the order of the labels, with interval and n."""
    rows = [
        f"| {label} | {found.value:.3f} | {found.low:.3f} – {found.high:.3f} | {found.n} |"
        for label, found in ((label, figures[name]) for name, label in labels.items())
    ]
    return "\n".join(["| figure | value | 95 % interval | n |", "|---|---|---|---|", *rows])


def machine() -> str:
    """The GPU's name, or the processor and its threads."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{torch.get_num_threads()} CPU threads ({platform.machine()})"
