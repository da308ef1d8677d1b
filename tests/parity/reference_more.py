"""Further reference decoders, from the specifications and the released code alone: one full uncached pass per branch.

As in `reference_methods`: slow on purpose, one unpadded prompt at a time, loops where the package has tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .reference_methods import Run, contrast_and_cut, greedy, image_free
from .reference_model import Pass, Reference, Tap


class Scored(Reference):
    """A Reference whose attention scores, (head, query, key) before the softmax, can be changed by `on_scores`."""

    def __call__(self, *given, on_scores: Tap | None = None, **taps) -> Pass:
        self.on_scores, self.layer = on_scores, -1
        return super().__call__(*given, **taps)

    def attention_probabilities(self, query: Tensor, key: Tensor) -> Tensor:
        self.layer += 1
        scores = torch.einsum("qhd,khd->hqk", query, key) / self.head_dim**0.5
        later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(later, -math.inf)
        if self.on_scores is not None:
            scores = self.on_scores(self.layer, scores)
        return scores.softmax(dim=-1)


def cut(mixed: Tensor, raw: Tensor, beta: float) -> Tensor:
    """−inf where raw < max raw + ln β; β = 0 cuts nothing. Both: (vocab,)"""
    if beta == 0:
        return mixed
    line = float(raw.max()) + math.log(beta)
    return torch.stack(
        [m if float(r) >= line else torch.full_like(m, -math.inf) for m, r in zip(mixed, raw, strict=True)]
    )


def image_attention(done: Pass, image: Sequence[int]) -> list[list[float]]:
    """Per layer: the last row's attention to every image token, mean over heads."""
    return [[float(layer[:, -1, k].mean()) for k in image] for layer in done.probabilities]


def positions(reference: Reference, ids: Tensor) -> list[int]:
    return reference.image_mask(ids).nonzero().flatten().tolist()


# ---------------------------------------------------------------------- AVC


def layers_with_image_mass(masses: Sequence[float], gamma: float) -> list[int]:
    order = sorted(range(len(masses)), key=lambda layer: -masses[layer])
    total, reached, chosen = sum(masses), 0.0, []
    for layer in order:
        chosen.append(layer)
        reached += masses[layer] / total
        if not reached < gamma:
            break
    return sorted(chosen)


def without_image(attention: Sequence[float], lam: float) -> list[int]:
    mean = sum(attention) / len(attention)
    sigma = math.sqrt(sum((a - mean) ** 2 for a in attention) / (len(attention) - 1))
    return [j for j, a in enumerate(attention) if a >= mean + lam * sigma]


def without_image_positions(reference: Reference, ids: Tensor, pixels: Tensor, gamma: float, lam: float) -> list[int]:
    image = positions(reference, ids)
    per_layer = image_attention(reference(ids, pixels), image)
    chosen = layers_with_image_mass([sum(row) for row in per_layer], gamma)
    mean = [sum(per_layer[layer][j] for layer in chosen) / len(chosen) for j in range(len(image))]
    return [image[j] for j in without_image(mean, lam)]


def blanked_logits(
    reference: Reference, ids: Tensor, pixels: Tensor, new: list[int], gone: Sequence[int], blank: str,
    noise: Callable[[int], Tensor] | None = None,
) -> Tensor:  # fmt: skip
    """Logits of a pass in which these image positions are blanked. noise: how many rows -> (rows, hidden)"""

    def first(layer: int, hidden: Tensor) -> Tensor:
        if layer == 0:
            hidden = hidden.clone()
            drawn = noise(len(gone)) if blank == "noise" else None
            for n, position in enumerate(gone):
                hidden[position] = {"zeros": 0.0, "ones": 1.0}[blank] if drawn is None else drawn[n].to(hidden)
        return hidden

    def unseen(layer: int, scores: Tensor) -> Tensor:
        scores = scores.clone()
        scores[:, :, list(gone)] = -math.inf
        return scores

    if blank == "mask":
        return reference(ids, pixels, new, on_scores=unseen).logits[-1]
    return reference(ids, pixels, new, on_input=first).logits[-1]


def avc(reference, ids, pixels, steps, alpha=2.5, beta=0.1, gamma=0.5, lam=1.0, blank="zeros", noise=None) -> Run:
    kept = without_image_positions(reference, ids, pixels, gamma, lam)
    gone = [position for position in positions(reference, ids) if position not in kept]

    def logits_after(new):
        whole = reference(ids, pixels, new).logits[-1]
        other = blanked_logits(reference, ids, pixels, new, gone, blank, noise)
        return contrast_and_cut(whole, other, alpha, beta)

    return greedy(steps, logits_after)


# ---------------------------------------------------------------------- AGLA


def agla(reference, ids, pixels, steps, masked, alpha=2.0, beta=0.5, official=False) -> Run:
    """official: the released sampler, whose second branch runs on the first one's cache after the first token."""

    def logits_after(new):
        whole = reference(ids, pixels, new).logits[-1]
        local = whole if official and new else reference(ids, masked, new).logits[-1]
        return cut(whole + alpha * local, whole, beta)

    return greedy(steps, logits_after)


# ---------------------------------------------------------------------- RBD


def rbd(reference, ids, pixels, steps, noised, visual=0.5, textual=1.0, beta=0.1, keep=0.5) -> Run:
    image = positions(reference, ids)
    per_layer = image_attention(reference(ids, pixels), image)
    mean = [sum(row[j] for row in per_layer) / len(per_layer) for j in range(len(image))]
    ranked = sorted(range(len(image)), key=lambda j: -mean[j])
    gone = [image[j] for j in ranked[math.ceil(keep * len(image)) :]]

    def logits_after(new):
        whole = reference(ids, pixels, new).logits[-1]
        with_image = blanked_logits(reference, ids, pixels, new, gone, "zeros")
        reading = reference(ids, noised, new).logits[-1]
        return cut(whole + visual * (with_image - whole) + textual * (whole - reading), whole, beta)

    return greedy(steps, logits_after)


# ---------------------------------------------------------------------- ICD, M3ID


def icd(reference, ids, pixels, steps, prefix, alpha=1.0, beta=0.1, blanks=0) -> Run:
    """`blanks`: tokens of white space between the image and the question, which stay in front of the prefix."""
    behind = max(positions(reference, ids)) + 1 + blanks
    disturbed = torch.cat([ids[:behind], torch.tensor(list(prefix), dtype=ids.dtype), ids[behind:]])

    def logits_after(new):
        other = reference(disturbed, pixels, new).logits[-1]
        return contrast_and_cut(reference(ids, pixels, new).logits[-1], other, alpha, beta)

    return greedy(steps, logits_after)


def m3id(reference, ids, pixels, steps, lam=0.02, beta=0.1, gate=1.0) -> Run:
    without_image_ids = image_free(reference, ids)

    def logits_after(new):
        whole = reference(ids, pixels, new).logits[-1]
        s, u = whole.log_softmax(0), reference(without_image_ids, None, new).logits[-1].log_softmax(0)
        forgotten = math.exp(-lam * (len(new) + 1))
        weight = (1 - forgotten) / forgotten if gate == 1 or float(s.max()) < math.log(gate) else 0.0
        return cut(s + weight * (s - u), whole, beta)

    return greedy(steps, logits_after)


# ---------------------------------------------------------------------- PAI, imbalanced attention


def boosted(reference: Scored, ids: Tensor, gains: dict[int, float], skip_first: int) -> Tap:
    """z + gain·|z| for these key positions, in rows from the last prompt token on, in layers from `skip_first` on."""

    def edit(layer: int, scores: Tensor) -> Tensor:
        if layer < skip_first:
            return scores
        scores = scores.clone()
        for row in range(len(ids) - 1, scores.shape[1]):
            for position, gain in gains.items():
                z = scores[:, row, position]
                scores[:, row, position] = z + gain * z.abs()
        return scores

    return edit


def guided(reference, ids, pixels, steps, gains, gamma, beta, skip_first) -> Run:
    edit, without_image_ids = boosted(reference, ids, gains, skip_first), image_free(reference, ids)

    def logits_after(new):
        whole = reference(ids, pixels, new, on_scores=edit).logits[-1]
        s = whole.log_softmax(0)
        if gamma == 1:
            return s
        u = reference(without_image_ids, None, new).logits[-1].log_softmax(0)
        return cut(gamma * (s - u) + u, s, beta)

    return greedy(steps, logits_after)


def pai(reference, ids, pixels, steps, alpha=0.2, gamma=1.1, beta=0.1, skip_first=2) -> Run:
    gains = dict.fromkeys(positions(reference, ids), alpha)
    return guided(reference, ids, pixels, steps, gains, gamma, beta, skip_first)


def percentile(values: Sequence[float], share: float) -> float:
    """Between the neighbours in proportion, as numpy does by default."""
    ordered, at = sorted(values), share * (len(values) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


def token_sets(early: Sequence[float], late: Sequence[float], ratio: float) -> tuple[list[int], list[int]]:
    """(local, summary) patches of one image, by the class token's attention in an early and a late layer."""
    q1, q3 = percentile(late, 0.25), percentile(late, 0.75)
    summary = [p for p, a in enumerate(late) if a > q3 + 1.5 * (q3 - q1)]
    ranked = sorted(range(len(early)), key=lambda p: -early[p])
    return [p for p in ranked[: math.floor(len(early) * ratio)] if p not in summary], summary


def imbalanced(
    reference, ids, pixels, steps, early, late, local=0.7, summary=0.4, ratio=0.25, gamma=1.1, beta=0.1, skip_first=2
) -> Run:
    on_local, on_summary = token_sets(early, late, ratio)
    image = positions(reference, ids)
    gains = {image[p]: local for p in on_local} | {image[p]: summary for p in on_summary}
    return guided(reference, ids, pixels, steps, gains, gamma, beta, skip_first)


# ---------------------------------------------------------------------- DoLa, DeCo


def kl(p: Tensor, q: Tensor) -> float:
    return sum(float(a) * math.log(float(a) / float(b)) for a, b in zip(p, q, strict=True) if float(a) > 0)


def layer_distance(p: Tensor, q: Tensor, mode: str) -> float:
    m = (p + q) / 2
    return (kl(p, m) + kl(q, m)) / 2 if mode == "paper" else (kl(m, p) + kl(m, q)) / 2


def dola(reference, ids, pixels, steps, layers, relative_top=0.1, final_norm=False, mode="paper", chosen=None) -> Run:
    """`chosen`, a list, receives the layer that each step contrasted with."""

    def logits_after(new):
        done = reference(ids, pixels, new)
        s = done.logits[-1].log_softmax(0)
        early = {}
        for layer in layers:
            state = done.inputs[layer][-1]
            early[layer] = reference.lm_head(reference.final_norm(state) if final_norm else state).log_softmax(0)
        distances = {layer: layer_distance(s.exp(), early[layer].exp(), mode) for layer in layers}
        furthest = max(distances.values())
        best = next(layer for layer, one in distances.items() if one >= (1 - 1e-5) * furthest)  # ties: the first
        if chosen is not None:
            chosen.append(best)
        return cut(s - early[best], s, relative_top)

    return greedy(steps, logits_after)


def likely(p: Sequence[float], top_p: float, top_k: int) -> list[int]:
    """Tokens from the most probable on, until they hold top_p together or are top_k."""
    kept, total = [], 0.0
    for token in sorted(range(len(p)), key=lambda v: -p[v])[:top_k]:
        kept.append(token)
        total += p[token]
        if total >= top_p:
            break
    return kept


def deco(reference, ids, pixels, steps, blocks, alpha=0.6, top_p=0.9, top_k=20, chosen=None) -> Run:
    def logits_after(new):
        done = reference(ids, pixels, new)
        last = done.logits[-1]
        allowed = likely(last.softmax(0).tolist(), top_p, top_k)
        most, best, anchor = -1.0, None, None
        for block in blocks:
            early = reference.lm_head(reference.final_norm(done.blocks[block][-1]))
            surest = max(float(early.softmax(0)[v]) for v in allowed)
            if surest > most:
                most, best, anchor = surest, block, early
        if chosen is not None:
            chosen.append(best)
        out = torch.full_like(last, -math.inf)
        for v in allowed:
            out[v] = last[v] + alpha * most * anchor[v]
        return out

    return greedy(steps, logits_after)


# ---------------------------------------------------------------------- HELPD


def product(values) -> float:
    out = 1.0
    for value in values:
        out *= value
    return out


def helpd(
    reference, ids, pixels, steps, weight=1.0, vision_weight=1.0, candidates=5, scale=50.0, vision_scale=100.0,
    window=10, first_tokens="opera",
) -> Run:  # fmt: skip
    image, prompt = positions(reference, ids), len(ids)

    def rho(new: list[int]) -> float:
        attention = reference(ids, pixels, new).probabilities[-1].max(0).values  # head query key -> query key
        rows = list(range(prompt, prompt + len(new)))
        share = lambda i, k: float(attention[i, k] / attention[i].sum())
        if first_tokens == "opera" and len(new) <= 10:
            return -sum(share(rows[-1], k) for k in image)
        rows = rows[-window:]
        text = max(1e-7 * product(scale * share(i, j) for i in rows if i >= j) for j in rows)
        seen = sum(1e-7 * product(vision_scale * share(i, k) for i in rows) for k in image)
        return text - vision_weight * seen

    def logits_after(new):
        last = reference(ids, pixels, new).logits[-1]
        out = torch.full_like(last, -math.inf)
        for token in last.topk(candidates).indices.tolist():
            out[token] = last[token] - weight * rho([*new, token])
        return out

    return greedy(steps, logits_after)
