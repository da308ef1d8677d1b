"""Readings of attention that wait for the steps to come: of what they are, how often they are taken, what they hold."""

import gc
import weakref
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

import veridical
from veridical.pipelines import attention, postponed
from veridical.pipelines.attention import AttentionCall, Sequences
from veridical.pipelines.declarations import Reading
from veridical.pipelines.engine import run
from veridical.pipelines.record import Recorder

from ..parity.tiny import batch, prompt, tiny_llava

TOKENS = 2 * postponed.STEPS + 5
ROWS = 1e-6  # one product of several queries against one of each: rounding in float32


@pytest.fixture(scope="module", params=[8, 2], ids=["mha", "gqa"])
def tiny(request):
    model = tiny_llava(8, request.param)
    prompts = [prompt(model, 3, [50, 60, 77, 9, 100], 1), prompt(model, 6, [5, 6, 8, 9, 10, 11], 2)]
    return SimpleNamespace(lvlm=veridical.LVLM(model), inputs=batch(prompts))


def read(tiny, keep, later, layers=(0, 2), **options):
    """What a reading of the main rows keeps, (row, token, layer, ...), while TOKENS tokens are made."""
    recorder = Recorder(["mine"], later or postponed.Postponed())
    reading = Reading("mine", list(layers), keep=keep)
    options = {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS, "do_sample": False, **options}
    out, _, prompt = run(tiny.lvlm, tiny.inputs, [], [reading], observe=recorder, later=later, **options)
    return recorder.record(out[:, prompt:], torch.ones_like(out[:, prompt:]).bool(), torch.ones(2))["mine"]


def padded(call):
    """The rows of attention that produce tokens, with room for the keys to come: (row, token, head, key)."""
    rows = call.probabilities(call.producing).transpose(1, 2)
    return torch.nn.functional.pad(rows, (0, 64 + TOKENS - rows.shape[-1]))


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_what_waited_is_what_each_step_would_have_read(tiny, cache):
    at_once = read(tiny, padded, None, cache_implementation=cache)
    waited = read(tiny, padded, postponed.Postponed(), cache_implementation=cache)
    assert waited.shape == at_once.shape
    assert float((waited - at_once).abs().max()) <= ROWS
    assert float(at_once.std()) > 1e-3


def test_a_reading_is_taken_once_per_layer_and_sixteen_steps(tiny):
    taken = []

    def keep(call):
        taken.append((call.layer, call.producing))
        return padded(call)

    read(tiny, keep, postponed.Postponed())
    assert [layer for layer, _ in taken] == [0, 2] * 3
    assert [rows.stop - rows.start for _, rows in taken] == [16] * 4 + [5] * 2
    taken.clear()
    read(tiny, keep, None)
    assert len(taken) == 2 * TOKENS


def test_no_keys_are_held_from_one_pass_to_the_next(tiny, monkeypatch):
    """Every pass makes longer ones: to hold the old beside them would cost memory."""
    held, alive = [], []
    plain = attention._attention

    def watched(module, query, key, value, *args, **kwargs):
        if module.layer_idx == 0:
            gc.collect()
            alive.append(sum(one() is not None for one in held[:-1]))  # the last is the cache's until it has the new
            held.append(weakref.ref(key))
        return plain(module, query, key, value, *args, **kwargs)

    monkeypatch.setitem(attention.ALL_ATTENTION_FUNCTIONS, attention.NAME, watched)
    read(tiny, padded, postponed.Postponed())
    assert len(alive) == TOKENS
    assert max(alive) == 0


def test_a_reading_that_ignores_which_rows_produce_tokens_is_told_so(tiny):
    with pytest.raises(ValueError, match=r"'mine' gave \(2, 1, .* for 16 tokens: .* each row in call.producing"):
        read(tiny, lambda call: call.probabilities(slice(-1, None)).transpose(1, 2), postponed.Postponed())


# ---------------------------------------------------------------------- sums over keys


@dataclass(frozen=True)
class Masks:
    """Masks of every kind that a model hands over, for queries that are the last of the keys."""

    rows: int
    queries: int
    keys: int

    @property
    def every(self):
        i = torch.arange(self.keys - self.queries, self.keys)[:, None]
        seen = (torch.arange(self.keys) <= i)[None, None].expand(self.rows, -1, -1, -1).clone()
        padding = torch.ones(self.rows, self.keys, dtype=torch.long)
        padding[0, :3], seen[0, ..., :3] = 0, False
        added = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
        return {"bool": seen, "additive": added, "flash": padding, "none": None}


@pytest.mark.parametrize("kind", ["bool", "additive", "flash", "none"])
@pytest.mark.parametrize("cap", [None, 5.0])
@pytest.mark.parametrize("heads", [8, 2])
@pytest.mark.parametrize("queries", [1, 4])
def test_sums_over_keys_are_those_of_the_map(kind, cap, heads, queries):
    """1e-6: a fused kernel adds up in another order."""
    draw = torch.Generator().manual_seed(0)
    rows, keys, size = 3, 4 if kind == "none" and queries > 1 else 12, 16
    query = torch.randn(rows, 8, queries, size, generator=draw) * 3
    key, value = (torch.randn(rows, heads, keys, size, generator=draw) for _ in range(2))
    where = Sequences(torch.ones(rows, 4).bool(), torch.zeros(rows, 4).bool(), torch.arange(rows), seen=keys)
    call = AttentionCall(0, where, query, key, value, Masks(rows, queries, keys).every[kind], 0.25, cap)
    columns = torch.rand(rows, keys, 2, generator=draw)
    expected = torch.einsum("bhqk,bkc->bqhc", call.probabilities().double(), columns.double())
    assert float((call.sums(columns).double() - expected).abs().max()) <= ROWS
    last = slice(queries - 1, queries)
    assert float((call.sums(columns, last).double() - expected[:, last]).abs().max()) <= ROWS


def test_sums_in_half_precision_are_made_of_the_map():
    """A fused kernel would round the sums themselves to 8 bits."""
    draw = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, 2, 3, 16, generator=draw).bfloat16() for _ in range(2))
    where = Sequences(torch.ones(1, 3).bool(), torch.zeros(1, 3).bool(), torch.arange(1), seen=3)
    call = AttentionCall(0, where, query, key, key, None, 0.25)
    found = call.sums(torch.ones(1, 3, 1))
    assert found.dtype == torch.float32
    expected = call.probabilities().float().sum(-1).transpose(1, 2)
    assert torch.allclose(found[..., 0], expected, atol=1e-6)
