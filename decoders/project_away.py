"""ProjectAway: erase objects from the states of the image tokens.

Jiang et al., "Interpreting and Editing Vision-Language Representations to Mitigate Hallucinations", ICLR 2025, arXiv
2410.02762.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..pipelines.checks import check_layers
from ..pipelines.engine.declarations import Declaration, Reading, ResidualEdit
from ..pipelines.engine.run import prefill
from ..pipelines.inputs.rows import pad_left
from ..pipelines.inputs.word_tokens import start_of, word_tokens
from ..pipelines.method import Decoder, count, number, ruled

if TYPE_CHECKING:
    from ..pipelines.engine.call import LayerCall
    from ..pipelines.model.layout import Inputs, Layout

PAIRS: dict[str, dict[str, Any]] = {  # the paper's layers and strength for two models, from memory
    "instructblip-vicuna-7b": {"layer": 1, "text_layer": 1},
    r"llava-v?1\.5-7b": {"alpha": 3.5, "layer": 19, "text_layer": 20},
}


def erase(
    states: Float[Tensor, "*any hidden"], vectors: Float[Tensor, "object hidden"], alpha: float
) -> Float[Tensor, "*any hidden"]:
    """x ← x − α·max(0, x·t/t·t)·t for each t in turn, on what is left of x; in float32 or more. t = 0 erases nothing.

    >>> erase(torch.tensor([[2.0, 2.0], [0.0, -4.0]]), torch.tensor([[0.0, 2.0]]), 1.5).tolist()
    [[2.0, -1.0], [0.0, -4.0]]
    """
    wide = torch.promote_types(states.dtype, torch.float32)
    x = states.to(wide)
    for t in vectors.to(x):
        length = t.square().sum().clamp(min=torch.finfo(wide).tiny)
        x = x - alpha * (x @ t / length).clamp(min=0)[..., None] * t
    return x.to(states.dtype)


def _is_word(value: Any) -> bool:
    ids = isinstance(value, tuple) and value and all(isinstance(one, int) for one in value)
    return bool(ids) or (isinstance(value, str) and bool(value.strip()))


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def _objects(name: str, value: Any) -> tuple[Any, ...]:
    """Words, or a tuple of words per sample; lists become tuples."""
    found = (value,) if isinstance(value, str) and value else _frozen(value)
    if isinstance(found, tuple):
        if all(map(_is_word, found)):
            return found
        if all(isinstance(one, tuple) and all(map(_is_word, one)) for one in found):
            return found
    raise ValueError(
        f"{name}={value!r} are no words: give texts or tuples of token ids, the same for every sample, such as "
        "('dog', 'cat'), or a tuple of them for each sample, such as (('dog',), ())."
    )


@dataclass(frozen=True)
class ProjectAway(Decoder):
    r"""Take the direction of given words away from the image tokens' states in one layer.

    x ← x − α·p·t,   p = x·t / t·t where it is positive, else 0   (for each word's t in turn)

    x: (batch, position, hidden), output of block `layer` at the image positions of the prompt; all others stay. t:
    output of block `text_layer` at the last token of the word alone, behind the start token, without image or template;
    `text_layer=-1`: mean of the word's input embeddings. α: `alpha`. `objects`: words, or tuples of token ids; the same
    for every sample, or a tuple of them for each. A word is spelt as behind a space. Order counts unless directions are
    orthogonal.

    Raises:
        ValueError: objects that are no words, or not one tuple for each sample; a word for a model without a processor;
            a layer that the model does not have.

    The defaults, and `official()`, are the released demo's for every model; its pair is the paper's for InstructBLIP
    with the roles exchanged. The paper's pairs and strengths for LLaVA-1.5 and InstructBLIP, which a method that is
    named takes on these models, are from memory. The code projects a batch on its first row's states, edits any pass of
    more than 576 positions, and removes other people's hooks; none of this is reproduced.
    """

    objects: tuple[Any, ...] = ruled(
        (), "what is erased", "words or tuples of token ids, for all samples, or a tuple of them for each",
        "Without any it is plain decoding.", _objects,
    )  # fmt: skip
    alpha: float = number(
        1.5, "strength", "0 is plain decoding, 1 removes the direction, above 1 it is left negative. Paper: 1.5, 3.5."
    )
    layer: int = count(2, "0-based block whose output is edited", "Demo: 2. Paper: 19 LLaVA-1.5, 1 InstructBLIP.")
    text_layer: int = count(
        0, "0-based block whose output is a word's direction", "-1: the word's embeddings. Demo: 0. Paper: 20, 1.", -1
    )

    inside = ("alpha",)
    neutral = {"alpha": 0}
    faint = {"objects": ((5, 6), (7,)), "alpha": 1e-7}
    released = {}
    by_model = PAIRS

    @property
    def is_neutral(self) -> bool:
        """Whether nothing is erased from any sample."""
        return self.alpha == 0 or not any(self.objects)

    def edits(self, lvlm: Layout, inputs: Inputs) -> Iterator[Declaration]:
        check_layers((self.layer, max(0, self.text_layer)), len(lvlm.layers), "ProjectAway")
        samples = self.words(lvlm, len(inputs["input_ids"]))
        words = list(dict.fromkeys(word for sample in samples for word in sample))
        size = len(lvlm.model.get_input_embeddings().weight)
        if wrong := [word for word in words if not all(0 <= token < size for token in word)]:
            raise ValueError(f"project_away: {wrong[0]} are no token ids of {lvlm.name}, which are 0 to {size - 1}.")
        known = dict(zip(words, self.directions(lvlm, words), strict=True))
        vectors = [torch.stack([known[word] for word in sample]) if sample else None for sample in samples]
        yield ResidualEdit([self.layer], partial(self.edit, vectors))

    def words(self, lvlm: Layout, batch: int) -> list[list[tuple[int, ...]]]:
        """Every sample's words as token ids."""
        tokens = lambda word: word_tokens(lvlm, word) if isinstance(word, str) else word
        if all(map(_is_word, self.objects)):
            return [[tokens(word) for word in self.objects]] * batch
        if len(self.objects) != batch:
            raise ValueError(
                f"project_away has objects for {len(self.objects)} samples, and this batch has {batch}: give one tuple "
                "for each, or words that are the same for all."
            )
        return [[tokens(word) for word in sample] for sample in self.objects]

    def directions(self, lvlm: Layout, words: Sequence[tuple[int, ...]]) -> Float[Tensor, "word hidden"]:
        """t of every word, from one pass over all of them."""
        rows = [torch.tensor(word, device=lvlm.device) for word in words]
        if self.text_layer < 0:
            table = lvlm.model.get_input_embeddings()
            return torch.stack([table(row).detach().mean(0) for row in rows])
        start = torch.tensor(start_of(lvlm), device=lvlm.device, dtype=torch.long)
        rows = [torch.cat([start, row]) for row in rows]
        ids, mask = pad_left(rows, lvlm.pad_token), pad_left([torch.ones_like(row) for row in rows], 0)
        last = Reading("word", [self.text_layer], keep=lambda hidden: hidden[:, -1], of="block")
        return prefill(lvlm, {"input_ids": ids, "attention_mask": mask}, [last]).latest("word")[0]

    def edit(
        self, vectors: Sequence[Tensor | None], hidden: Float[Tensor, "batch query hidden"], call: LayerCall
    ) -> Tensor:
        image = call.sequences.at_queries(call.sequences.image, False, hidden.shape[1]).to(hidden.device)
        if not image.any():
            return hidden
        hidden = hidden.clone()
        for row, sample in enumerate(call.sequences.sample.tolist()):
            if (found := vectors[sample]) is not None:
                hidden[row, image[row]] = erase(hidden[row, image[row]], found, self.alpha)
        return hidden
