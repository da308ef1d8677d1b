"""Instruction Contrastive Decoding (ICD).

Wang et al., "Mitigating Hallucinations in Large Vision-Language Models with Instruction Contrastive Decoding",
Findings of ACL 2024, arXiv 2403.18715.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..pipelines.method import number, ruled, share, whole_numbers
from .contrast import Contrast
from .prefix import insert, question_starts

if TYPE_CHECKING:
    from ..pipelines.model.layout import Inputs, Layout

PREFIX = "You are a confused object detector."
RELEASED = "You are a confused objects detector to provide a fuzzy overview or impression of the image."


@dataclass(frozen=True)
class ICD(Contrast):
    r"""Push the choice away from that under a prompt which casts the model as a confused observer.

    z = (1 + α)·l − α·l′,   then z[v] = −inf where p(v) < β·max p

    l, l′: (batch, vocab) logits for the prompt and for the prompt disturbed by `prefix`, or by the tokens `prefix_ids`;
    same image and same tokens so far. α, β: `alpha`, `beta`.

    Raises:
        ValueError: a value outside its range; when decoding starts, neither a processor nor `prefix_ids`, or ids that
            the model does not have.

    Formula, α and β are those of the released code; the paper's own, as recalled and not re-read, has l − α·l′. The
    code tries five disturbances (`official()` takes the one of this kind) and puts them elsewhere: in LLaVA-1.5 in
    place of the system prompt, in InstructBLIP into the Q-Former, which a prompt of tokens does not reach.
    """

    alpha: float = number(1.0, "strength of the contrast", "0 leaves l. Released scripts: 1.")
    beta: float = share(0.1, "plausibility cut", "0 is no cut. Released scripts: 0.1.")
    prefix: str = ruled(
        PREFIX, "the disturbance", "a sentence",
        "It stands in front of the question: behind the image tokens and blanks and special tokens after these.",
    )  # fmt: skip
    prefix_ids: Sequence[int] | None = whole_numbers(
        None, "token ids of the disturbance", "For a model without a processor; directly behind the image.", empty=True
    )

    against = "a disturbed prompt"
    neutral = {"alpha": 0, "beta": 0}
    faint = {"alpha": 1e-7}
    released = {"prefix": RELEASED}

    def validate(self) -> None:
        if not isinstance(self.prefix, str):
            raise ValueError(f"prefix={self.prefix!r} is no text; ICD contrasts with a disturbed prompt: give one")
        if self.prefix_ids is None and not self.prefix.strip():
            raise ValueError("prefix is empty; ICD contrasts with a disturbed prompt: give a sentence")
        if self.prefix_ids == ():
            raise ValueError("prefix_ids is empty; ICD contrasts with a disturbed prompt: give at least one token id")

    def branch(self, lvlm: Layout, inputs: Inputs) -> Inputs:
        return insert(inputs, question_starts(lvlm, inputs), self.tokens(lvlm))

    def tokens(self, lvlm: Layout) -> list[int]:
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
