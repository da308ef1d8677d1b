"""Reference decoders that edit states or head outputs by fixed directions, from the specifications alone.

As in `reference_more`: slow on purpose, one unpadded prompt at a time, loops where the package has tensors.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..reference_methods import Run, greedy
from ..reference_more import positions

BOS = 1


def word_state(reference, word, text_layer) -> Tensor:
    """A word alone behind the start token, its last token's state; at −1 the mean of its embeddings."""
    if text_layer < 0:
        return sum(reference.weights["embed_tokens.weight"][token] for token in word) / len(word)
    return reference(torch.tensor([BOS, *word])).blocks[text_layer][-1]


def project_away(reference, ids, pixels, steps, objects, alpha=1.5, layer=2, text_layer=0) -> Run:
    image = positions(reference, ids)
    vectors = [word_state(reference, word, text_layer) for word in objects]

    def edit(at, states):
        if at != layer:
            return states
        states = states.clone()
        for t in vectors:
            for place in image:
                share = float((states[place] * t).sum()) / float((t * t).sum())
                if share > 0:
                    states[place] -= alpha * share * t
        return states

    return greedy(steps, lambda new: reference(ids, pixels, new, on_block=edit).logits[-1])
