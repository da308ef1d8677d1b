"""Guided decoding against a hand-made loop: uncached passes, a draw by hand, the mean risk by hand, the same choice.

Both sides draw with the same seeded stream per candidate, so that texts are equal token by token. The tiny model's
distributions are wide, so that candidates differ; that they do, and that the first is not always the best, is asserted.
"""

import pytest
import torch

import veridical
from veridical.decoders.procedures.guided import STREAM, Guided
from veridical.pipelines.procedures import Call

from . import reference_methods as methods
from .reference_model import Reference
from .tiny import batch, prompt, tiny_llava

CANDIDATES, CHUNK, MOST, TEMPERATURE, TOP_P = 3, 3, 8, 0.9, 0.95
SEEDS = (11, 40)


@pytest.fixture(params=[(8, 8), (8, 2)], ids=["mha", "gqa"], scope="module")
def tiny(request):
    model = tiny_llava(*request.param)
    prompts = [prompt(model, 3, [50, 60, 77, 9, 100], 1), prompt(model, 6, [5, 6, 77, 8, 9, 10, 11], 2)]
    rows = [(one["input_ids"][0], one["pixel_values"]) for one in prompts]
    return veridical.LVLM(model), batch(prompts), rows, Reference(model)


def drawn(logits, generator):
    """Nucleus sampling: the likeliest tokens until their share reaches top-p; u picks by cumulated probability."""
    p, tokens = (logits.double() / TEMPERATURE).softmax(0).sort(descending=True)
    size = 1 + int((p.cumsum(0) < TOP_P).sum())
    kept = p[:size] / p[:size].sum()
    u = float(torch.rand((), generator=generator, dtype=torch.float64))
    return int(tokens[:size][int((kept.cumsum(0) <= u).sum())])


def entropy(reference, ids, pixels, text):
    p = [reference(ids, pixels, text[:k]).logits[-1].softmax(0) for k in range(len(text))]
    return torch.stack([-(q * q.log()).sum() for q in p])


def look_away(reference, ids, pixels, text):
    return 1 - methods.lookback(reference, ids, pixels, text).mean((1, 2))


def by_hand(reference, ids, pixels, seed, risk_of):
    """The kept text, its risks, and which candidate each round kept. Each candidate has one stream all the way."""
    streams = [torch.Generator().manual_seed(seed + number * STREAM) for number in range(CANDIDATES)]
    text, taken, differing = [], [], 0
    for start in range(0, MOST, CHUNK):
        chunks = []
        for stream in streams:
            chunk = []
            for _ in range(min(CHUNK, MOST - start)):
                chunk.append(drawn(reference(ids, pixels, text + chunk).logits[-1], stream))
            chunks.append(chunk)
        means = [float(risk_of(reference, ids, pixels, text + chunk)[start:].mean()) for chunk in chunks]
        taken.append(means.index(min(means)))
        differing += len({tuple(chunk) for chunk in chunks}) > 1
        text = text + chunks[taken[-1]]
    return text, risk_of(reference, ids, pixels, text), taken, differing


@pytest.mark.parametrize(("detector", "risk_of"), [("entropy", entropy), ("lookback_lens", look_away)])
def test_each_round_keeps_the_chunk_of_least_mean_risk_and_goes_on_from_it(tiny, detector, risk_of):
    lvlm, inputs, rows, reference = tiny
    guide = Guided(detector, CANDIDATES, CHUNK, TEMPERATURE, TOP_P)
    generation, rounds, other = guide.generate(Call(lvlm, (), (), None, {"max_new_tokens": MOST}), inputs, SEEDS)
    assert rounds == [3, 3]
    others = 0
    for row, (ids, pixels) in enumerate(rows):
        text, risks, taken, differing = by_hand(reference, ids, pixels, SEEDS[row], risk_of)
        assert differing == 3
        assert generation.ids[row].tolist() == text, f"row {row}"
        assert torch.allclose(generation.risk[detector][row].double(), risks, atol=1e-5)
        assert other[row] == sum(number != 0 for number in taken)
        others += other[row]
    assert others > 0
