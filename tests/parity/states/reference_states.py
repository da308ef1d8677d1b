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


def nullu(reference, ids, pixels, steps, bases) -> Run:
    def edit(at, output):
        if at not in bases:
            return output
        for direction in bases[at].double().T:
            output = output - (output @ direction)[:, None] * direction
        return output

    return greedy(steps, lambda new: reference(ids, pixels, new, on_mlp=edit).logits[-1])


def adhh(reference, ids, pixels, steps, heads, threshold=0.4, acted=None) -> Run:
    """acted, a list, receives (layer, head, row, mass) of every row that was silenced."""
    last = max(positions(reference, ids))

    def edit(at, probabilities):
        probabilities = probabilities.clone()
        for layer, head in heads:
            for row in range(len(ids) - 1, probabilities.shape[1]) if layer == at else ():
                mass = sum(float(p) for p in probabilities[head, row, last + 1 :])
                if mass >= threshold:
                    probabilities[head, row, last + 1 :] = 0
                    if acted is not None:
                        acted.append((layer, head, row, mass))
        return probabilities

    return greedy(steps, lambda new: reference(ids, pixels, new, on_probabilities=edit).logits[-1])


def turned(x, d, alpha) -> Tensor:
    out = x.clone()
    for place in range(len(x)):
        direction = d if d.dim() == 1 else d[place]
        length = float((x[place] ** 2).sum()) ** 0.5
        u = x[place] / length + 0.1 * alpha * direction / float((direction**2).sum()) ** 0.5
        out[place] = length * u / float((u**2).sum()) ** 0.5
    return out


class Steered:
    """A reference whose tower's MLPs are turned, by plain torch hooks on the model's own tower."""

    def __init__(self, reference, directions, alpha) -> None:
        self.reference, self.directions, self.alpha = reference, directions, alpha
        self.image_mask = reference.image_mask

    def __call__(self, *given, **taps):
        layers = self.reference.model.model.vision_tower.encoder.layers
        turn = lambda d: lambda module, args, output: turned(output[0].double(), d.double(), self.alpha)[None].float()
        hooks = [one.mlp.register_forward_hook(turn(d)) for one, d in zip(layers, self.directions, strict=True)]
        try:
            return self.reference(*given, **taps)
        finally:
            for hook in hooks:
                hook.remove()


def vti(reference, ids, pixels, steps, text=None, image=None, alpha=0.8, alpha_image=0.0) -> Run:
    tower = reference if image is None or not alpha_image else Steered(reference, image, alpha_image)
    edit = lambda at, output: output if text is None else turned(output, text[at].double(), alpha)
    return greedy(steps, lambda new: tower(ids, pixels, new, on_mlp=edit).logits[-1])
