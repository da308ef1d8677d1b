"""OPERA from its specification alone: a beam loop of its own, a full uncached pass for every candidate, plain lists.

It keeps the state before every step, and going back takes one of these up again. No end tokens.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from .reference_more import positions


@dataclass
class Beam:
    text: list[int]
    score: float
    votes: list[int]


@dataclass
class Found:
    tokens: list[int]
    returns: list[int] = field(default_factory=list)  # the step of each


def most(values: list[int]) -> int:
    counts = Counter(values)
    return min(value for value, count in counts.items() if count == max(counts.values()))


def block(reference, ids, pixels, text) -> tuple[list[list[float]], float]:
    """Attention among the new tokens, and the newest row's attention to the image."""
    heads = reference(ids, pixels, text).probabilities[-1]  # head query key
    prompt, image = len(ids), positions(reference, ids)
    rows = []
    for query in range(prompt, prompt + len(text)):
        largest = [max(float(head[query, key]) for head in heads) for key in range(query + 1)]
        rows.append([value / sum(largest) for value in largest])
    return [row[prompt:] for row in rows], sum(rows[-1][key] for key in image)


def judged(reference, ids, pixels, text, scale, first, official) -> tuple[float, int]:
    """ρ and column of a text whose last token is a candidate."""
    rows, mass = block(reference, ids, pixels, text)
    c = []
    for j in range(len(rows)):
        product = 1.0
        for i in range(j, len(rows)):
            product *= scale * rows[i][j]
        c.append(float(np.float16(1e-7 * product)) if official else 1e-7 * min(product, math.exp(80)))
    return (-mass if len(text) <= first else max(c)), c.index(max(c))


def normal(scores: list[float]) -> list[float]:
    top = max(scores)
    level = top + math.log(sum(math.exp(score - top) for score in scores))
    return [score - level for score in scores]


def opera(
    reference, ids, pixels, steps, beams=1, scale=50.0, candidates=5, weight=1.0, threshold=15, first_tokens=10,
    retries=None, mode="paper", logits=None,
) -> Found:  # fmt: skip
    """logits, a list, receives (step, the first beam's scores) of every step that is chosen."""
    official, retries = mode == "official", candidates if retries is None else retries
    now = [Beam([], 0.0 if b == 0 else -1e9, []) for b in range(beams)]
    before: dict[int, list[Beam]] = {}
    selected: dict[int, list[tuple[int, int]]] = {}
    rejected: dict[int, list[tuple[int, int]]] = {}
    votes_at: dict[int, list[int]] = {}
    visits, anew, found, step = Counter(), None, Found([]), 0
    while step < steps:
        before[step] = [Beam(list(beam.text), beam.score, list(beam.votes)) for beam in now]
        tables, votes = [], []
        for place, beam in enumerate(now):
            raw = reference(ids, pixels, beam.text).logits[-1].tolist()
            barred = [token for at, token in rejected.get(step, []) if at == place] if anew == step else []
            if anew == step and official:
                tables.append(normal([min(raw) if token in barred else value for token, value in enumerate(raw)]))
                votes.append(votes_at[step][place])
                continue
            order = sorted((token for token in range(len(raw)) if token not in barred), key=lambda t: -raw[t])
            table, columns = [-999.0 if official else -math.inf] * len(raw), []
            for token in order[:candidates]:
                rho, column = judged(reference, ids, pixels, [*beam.text, token], scale, first_tokens, official)
                table[token] = raw[token] - weight * rho
                columns.append(column)
            tables.append(normal(table))
            votes.append(most(columns))
        votes_at[step] = votes
        for beam, vote in zip(now, votes, strict=True):
            beam.votes.append(vote)
        summary = most(votes)
        if anew != step and summary >= first_tokens and all(b.votes.count(summary) > threshold for b in now):
            places = [at for at in (summary + 1, summary) if visits[at] < retries]
            if places:
                at = places[0]
                visits[at] += 1
                found.returns.append(at)
                rejected[at] = rejected.get(at, []) + selected[at]
                for later in [p for p in rejected if (p == at + 1 if official else p > at)]:
                    del rejected[later]
                now, step, anew = before[at], at, at
                continue
        if logits is not None:
            logits.append((step, tables[0]))
        anew = None if anew == step else anew
        sums = [(now[b].score + value, b, token) for b in range(beams) for token, value in enumerate(tables[b])]
        best = sorted(sums, key=lambda one: -one[0])[:beams]
        selected[step] = [(b, token) for _, b, token in best]
        old = [list(beam.votes) for beam in now]
        now = [
            Beam([*now[b].text, token], score, list(old[place if official else b]))
            for place, (score, b, token) in enumerate(best)
        ]
        step += 1
    found.tokens = now[0].text
    return found


