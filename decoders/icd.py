"""Instruction Contrastive Decoding (ICD).

Wang et al., "Mitigating Hallucinations in Large Vision-Language Models with Instruction Contrastive Decoding",
Findings of ACL 2024, arXiv 2403.18715.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ..pipelines.checks import check_at_least, check_integers, check_range
from ..pipelines.engine.declarations import Branch, Declaration, LogitsEdit, Step
from .plausibility import cut
from .vcd import contrast

if TYPE_CHECKING:
    from ..pipelines.lvlm import LVLM, Inputs

PREFIX = "You are a confused object detector."
RELEASED = "You are a confused objects detector to provide a fuzzy overview or impression of the image."


def insert(inputs: Inputs, at: Sequence[int], tokens: Sequence[int]) -> dict[str, Tensor]:
    """The same prompts with tokens put into row i before its position at[i]; everything per position grows along."""
    ids = inputs["input_ids"]

    def grown(value: Tensor, new: Tensor) -> Tensor:
        return torch.stack([torch.cat([row[:i], new, row[i:]]) for row, i in zip(value, at, strict=True)])

    out = dict(inputs)
    for name, value in inputs.items():
        if value.shape == ids.shape:
            fill = list(tokens) if name == "input_ids" else [int(name == "attention_mask")] * len(tokens)
            out[name] = grown(value, value.new_tensor(fill))
    return out


@dataclass(frozen=True)
class ICD:
    r"""Push the choice away from what the model says when it is told that it sees badly.

    z = (1 + α)·l − α·l′,   then z[v] = −inf where p(v) < β·max p

    l, l′: (batch, vocab) logits for the prompt and for the disturbed prompt, same picture and same tokens so far.

    Args:
        alpha: strength of the contrast, 0 or more; 0 leaves l. Released scripts: 1.
        beta: plausibility cut, 0 to 1; 0 is no cut. Released scripts: 0.1.
        prefix: the disturbance. It goes in front of the question: behind the image tokens and any blanks and special
            tokens that follow them.
        prefix_ids: the disturbance as token ids, for a model without a processor; then directly behind the image.

    Raises:
        ValueError: a value outside its range; when decoding starts, neither a processor nor `prefix_ids`, or ids that
            the model does not have.

    Formula, α and β are those of the released code; the paper's own, as recalled and not re-read, has l − α·l′. The
    code tries five disturbances (`official()` takes the one of this kind) and puts them elsewhere: in LLaVA-1.5 in
    place of the system prompt, in InstructBLIP into the Q-Former, which a prompt of tokens does not reach.
    """

    alpha: float = 1.0
    beta: float = 0.1
    prefix: str = PREFIX
    prefix_ids: Sequence[int] | None = None

    paper: ClassVar[str] = "arXiv 2403.18715"
    changes: ClassVar[str] = "logits, against a disturbed prompt"
    cost: ClassVar[str] = "2 forwards per token"
    differs: ClassVar[str] = (
        "The paper, as recalled, has l − α·l′; the default is the code's (1 + α)·l − α·l′. The code disturbs LLaVA's "
        "system prompt or InstructBLIP's Q-Former, official() only takes its words."
    )

    def __post_init__(self) -> None:
        check_at_least("alpha", self.alpha, 0, "strength of the contrast")
        check_range("beta", self.beta, 0, 1, "plausibility cut")
        if not isinstance(self.prefix, str):
            raise ValueError(f"prefix={self.prefix!r} is no text; ICD contrasts with a disturbed prompt: give one")
        if self.prefix_ids is None and not self.prefix.strip():
            raise ValueError("prefix is empty; ICD contrasts with a disturbed prompt: give a sentence")
        if self.prefix_ids is not None:
            ids = check_integers("prefix_ids", self.prefix_ids, "token ids of the disturbance", empty=True)
            object.__setattr__(self, "prefix_ids", ids)
        if self.prefix_ids == ():
            raise ValueError("prefix_ids is empty; ICD contrasts with a disturbed prompt: give at least one token id")

    @classmethod
    def official(cls) -> ICD:
        """The released disturbance of this kind, still in front of the question."""
        return cls(prefix=RELEASED)

    def edits(self, lvlm: LVLM, inputs: Inputs) -> Iterator[Declaration]:
        if self.alpha == 0 and self.beta == 0:
            return
        yield Branch("icd", insert(inputs, question_starts(lvlm, inputs), self.tokens(lvlm)))
        yield LogitsEdit(self.mix)

    def tokens(self, lvlm: LVLM) -> list[int]:
        """The disturbance as token ids that the model has."""
        if self.prefix_ids is not None:
            ids = [int(token) for token in self.prefix_ids]
            vocabulary = lvlm.model.get_input_embeddings().weight.shape[0]
            wrong = [token for token in ids if not 0 <= token < vocabulary or token == lvlm.image_token]
            if wrong:
                raise ValueError(f"prefix_ids {wrong} are no words of this model: 0 to {vocabulary - 1}, not the image")
            return ids
        if lvlm.processor is None:
            raise ValueError(
                f"{lvlm.name} has no processor that could tokenise prefix={self.prefix!r}: give prefix_ids=(…), the "
                "token ids of the disturbance, or load the model with its processor"
            )
        return lvlm.processor.tokenizer(self.prefix.rstrip() + " ", add_special_tokens=False).input_ids

    def mix(self, logits: Float[Tensor, "batch vocab"], step: Step) -> Float[Tensor, "batch vocab"]:
        return cut(contrast(logits, step.branches["icd"], self.alpha), logits, self.beta)


def question_starts(lvlm: LVLM, inputs: Inputs) -> list[int]:
    """Per row, the position behind its image (or its padding), and behind blanks and special tokens after that."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    place = torch.arange(ids.shape[1], device=ids.device)
    before = torch.where(lvlm.image_mask(ids) | (mask == 0), place, -1).amax(1)
    tokenizer = getattr(lvlm.processor, "tokenizer", None)
    return [_skip(tokenizer, row, at + 1) for row, at in zip(ids.tolist(), before.tolist(), strict=True)]


def _skip(tokenizer: object, row: Sequence[int], at: int) -> int:
    while tokenizer is not None and at < len(row) - 1:
        blank = row[at] in tokenizer.all_special_ids or not tokenizer.decode([row[at]]).strip()  # type: ignore[attr-defined]
        if not blank:
            break
        at += 1
    return at
