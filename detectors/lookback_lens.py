"""Lookback Lens: how much of a head's attention looks back at the context.

Chuang et al., "Lookback Lens: Detecting and Mitigating Contextual Hallucinations in Large Language Models Using Only
Attention Maps", EMNLP 2024, arXiv 2407.07071. Here the context is the image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from ..pipelines.engine.declarations import Reading
from ..pipelines.engine.record import Record
from ..pipelines.method import count, one_of
from .probe import fit_linear
from .trained import Trained, items, prepared, training_record, weights_field

if TYPE_CHECKING:
    from ..pipelines.engine.call import AttentionCall


def ratio(
    sums: Float[Tensor, "batch token head side"], share: Float[Tensor, "batch token side"]
) -> Float[Tensor, "batch token head"]:
    """C / (C + G), C and G the mean attention over the context's keys and over the new ones; 1 where nothing is new.

    sums: of attention, the context's first; G is what the others give. share: 1 / the keys of a side that the token's
    row reaches, 0 for a side that does not count there. Without attention on either side the ratio is 0.
    """
    means = sums * share[:, :, None]
    return means[..., 0] / means.sum(-1).clamp_(min=1e-30)


def key_sides(
    call: AttentionCall, context: str
) -> tuple[Float[Tensor, "batch key side"], Float[Tensor, "batch token side"]]:
    """Which keys are on a side (1) and `ratio`'s shares: the context, the new, what stands in for the new.

    New are the generated tokens before the row and its own. At the first row, where none is, the prompt text after the
    image stands in for them (context "image"), or nothing is new (context "prompt").
    """
    where, device, prompt = call.sequences, call.query.device, call.sequences.image.shape[1]
    dropped = max(0, where.seen - call.key.shape[2])  # a sliding window let these keys go; a mean still counts them
    first, text = where.seen - call.query.shape[2] + call.producing.start, ~where.padding
    after = text & (where.image.flip(1).cumsum(1).flip(1) == 0)
    sides = [text] if context == "prompt" else [where.image, after]
    keys = torch.zeros(len(text), dropped + call.key.shape[2], len(sides) + 1, device=device)
    keys[:, prompt:, 1] = 1
    for side, which in zip((0, 2), sides, strict=False):
        keys[:, :prompt, side] = which.to(device)
    rows = range(*call.producing.indices(call.query.shape[2]))
    share = keys.cumsum(1)[:, first : first + len(rows)].clamp_(min=1).reciprocal_()  # of those that a row reaches
    share[:, max(0, prompt - first) :, 2:] = 0
    return keys[:, dropped:], share


def lookback_ratio(call: AttentionCall, context: str) -> Float[Tensor, "batch token head"]:
    """The ratios of every head at the rows that produce tokens."""
    key = ("lookback", context, call.key.shape[2], call.query.shape[2], call.query.device)
    sides, share = call.sequences.once(key, lambda: key_sides(call, context))
    return ratio(call.sums(sides, call.producing), share)


def trailing_mean(values: Float[Tensor, "sample token feature"], width: int) -> Float[Tensor, "sample token feature"]:
    """Mean over each token and up to width − 1 before it; fewer at the beginning."""
    if width == 1:
        return values
    count = torch.arange(1, values.shape[1] + 1, device=values.device).clamp(max=width)
    total = values.float().cumsum(1)
    return (total - pad(total, (0, 0, width, 0))[:, : total.shape[1]]) / count[:, None]


@dataclass(frozen=True, eq=False)
class LookbackLens(Trained):
    """Logistic regression on the lookback ratios of all heads; without a probe, 1 − their mean, the trivial baseline.

    LR_t[l, h] = C / (C + G): C the mean attention of head h in layer l on the context, G on what was generated so far,
    at the row that produces token t. Risk = P(hallucinated | mean of LR over the window); the paper's score is
    P(faithful).

    The window is of `window` tokens; what C is of is `context`; the probe is `weights`.

    Raises:
        ValueError: another context, or a window below 1.

    The paper's context is a document; ours the image. Features are scaled before fitting, which the authors do not.
    """

    context: Literal["image", "prompt"] = one_of(
        ("image", "prompt"), "what C is of", "image: the image tokens; prompt: the whole prompt."
    )
    window: int = count(
        1, "tokens that the ratios are averaged over", "A token and those before it. Paper: a marked span, or 8.", low=1
    )
    weights: str | None = weights_field("untrained on another model")

    name: ClassVar[str] = "lookback_lens"
    kind: ClassVar[str] = "linear"

    def readings(self, lvlm: Any, inputs: Any) -> Iterator[Any]:
        yield Reading("lookback", range(len(lvlm.layers)), keep=partial(lookback_ratio, context=self.context))

    def features(self, lvlm: Any, inputs: Any, ids: Tensor) -> Float[Tensor, "sample token feature"]:
        """Ratios of a finished text, layer-major: (batch, new, layers · heads)."""
        from ..pipelines.generate import teacher_force

        return self.token_features(teacher_force(lvlm, inputs, ids, [self]))

    def token_features(self, record: Record) -> Float[Tensor, "sample token feature"]:
        """What the probe reads of every token, before the window's mean."""
        return record["lookback"].flatten(2)

    def score(self, record: Record) -> Float[Tensor, "sample token"]:
        ratios = trailing_mean(self.token_features(record), self.window)
        return 1 - ratios.mean(-1) if self.probe is None else self.probe(ratios)

    def fit(
        self, features: Any, labels: Any, groups: Sequence[Any] | None = None, *, lvlm: Any, counts: Any = None,
        seed: int = 0,
    ) -> Self:  # fmt: skip
        """With a logistic regression fitted to items: tokens, or means over the tokens of a span.

        features: (item, layers · heads), or the record of a pass with labels (sample, token). labels: 1 hallucinated.
        groups: of no use here, where nothing is held out. lvlm: the model that the ratios are of. counts: how often
        each item counts, once by default.

        Raises:
            ValueError: features and labels that do not match, or labels of one class only.
        """
        if isinstance(features, Record):
            features, labels, groups = items(
                features, trailing_mean(self.token_features(features), self.window), torch.as_tensor(labels), groups
            )
        known, truth, _ = prepared(features, labels, groups)
        often = None if counts is None else torch.as_tensor(counts).float()
        return self._with(fit_linear(known, truth, counts=often), training_record(lvlm, known, truth, seed))
