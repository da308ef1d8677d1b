"""Reference decoders and readings, from the specifications alone: one full uncached pass per branch and token.

Slow on purpose. Loops stand where the package has tensors, so that a mistake cannot hide in both in the same shape.
Every decoder takes a Reference, one unpadded prompt and a number of steps, and returns a Run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .reference_model import Pass, Reference


@dataclass
class Run:
    """What a decoder chose and what it chose from: per step, logits after every contrast and cut."""

    tokens: list[int] = field(default_factory=list)
    steps: list[Tensor] = field(default_factory=list)

    @property
    def logits(self) -> Tensor:
        return torch.stack(self.steps)  # step vocab


def greedy(steps: int, logits_after: Callable[[list[int]], Tensor]) -> Run:
    """Take the arg-max `steps` times; `logits_after` maps the tokens so far to the processed logits of the next."""
    run = Run()
    for _ in range(steps):
        logits = logits_after(list(run.tokens))
        run.steps.append(logits)
        run.tokens.append(int(logits.argmax()))
    return run


def image_free(reference: Reference, ids: Tensor) -> Tensor:
    """The prompt with its image placeholders deleted; positions are counted anew from 0 (settled choice 4)."""
    return ids[~reference.image_mask(ids)]


def plain(reference: Reference, ids: Tensor, pixels: Tensor, steps: int) -> Run:
    return greedy(steps, lambda new: reference(ids, pixels, new).logits[-1])


# ---------------------------------------------------------------------- VCD


def diffuse(pixels: Tensor, step: int, noise: Tensor) -> Tensor:
    """sqrt(ā_t)·x + sqrt(1 − ā_t)·noise; t from 0, ā_t includes step t itself (settled choice 11)."""
    kept = 1.0
    for t in range(step + 1):
        u = -6 + 12 * t / 999
        kept *= 1 - ((0.005 - 1e-5) / (1 + math.exp(-u)) + 1e-5)
    return math.sqrt(kept) * pixels + math.sqrt(1 - kept) * noise


def contrast_and_cut(logits: Tensor, other: Tensor, alpha: float, beta: float) -> Tensor:
    """(1 + α)·l − α·l*, and −inf where l < max l + ln β, tested on the raw l; β = 0 cuts nothing."""
    mixed = (1 + alpha) * logits - alpha * other
    if beta == 0:
        return mixed
    line = float(logits.max()) + math.log(beta)
    for token in range(len(mixed)):
        if float(logits[token]) < line:
            mixed[token] = -math.inf
    return mixed


def vcd(reference, ids, pixels, steps, pixels_noised, alpha=1.0, beta=0.1) -> Run:
    def logits_after(new):
        clean = reference(ids, pixels, new).logits[-1]
        noised = reference(ids, pixels_noised, new).logits[-1]
        return contrast_and_cut(clean, noised, alpha, beta)

    return greedy(steps, logits_after)


# ---------------------------------------------------------------------- VAR


def phi(x: Tensor, dims: Sequence[int]) -> float:
    """Largest |x[d]| over the sink dimensions, in units of the root mean square. x: (hidden,)"""
    root_mean_square = math.sqrt(float((x * x).mean()) + 1e-6)
    return max(abs(float(x[dim])) for dim in dims) / root_mean_square


def redistribute(
    row: Tensor,
    image: Tensor,
    sinks: Tensor,
    move: float = 0.6,
    min_nonsink: float = 0.5,
    min_image: float = 0.2,
    require_visual_sink: bool = False,
) -> Tensor:
    """One attention row with part of its sinks' share given to the image tokens that are none. All: (key,)"""
    shares, is_image, is_sink = row.tolist(), image.tolist(), sinks.tolist()
    keys = range(len(shares))
    seen = [k for k in keys if is_image[k] and not is_sink[k]]
    drained = [k for k in keys if is_sink[k]]
    if require_visual_sink and not any(is_image[k] for k in drained):
        return row
    mass = sum(shares[k] for k in keys if is_image[k])
    seen_mass = sum(shares[k] for k in seen)
    if mass < min_image or seen_mass <= 0 or seen_mass / mass < min_nonsink:
        return row
    budget = move * sum(shares[k] for k in drained)
    edited = list(shares)
    for k in drained:
        edited[k] = (1 - move) * shares[k]
    for k in seen:
        edited[k] = shares[k] + budget * shares[k] / seen_mass
    return row.new_tensor(edited)


def var_sinks(reference, ids, pixels, sink_dims, tau=20.0, skip_first=2) -> Tensor:
    """Sinks of the plain prompt: (layer, position) bool; none in the first `skip_first` layers."""
    entering = reference(ids, pixels).inputs
    found = torch.zeros(reference.layers, len(ids), dtype=torch.bool)
    for layer in range(skip_first, reference.layers):
        for position in range(len(ids)):
            found[layer, position] = phi(entering[layer][position], sink_dims) >= tau
    return found


def var(
    reference, ids, pixels, steps, sink_dims, move=0.6, min_nonsink=0.5, min_image=0.2, tau=20.0,
    skip_first=2, skip_last=True, require_visual_sink=False, edited_rows: list | None = None,
) -> Run:  # fmt: skip
    """VAR. `edited_rows`, a list, receives (layer, head, query) of every row that was changed, of every pass."""
    sinks = var_sinks(reference, ids, pixels, sink_dims, tau, skip_first)
    image = reference.image_mask(ids)
    after_image = int(image.nonzero().max()) + 1

    def edit(layer: int, probabilities: Tensor) -> Tensor:
        if skip_last and layer == reference.layers - 1:
            return probabilities
        length = probabilities.shape[-1]
        padding = torch.zeros(length - len(ids), dtype=torch.bool)  # generated tokens: neither image nor sink
        row_image, row_sinks = torch.cat([image, padding]), torch.cat([sinks[layer], padding])
        edited = probabilities.clone()
        for head in range(reference.n_heads):
            for query in range(after_image, length):
                row = probabilities[head, query]
                changed = redistribute(row, row_image, row_sinks, move, min_nonsink, min_image, require_visual_sink)
                if edited_rows is not None and not torch.equal(changed, row):
                    edited_rows.append((layer, head, query))
                edited[head, query] = changed
        return edited

    return greedy(steps, lambda new: reference(ids, pixels, new, on_probabilities=edit).logits[-1])


# ---------------------------------------------------------------------- VHR


def divergence(with_image: Tensor, without: Tensor) -> Tensor:
    """VHD, Eq. 4: Euclidean distance of head outputs. Both: (head, head_dim) -> (head,)"""
    return ((with_image - without) ** 2).sum(-1).sqrt()


def choose_heads(vhd: Tensor, without_energy: Tensor, outlier_filter: bool = True) -> list[int]:
    """Heads above the layer's median divergence, after zeroing outliers (Eq. 6–7, settled choice 5).

    vhd, without_energy: (head,); the second is the squared norm of the image-free output.
    """
    scores = [float(value) for value in vhd]
    energies = [float(value) for value in without_energy]

    def line(values):  # mean + sample standard deviation
        mean = sum(values) / len(values)
        return mean + math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))

    if outlier_filter:
        high, loud = line(scores), line(energies)
        scores = [0.0 if s > high and e > loud else s for s, e in zip(scores, energies, strict=True)]
    ordered, n = sorted(scores), len(scores)
    median = ordered[n // 2] if n % 2 else (ordered[n // 2 - 1] + ordered[n // 2]) / 2
    return [head for head, score in enumerate(scores) if score > median]


def reinforce(chosen: dict[int, list[int]], alpha: float) -> Callable[[int, Tensor], Tensor]:
    """A callback for `on_heads`: every position of the chosen heads times α."""

    def scale(layer: int, heads: Tensor) -> Tensor:
        gains = torch.ones(heads.shape[1], dtype=heads.dtype)
        gains[chosen.get(layer, [])] = alpha
        return heads * gains[:, None]

    return scale


def vhr_heads(reference, ids, pixels, layers, alpha=2.0, outlier_filter=True) -> dict[int, list[int]]:
    """Layer by layer: two full passes per layer, both with what earlier layers chose already reinforced."""
    chosen: dict[int, list[int]] = {}
    for layer in sorted(layers):
        so_far = reinforce(chosen, alpha)
        with_image = reference(ids, pixels, on_heads=so_far).heads[layer][-1]
        without = reference(image_free(reference, ids), on_heads=so_far).heads[layer][-1]
        chosen[layer] = choose_heads(divergence(with_image, without), (without**2).sum(-1), outlier_filter)
    return chosen


def vhr(reference, ids, pixels, steps, layers, alpha=2.0, outlier_filter=True) -> Run:
    scale = reinforce(vhr_heads(reference, ids, pixels, layers, alpha, outlier_filter), alpha)
    return greedy(steps, lambda new: reference(ids, pixels, new, on_heads=scale).logits[-1])


# ---------------------------------------------------------------------- VISTA


def steer_paper(h: Tensor, v: Tensor, strength: float) -> Tensor:
    """(h + λv)·‖h‖/‖h + λv‖, one position. h, v: (hidden,)"""
    moved = h + strength * v
    return moved * (torch.linalg.vector_norm(h) / torch.linalg.vector_norm(moved))


def steer_official(m: Tensor, v: Tensor, strength: float) -> Tensor:
    """The released code's rotation of one MLP output: float32 at least, cast back. m, v: (hidden,)"""
    wide = torch.promote_types(m.dtype, torch.float32)
    a, b = m.to(wide), v.to(wide)
    size, length = float(torch.linalg.vector_norm(a)), float(torch.linalg.vector_norm(b))
    if size == 0 or length == 0:
        return m
    cosine = float(a @ b) / (size * length)
    direction = a / size + strength * (1 + max(0.0, -cosine)) * b / length
    if float(torch.linalg.vector_norm(direction)) == 0:
        return m
    return (size * direction / torch.linalg.vector_norm(direction)).to(m.dtype)


def pca_artefact(vectors: Tensor) -> Tensor:
    """One-sample PCA adds the first basis vector: +1 at layer 0, dimension 0. (layer, hidden)"""
    spoiled = vectors.clone()
    spoiled[0, 0] += 1
    return spoiled


def steering_vectors(reference, ids, pixels) -> Tensor:
    """(layer, hidden): block outputs at the last prompt position, with image minus without, unsteered."""
    with_image = reference(ids, pixels).blocks
    without = reference(image_free(reference, ids)).blocks
    return torch.stack([a[-1] - b[-1] for a, b in zip(with_image, without, strict=True)])


def steering(reference, ids, pixels, strength: float, mode: str) -> dict[str, Callable]:
    """The callback that steers, as keyword for Reference: `on_block` (paper) or `on_mlp` (official)."""
    vectors = steering_vectors(reference, ids, pixels)
    if mode == "paper":
        steer, site = steer_paper, "on_block"
    elif mode == "official":
        steer, site, vectors = steer_official, "on_mlp", pca_artefact(vectors)
    else:
        raise ValueError(f"mode {mode!r}: paper or official.")
    return {site: lambda layer, rows: torch.stack([steer(row, vectors[layer], strength) for row in rows])}


def augment(logits: Tensor, early: Sequence[Tensor], gamma: float) -> Tensor:
    """(1 − γ)·o + γ·mean of the early logits. All: (vocab,)"""
    return (1 - gamma) * logits + gamma * torch.stack(list(early)).mean(0)


def window_blocks(layers: int, window: int | tuple[int, int]) -> list[int]:
    """Which blocks SLA reads: a count below the last (paper), or an inclusive 0-based pair (official)."""
    first, last = (layers - 1 - window, layers - 2) if isinstance(window, int) else window
    if not 0 <= first <= last <= layers - 2:
        raise ValueError(f"window {window} of {layers} layers reaches outside blocks 0 to {layers - 2}.")
    return list(range(first, last + 1))


def sla_logits(reference: Reference, done: Pass, gamma, window, final_norm) -> Tensor:
    early = []
    for block in window_blocks(reference.layers, window):
        state = done.blocks[block][-1]
        early.append(reference.lm_head(reference.final_norm(state) if final_norm else state))
    return augment(done.logits[-1], early, gamma)


def vsv(reference, ids, pixels, steps, strength=0.17, mode="paper") -> Run:
    steer = steering(reference, ids, pixels, strength, mode)
    return greedy(steps, lambda new: reference(ids, pixels, new, **steer).logits[-1])


def sla(reference, ids, pixels, steps, gamma=0.3, window=5, final_norm=False) -> Run:
    return greedy(steps, lambda new: sla_logits(reference, reference(ids, pixels, new), gamma, window, final_norm))


def vista(reference, ids, pixels, steps, strength=0.17, gamma=0.3, window=5, mode="paper", final_norm=False) -> Run:
    steer = steering(reference, ids, pixels, strength, mode)

    def logits_after(new):
        return sla_logits(reference, reference(ids, pixels, new, **steer), gamma, window, final_norm)

    return greedy(steps, logits_after)


# ---------------------------------------------------------------------- readings


def ratio(row: Tensor, context: Sequence[int], new: Sequence[int]) -> float:
    """Mean attention to the context over the sum of both means. row: (key,)"""
    c = sum(float(row[k]) for k in context) / len(context)
    g = sum(float(row[k]) for k in new) / len(new)
    return c / (c + g)


def lookback(reference, ids, pixels, new: Sequence[int], context: str = "image") -> Tensor:
    """(token, layer, head) lookback ratios of the rows that produced `new` (settled choice 13)."""
    image = reference.image_mask(ids).nonzero().flatten().tolist()
    searched = image if context == "image" else list(range(len(ids)))
    ratios = torch.ones(len(new), reference.layers, reference.n_heads, dtype=torch.float64)
    for token in range(len(new)):
        if token == 0 and context == "prompt":
            continue  # defined as 1
        recent = range(len(ids), len(ids) + token) if token else range(max(image) + 1, len(ids))
        maps = reference(ids, pixels, new[:token]).probabilities
        for layer in range(reference.layers):
            for head in range(reference.n_heads):
                ratios[token, layer, head] = ratio(maps[layer][head, -1], searched, recent)
    return ratios


def vhd(reference, ids, pixels, new: Sequence[int]) -> Tensor:
    """(token, layer, head) divergence of the rows that produced `new`, teacher-forced (settled choice 14)."""
    tokens = []
    for token in range(len(new)):
        with_image = reference(ids, pixels, new[:token]).heads
        without = reference(image_free(reference, ids), None, new[:token]).heads
        tokens.append(torch.stack([divergence(a[-1], b[-1]) for a, b in zip(with_image, without, strict=True)]))
    return torch.stack(tokens)


def t_vhd(scores: Tensor, k: int | None = None) -> Tensor:
    """Sum over layers of the k largest heads; k is half of the heads unless given. (..., layer, head) -> (...)"""
    k = scores.shape[-1] // 2 if k is None else k
    return scores.sort(dim=-1, descending=True).values[..., :k].sum(dim=(-2, -1))
