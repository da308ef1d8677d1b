"""Reference decoders that act on what is paid to the image, from the specifications alone: full uncached passes.

As in `reference_more`: slow on purpose, one unpadded prompt at a time, loops where the package has tensors.
"""

from __future__ import annotations

import math

import torch

from .reference_methods import Run, contrast_and_cut, greedy
from .reference_more import cut, positions


def ritual(reference, ids, pixels, steps, other, alpha=3.0, beta=0.1) -> Run:
    def logits_after(new):
        whole = reference(ids, pixels, new).logits[-1]
        return cut(whole + alpha * reference(ids, other, new).logits[-1], whole, beta)

    return greedy(steps, logits_after)


def vaf(reference, ids, pixels, steps, layers, boost=0.15, suppress=0.05, heads=None) -> Run:
    image = positions(reference, ids)
    first, last = min(image), max(image)

    def edit(layer, scores):
        if layer not in layers:
            return scores
        scores = scores.clone()
        for head in range(len(scores)) if heads is None else heads.get(layer, ()):
            for row in range(last + 1, scores.shape[1]):
                for column in range(last + 1):
                    if column in image:
                        scores[head, row, column] *= 1 + boost
                    elif column < first:
                        scores[head, row, column] *= 1 - suppress
        return scores

    return greedy(steps, lambda new: reference(ids, pixels, new, on_scores=edit).logits[-1])


def heads_guided(reference, ids, pixels, steps, layers, alpha=0.5) -> Run:
    image = positions(reference, ids)

    def edit(layer, scores):
        if layer not in layers:
            return scores
        scores = scores.clone()
        for row in range(len(ids) - 1, scores.shape[1]):
            for column in image:
                column_scores = [float(z) for z in scores[:, row, column]]
                scores[:, row, column] += alpha * sum(abs(z) for z in column_scores) / len(column_scores)
        return scores

    return greedy(steps, lambda new: reference(ids, pixels, new, on_scores=edit).logits[-1])


def spin(reference, ids, pixels, steps, keep=0.95, factor=0.08, layers=None, queries="last", chosen=None) -> Run:
    """chosen, a list, receives the kept heads of the newest row, layer by layer and step by step."""
    image = positions(reference, ids)

    def logits_after(new):
        dropped: dict[tuple[int, int], list[int]] = {}
        first = len(ids) - 1 if queries == "last" else max(image) + 1

        def rank(layer, scores):
            if layers is not None and layer not in layers:
                return scores
            for row in range(first, scores.shape[1]):
                sums = [sum(float(scores[head, row, column]) for column in image) for head in range(len(scores))]
                order = sorted(range(len(sums)), key=lambda head: -sums[head])
                count = int(keep * len(sums) + 1e-9)
                dropped[layer, row] = order[count:]
                if chosen is not None and row == scores.shape[1] - 1:
                    chosen.append(sorted(order[:count]))
            return scores

        def scale(layer, heads):
            heads = heads.clone()
            for (where, row), out in dropped.items():
                if where == layer:
                    for head in out:
                        heads[row, head] *= factor
            return heads

        return reference(ids, pixels, new, on_scores=rank, on_heads=scale).logits[-1]

    return greedy(steps, logits_after)


def least(attention: list[float], count: int) -> list[int]:
    return sorted(range(len(attention)), key=lambda j: (attention[j], j))[:count]


def sid(reference, ids, pixels, steps, alpha=0.5, beta=0.1, layer=3, keep=0.1, chosen=None) -> Run:
    """chosen, a list, receives the image tokens that the newest row of each step keeps."""
    image, prompt = positions(reference, ids), len(ids)
    count = min(len(image), keep) if isinstance(keep, int) else max(1, int(keep * len(image) + 0.5))

    def disturbed(new):
        kept: dict[int, list[int]] = {}

        def choose(at, probabilities):
            if at == layer - 1:
                for row in range(prompt - 1, probabilities.shape[1]):
                    mean = [float(probabilities[:, row, column].mean()) for column in image]
                    kept[row] = [image[j] for j in least(mean, count)]
            return probabilities

        def hide(at, scores):
            if at < layer:
                return scores
            scores = scores.clone()
            for row in range(scores.shape[1]):
                stays = kept[max(row, prompt - 1)]
                hidden = [column for column in image if column not in stays and column <= row]
                if len(hidden) == row + 1:
                    hidden.remove(row)
                scores[:, row, hidden] = float("-inf")
            return scores

        out = reference(ids, pixels, new, on_probabilities=choose, on_scores=hide).logits[-1]
        if chosen is not None:
            chosen.append(sorted(image.index(column) for column in kept[prompt + len(new) - 1]))
        return out

    def logits_after(new):
        return contrast_and_cut(reference(ids, pixels, new).logits[-1], disturbed(new), alpha, beta)

    return greedy(steps, logits_after)


def code(reference, ids, pixels, steps, description, power=0.7) -> Run:
    """description: token ids in place of the image."""
    image = positions(reference, ids)
    text = ids.tolist()
    text[min(image) : max(image) + 1] = description

    def logits_after(new):
        seen, records = reference(ids, pixels, new).logits[-1], reference(torch.tensor(text), None, new).logits[-1]
        p, q = seen.softmax(-1).tolist(), records.softmax(-1).tolist()
        far = sum(0.5 * (a + b) * math.log2(abs(a - b) ** power + 1) for a, b in zip(p, q, strict=True))
        out = (2 - far) * seen - (1 - far) * records
        for token, share in enumerate(p):
            if share < far * max(p):
                out[token] = float("-inf")
        return out

    return greedy(steps, logits_after)


def marine(reference, ids, pixels, steps, guided, gamma=0.7) -> Run:
    """guided: the whole prompt of the second branch."""

    def logits_after(new):
        plain, other = (reference(prompt, pixels, new).logits[-1].log_softmax(-1) for prompt in (ids, guided))
        mixed = [(1 - gamma) * float(a) + gamma * float(b) for a, b in zip(plain, other, strict=True)]
        level = math.log(sum(math.exp(value) for value in mixed))
        return torch.tensor([value - level for value in mixed], dtype=torch.float64)

    return greedy(steps, logits_after)
