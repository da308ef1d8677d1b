"""What runs give back: a batch's generation, what each method did, and one answer per image."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from . import notebook


@dataclass
class Acted:
    """What one method did, per sample.

    steps: tokens chosen. acted: steps at which it changed anything. flipped: steps at which its logits edits changed
    the arg-max. kl: mean KL(after ‖ before) of its logits edits over the steps, in nats. The last two speak of the
    method's logits edits alone and are 0 for a method that edits attention or states: what those change in the
    logits is only known beside a plain run. rollbacks: how often it went back, of a method that does; else None.
    """

    steps: Float[Tensor, " batch"]
    acted: Float[Tensor, " batch"]
    flipped: Float[Tensor, " batch"]
    kl: Float[Tensor, " batch"]
    rollbacks: Float[Tensor, " batch"] | None = None


@dataclass
class Generation:
    """What a run produced.

    ids: padded after the end. logits: what the choice was made from, after every contrast and cut and the settings'
    penalties and bans, before temperature and the caller's own processors; None unless they were requested. text: one
    string per row, "" without a processor. acted: what each method did. risk: detector -> (batch, token), higher means
    more likely hallucinated. risk_before: detector -> (batch,), of those that know it before the first token. broken:
    at some step the logits were NaN or infinite and the choice means nothing. tied: steps of each row at which several
    tokens had the highest score, of which greedy decoding takes the first in the vocabulary; None where tokens are
    drawn or beams searched.
    """

    ids: Int[Tensor, "batch token"]
    logits: Float[Tensor, "batch token vocab"] | None = None
    text: list[str] = field(default_factory=list)
    acted: dict[str, Acted] = field(default_factory=dict)
    risk: dict[str, Tensor] = field(default_factory=dict)
    risk_before: dict[str, Tensor] = field(default_factory=dict)
    broken: Bool[Tensor, " _"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))
    tied: Int[Tensor, " batch"] | None = None

    def _repr_html_(self) -> str:
        """For notebooks: the text of every row, and what each method did. Risks need tokens: see `Answer`."""
        acted = [
            {
                name: {key: float(value[row]) for key, value in vars(one).items() if value is not None}
                for name, one in self.acted.items()
            }
            for row in range(len(self.ids))
        ]
        texts = self.text or [""] * len(self.ids)
        return notebook.page([notebook.plain(text or "(no processor, no text)", did)
                              for text, did in zip(texts, acted, strict=True)])  # fmt: skip


@dataclass
class Answer:
    """One text about one image.

    tokens: the text piece by piece. risk: detector -> one number per token, higher means more likely hallucinated.
    risk_before: detector -> the risk of the whole answer, of those that know it before the first token. details:
    detector -> the samples' texts, of those that ask the model again. probability: detector -> one number per token,
    the risk as a calibrated probability, 0 to 1, of those that have a calibration for this model (see
    `risk.calibration.add_probabilities`). sentence_probability: detector -> one number per sentence, as
    `inputs.text_alignment.sentences` parts them: that it holds a hallucination.
    acted: method -> steps, acted, flipped, kl (see `Acted`; for procedures `procedures.Procedure`). seconds: its
    batch's time over the batch size. tied: steps at which several tokens had the highest score (see `Generation`).
    settings: everything needed to repeat it. error: None, or why there is no text.
    """

    text: str
    tokens: list[str] = field(default_factory=list)
    risk: dict[str, list[float]] = field(default_factory=dict)
    acted: dict[str, dict[str, float]] = field(default_factory=dict)
    seconds: float = 0.0
    settings: dict[str, Any] = field(default_factory=dict)
    risk_before: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    probability: dict[str, list[float]] = field(default_factory=dict)
    sentence_probability: dict[str, list[float]] = field(default_factory=dict)
    tied: int | None = None
    error: str | None = None

    def _repr_html_(self) -> str:
        """For notebooks: the text once for every detector, its words tinted by risk, or the error."""
        if self.error is not None:
            return notebook.page([notebook.failed(self.error)])
        if not self.risk:
            return notebook.page([notebook.plain(self.text, self.acted)])
        lines = [notebook.tinted(self.text, self.tokens, risk, name) for name, risk in self.risk.items()]
        return notebook.page([*lines, notebook.plain("", self.acted)] if self.acted else lines)


class BrokenLogits(ArithmeticError):
    """A model gave no numbers to choose a token from."""


BROKEN = (
    "the logits became NaN or infinite, so that no token could be chosen; half precision can overflow: try dtype bf16 "
    "or fp32"
)


@cache
def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    return {name: importlib.metadata.version(name) for name in ("veridical", "transformers", "torch")}


def words_of(layout: Any, ids: list[int]) -> list[int]:
    """A text's tokens without its end and the padding behind it; the pad id inside a text is one of its tokens."""
    length = max((place + 1 for place, token in enumerate(ids) if token != layout.pad_token), default=0)
    return [token for token in ids[:length] if token not in layout.end_tokens]


def answers_of(layout: Any, generation: Generation) -> list[Answer]:
    """A generation's rows as answers, without settings and seconds."""
    answers = []
    for row, text in enumerate(generation.text):
        if generation.broken[row]:
            answers.append(Answer("", error=BROKEN))
            continue
        kept = words_of(layout, generation.ids[row].tolist())
        known = {name: {k: v for k, v in vars(one).items() if v is not None} for name, one in generation.acted.items()}
        acted = {name: {k: float(v[row]) for k, v in one.items()} for name, one in known.items()}
        risk = {name: values[row, : len(kept)].tolist() for name, values in generation.risk.items()}
        pieces = [layout.processor.tokenizer.decode([token]) for token in kept]
        before = {name: float(values[row]) for name, values in generation.risk_before.items()}
        tied = None if generation.tied is None else int(generation.tied[row])
        answers.append(Answer(text, pieces, risk, acted, risk_before=before, tied=tied))
    return answers
