"""Lookback Lens: how much of a head's attention looks back at the context.

Chuang et al., "Lookback Lens: Detecting and Mitigating Contextual Hallucinations in Large Language Models Using Only
Attention Maps", EMNLP 2024, arXiv 2407.07071. Here the context is the image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from ..pipelines.checks import check_choice
from ..pipelines.declarations import Reading

if TYPE_CHECKING:
    from ..pipelines.attention import AttentionCall


def ratio(
    rows: Float[Tensor, "batch head token key"], context: Bool[Tensor, "batch token key"],
    new: Bool[Tensor, "batch token key"],
) -> Float[Tensor, "batch token head"]:  # fmt: skip
    """C / (C + G), C and G the mean attention over the context's keys and over the new ones; 1 where nothing is new."""
    rows = rows.float()

    def mean(where: Tensor) -> Tensor:
        return (rows * where[:, None]).sum(-1) / where.sum(-1).clamp(min=1)[:, None]

    back, fresh = mean(context), mean(new)
    out = torch.where(back + fresh > 0, back / (back + fresh).clamp(min=1e-30), 0.0)
    out = torch.where(new.any(-1)[:, None], out, 1.0)
    return out.transpose(1, 2)


def lookback_ratio(call: AttentionCall, context: str) -> Float[Tensor, "batch token head"]:
    """The ratios of every head at the rows that produce tokens.

    New are the generated tokens before the row and its own. At the first row, where none is, the prompt text after the
    image stands in for them (context "image"), or the ratio is 1 (context "prompt").
    """
    span, where = call.producing, call.sequences
    total, device = call.query.shape[2], call.query.device
    dropped = max(0, where.seen - call.key.shape[2])  # a sliding window let these keys go; a mean still counts them
    places = torch.arange(dropped + call.key.shape[2], device=device)
    queries = torch.arange(where.seen - total, where.seen, device=device)[span]
    reached = (places[None] <= queries[:, None])[None]  # 1 token position
    over = lambda prompt: pad(prompt.to(device), (0, len(places) - prompt.shape[1]))[:, None] & reached
    new = ((places >= where.image.shape[1]) & reached).expand(len(where.image), -1, -1)
    if context == "prompt":
        back = over(~where.padding)
    else:
        back = over(where.image)
        after = (where.image.flip(1).cumsum(1).flip(1) == 0) & ~where.padding
        first = (queries < where.image.shape[1])[None, :, None]
        new = new | (over(after) & first)
    return ratio(pad(call.probabilities(span), (dropped, 0)), back, new)


@dataclass(frozen=True)
class LookbackLens:
    """Lookback ratios of all heads; without a trained probe, risk = 1 − their mean, the paper's trivial baseline.

    LR_t[l, h] = C / (C + G): C the mean attention of head h in layer l on the context, G on what was generated so far,
    at the row that produces token t.

    Args:
        context: "image", the image tokens; or "prompt", the whole prompt.

    Raises:
        ValueError: another context.
    """

    context: Literal["image", "prompt"] = "image"

    paper: ClassVar[str] = "arXiv 2407.07071"
    reads: ClassVar[str] = "attention"

    def __post_init__(self) -> None:
        check_choice("context", self.context, ("image", "prompt"), "what is looked back at")

    def readings(self, lvlm: Any, inputs: Any) -> Iterator[Any]:
        yield Reading("lookback", range(len(lvlm.layers)), keep=partial(lookback_ratio, context=self.context))

    def features(self, lvlm: Any, inputs: Any, ids: Tensor) -> Float[Tensor, "sample token feature"]:
        """Ratios for given text, layer-major: (batch, new, layers · heads)."""
        from ..pipelines.generate import teacher_force

        return teacher_force(lvlm, inputs, ids, [self])["lookback"].flatten(2)

    def score(self, record: Any) -> Float[Tensor, "sample token"]:
        return 1 - record["lookback"].flatten(2).mean(-1)
