"""The six declarations: frozen statements of what should happen where. Five act, one only reads.

A method yields them in the order of its paper's algorithm box. Order is meaning: a `Branch` inherits the edits that
were declared before it. `layers` are 0-based. Nothing here knows how it is carried out (see `engine.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from .call import AttentionCall, LayerCall

Changes = Literal["every", "after_image", "producing"]


@dataclass(frozen=True, eq=False)
class AttentionEdit:
    """Change attention scores (before the softmax) or probabilities (after it).

    apply: (batch, head, query, key), call -> same shape. queries: "all" rows of the pass or the "last" alone.
    changes: which positions of a prompt `apply` may change; what stands before them is the plain model's, which a run
    need not compute twice. "after_image": those behind its last image token; "producing": those that produce tokens.
    `apply` is handed the queries from the first such position on, which are the last ones of the pass.
    """

    layers: Sequence[int]
    apply: Callable[[Tensor, AttentionCall], Tensor]
    on: Literal["scores", "probabilities"] = "probabilities"
    queries: Literal["all", "last"] = "all"
    branch: str | None = None
    changes: Changes = "every"


@dataclass(frozen=True, eq=False)
class HeadEdit:
    """Change what the heads hand to the output projection. apply: (batch, query, head, head_dim), call -> same.

    changes: as in `AttentionEdit`.
    """

    layers: Sequence[int]
    apply: Callable[[Tensor, AttentionCall], Tensor]
    branch: str | None = None
    changes: Changes = "every"


@dataclass(frozen=True, eq=False)
class ResidualEdit:
    """Change a layer's input, its MLP's output before the residual add, or its output ("block").

    apply: (batch, query, hidden), call -> same shape. at="vision_mlp": an MLP's output in the vision tower, while
    features of images are computed; (image, token, hidden), layers and rows are the tower's: whole images or tiles.
    """

    layers: Sequence[int]
    apply: Callable[[Tensor, LayerCall], Tensor]
    at: Literal["input", "mlp", "block", "vision_mlp"] = "block"
    branch: str | None = None


@dataclass(frozen=True, eq=False)
class LogitsEdit:
    """Change the logits from which the next token is chosen. apply: (batch, vocab), step -> same shape."""

    apply: Callable[[Tensor, Step], Tensor]


@dataclass(frozen=True, eq=False)
class Branch:
    """A second reading of the same prompt, with other pixels or other words, that follows every chosen token.

    inputs: what a processor returns for it; row for row the samples of the main inputs. late: its logits may not be
    needed at every step, so that a row is read when an edit asks for it, several tokens at once; a run does so where
    no edit and no reading concerns the branch's rows.
    """

    name: str
    inputs: Mapping[str, Tensor]
    late: bool = False


@dataclass(frozen=True, eq=False)
class Reading:
    """Look at something and keep what is small.

    of="attention": keep(AttentionCall); "heads": keep((batch, query, head, head_dim)), before the output projection;
    "input" and "block": keep((batch, query, hidden)), what enters and leaves a layer. Each returns (batch, ...).
    queries="prompt", of "input" and "block", cuts to the positions of the prompts as the run stacks them: those of a
    method's own inputs are the last of them, because branches with longer prompts add padding on the left. Passes
    behind the prompt have none.
    queries="last" cuts all but attention to the rows that produce tokens: the last one, or in teacher forcing one for
    each given token; for attention these rows are `call.producing`: also several while a run's detectors read along,
    which happens every few steps (`deferred_readings.py`).
    branch: None reads the main rows, "all" every row block.
    total: of attention: keep gives the sum over `call.producing`, (batch, 1, ...), of the rows that `call.real` counts,
    and a record has one entry for the whole text.
    """

    name: str
    layers: Sequence[int]
    keep: Callable[..., Tensor]
    of: Literal["attention", "heads", "input", "block"] = "attention"
    queries: Literal["all", "last", "prompt"] = "last"
    branch: str | None = None
    total: bool = False


class Again(Exception):
    """Raised by a `LogitsEdit`: the run starts over, with the same edits, which know what they returned before.

    samples: which of them asked for it. method: whose edit it was, filled in by the run.
    """

    def __init__(self, samples: Bool[Tensor, " sample"]) -> None:
        super().__init__("a run of a method that starts over")
        self.samples, self.method = samples, -1


Declaration = AttentionEdit | HeadEdit | ResidualEdit | LogitsEdit | Branch | Reading


@dataclass
class Step:
    """What the run has shown so far.

    branches: logits of each row block, raw. readings: reading -> layer -> tensor of the latest pass. index: which new
    token is being chosen, from 0. ids: the main rows so far, prompt included. ended: samples whose text nothing
    that comes can change, though the others of the batch go on; None where nobody keeps count. wanted: main rows whose
    result will be used, so that a late branch reads no others; None is all.
    """

    branches: Mapping[str, Tensor] = field(default_factory=dict)
    readings: dict[str, dict[int, Tensor]] = field(default_factory=dict)
    index: int = -1
    ids: Int[Tensor, "row position"] | None = None
    ended: Bool[Tensor, " sample"] | None = None
    wanted: Bool[Tensor, " row"] | None = None
    method: int = -1

    def by_layer(self, name: str) -> dict[int, Tensor]:
        """The latest pass's reading, layer -> tensor: the asking method's own before another's of the same name.

        Raises:
            KeyError: nothing was read under that name.
        """
        own = f"{name}#{self.method}"
        name = own if own in self.readings else name
        if name not in self.readings:
            known = ", ".join(sorted(self.readings)) or "none"
            raise KeyError(f"no reading {name!r} in this pass; there are: {known}")
        return self.readings[name]

    def latest(self, name: str) -> Tensor:
        """The same stacked over its layers in rising order: (layer, batch, ...)."""
        layers = self.by_layer(name)
        device = layers[min(layers)].device
        return torch.stack([layers[layer].to(device) for layer in sorted(layers)])
