"""Internal confidence: whether the word can be read off the image tokens' states with the logit lens.

Jiang et al., "Interpreting and Editing Vision-Language Representations to Mitigate Hallucinations", ICLR 2025, arXiv
2410.02762.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..pipelines.engine.declarations import Reading
from ..pipelines.engine.record import Record
from ..pipelines.method import Detector, count, flag

TOGETHER = 64  # image tokens whose logits are worked out at once; those of a whole image are hundreds of megabytes


def renormalised(logits: Float[Tensor, "... vocab"], top: int) -> Float[Tensor, "... vocab"]:
    """Softmax over the `top` largest alone, 0 elsewhere.

    >>> [round(p, 4) for p in renormalised(torch.tensor([2.0, 1.0, 0.0, -1.0]), 2).tolist()]
    [0.7311, 0.2689, 0.0, 0.0]
    """
    best = logits.float().topk(min(top, logits.shape[-1]), dim=-1)
    return torch.zeros_like(logits, dtype=torch.float32).scatter(-1, best.indices, best.values.softmax(-1))


def seen_words(
    hidden: Float[Tensor, "batch query hidden"], image: Bool[Tensor, "batch prompt"], top: int,
    head: Callable[[Tensor], Tensor], vocabulary: int,
) -> Float[Tensor, "batch first vocab"]:  # fmt: skip
    """The largest value of every word over the image tokens: one entry when a pass holds the prompt, none later.

    hidden: the prompt's positions in this pass, aligned with `image` at the right: a longer branch adds padding.

    Raises:
        ValueError: a pass that holds a part of the prompt.
    """
    length, size = hidden.shape[1], image.shape[1]
    if length == 0:
        return hidden.new_zeros((len(hidden), 0, vocabulary), dtype=torch.float32)
    if length < size:
        raise ValueError(
            f"logit_lens reads the image tokens of a prompt in one pass, and this pass holds {length} of its {size} "
            "positions: leave prefill_chunk_size out."
        )
    rows = zip(hidden[:, length - size :], image.to(hidden.device), strict=True)
    return torch.stack([_largest(states[mask], top, head) for states, mask in rows])[:, None]


def _largest(states: Float[Tensor, "image hidden"], top: int, head: Callable[[Tensor], Tensor]) -> Tensor:
    """The largest value of every word over the image tokens of one row, (vocab,)."""
    parts = states.split(TOGETHER)
    found = renormalised(head(parts[0]), top).amax(0)
    for part in parts[1:]:
        found = torch.maximum(found, renormalised(head(part), top).amax(0))
    return found


@dataclass(frozen=True)
class LogitLens(Detector):
    """Risk = 1 − c(y_t), c(v) = max over layers and image tokens of softmax over the `top` largest logits of H(h)[v].

    h: a state at an image token, every layer's and the embeddings'; H: the head alone, as in the released code, but the
    last layer's state (with `final_norm` every layer's) after the final norm. 0 to 1, and no probability: keeping 50
    words inflates it. A word of several
    tokens has a risk for each; the released code takes their smallest.

    Raises:
        ValueError: top below 1.

    What is kept is one number per layer and word of the vocabulary, for the prompt alone. The token itself is looked up
    there, so that texts that the model did not write are judged too.
    """

    judges_texts: ClassVar[bool] = True

    top: int = count(50, "words kept before they are normalised again", "Code: 50.", low=1)
    final_norm: bool = flag(False, "apply the final norm before the head, to inner layers too", "Code: no.")

    def readings(self, lvlm: Any, inputs: Any) -> Iterator[Any]:
        last, image = len(lvlm.layers) - 1, lvlm.image_mask(inputs["input_ids"])
        inner = lvlm.unembed if self.final_norm else lvlm.head
        kept = partial(seen_words, image=image, top=self.top, vocabulary=len(lvlm.model.get_output_embeddings().weight))
        yield Reading("logit_lens/embedding", [0], keep=partial(kept, head=inner), of="input", queries="prompt")
        if last:
            yield Reading("logit_lens/inner", range(last), keep=partial(kept, head=inner), of="block", queries="prompt")
        yield Reading("logit_lens/last", [last], keep=partial(kept, head=lvlm.unembed), of="block", queries="prompt")

    def confidence(self, record: Record) -> Float[Tensor, "sample token layer"]:
        """c of each token, before the maximum over layers; the embeddings first."""
        names = [f"logit_lens/{name}" for name in ("embedding", "inner", "last")]
        parts = [record[name] for name in names if name in record.readings]
        table = torch.cat([part[:, 0] for part in parts], dim=1)  # sample layer vocab
        ids = record.ids.to(table.device)[:, None].expand(-1, table.shape[1], -1)
        return table.gather(2, ids).transpose(1, 2)

    def features(self, lvlm: Any, inputs: Any, ids: Tensor) -> Float[Tensor, "sample token layer"]:
        """c of every token of a finished text by layer, (batch, new, layers + 1), the embeddings first."""
        from ..pipelines.generate import teacher_force

        return self.confidence(teacher_force(lvlm, inputs, ids, [self]))

    def score(self, record: Record) -> Float[Tensor, "sample token"]:
        return 1 - self.confidence(record).amax(-1)
