"""Readings of attention that wait for the steps to come: of what they are, how often they are taken, what they hold."""

import gc
import weakref
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

import veridical
from veridical.detectors.dhcp import DHCP
from veridical.pipelines.engine import attention, deferred_readings, record
from veridical.pipelines.engine import call as calls
from veridical.pipelines.engine.call import AttentionCall, Sequences
from veridical.pipelines.engine.declarations import Reading
from veridical.pipelines.engine.record import Recorder, real
from veridical.pipelines.engine.run import Observers, run
from veridical.pipelines.generate import teacher_force

from ...parity.tiny import batch, prompt, tiny_llava

TOKENS = 2 * deferred_readings.STEPS + 5
ROWS = 1e-6  # one product of several queries against one of each: rounding in float32


@pytest.fixture(scope="module", params=[8, 2], ids=["mha", "gqa"])
def tiny(request):
    model = tiny_llava(8, request.param)
    prompts = [prompt(model, 3, [50, 60, 77, 9, 100], 1), prompt(model, 6, [5, 6, 8, 9, 10, 11], 2)]
    return SimpleNamespace(lvlm=veridical.LVLM(model), inputs=batch(prompts))


def read(tiny, keep, later, layers=(0, 2), **options):
    """What a reading of the main rows keeps, (row, token, layer, ...), while TOKENS tokens are made."""
    recorder = Recorder(["mine"], later or deferred_readings.DeferredReadings())
    reading = Reading("mine", list(layers), keep=keep)
    options = {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS, "do_sample": False, **options}
    out, _, prompt = run(tiny.lvlm, tiny.inputs, [], Observers([reading], recorder, later), **options)
    return recorder.record(out[:, prompt:], torch.ones_like(out[:, prompt:]).bool(), torch.ones(2).long())["mine"]


def padded(call):
    """The rows of attention that produce tokens, with room for the keys to come: (row, token, head, key)."""
    rows = call.probabilities(call.producing).transpose(1, 2)
    return torch.nn.functional.pad(rows, (0, 64 + TOKENS - rows.shape[-1]))


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_what_waited_is_what_each_step_would_have_read(tiny, cache):
    at_once = read(tiny, padded, None, cache_implementation=cache)
    waited = read(tiny, padded, deferred_readings.DeferredReadings(), cache_implementation=cache)
    assert waited.shape == at_once.shape
    assert float((waited - at_once).abs().max()) <= ROWS
    assert float(at_once.std()) > 1e-3


def test_a_reading_is_taken_once_per_layer_and_thirty_two_steps(tiny):
    taken = []

    def keep(call):
        taken.append((call.layer, call.producing))
        return padded(call)

    read(tiny, keep, deferred_readings.DeferredReadings())
    assert [layer for layer, _ in taken] == [0, 2] * 3
    assert [rows.stop - rows.start for _, rows in taken] == [32] * 4 + [5] * 2
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
    gc.freeze()  # what there is already need not be looked through in every pass
    try:
        read(tiny, padded, deferred_readings.DeferredReadings())
    finally:
        gc.unfreeze()
    assert len(alive) == TOKENS
    assert max(alive) == 0


def test_a_reading_that_ignores_which_rows_produce_tokens_is_told_so(tiny):
    keep = lambda call: call.probabilities(slice(-1, None)).transpose(1, 2)
    with pytest.raises(ValueError, match=r"'mine' gave \(2, 1, .* for 32 tokens: .* each row in call.producing"):
        read(tiny, keep, deferred_readings.DeferredReadings())


def test_layers_that_differ_wait_apart_and_come_out_as_they_went_in():
    later, steps, draw = deferred_readings.DeferredReadings(), deferred_readings.STEPS, torch.Generator().manual_seed(0)
    kinds = {0: (4, torch.float32), 3: (8, torch.float32), 5: (4, torch.bfloat16), 6: (4, torch.float32)}
    for layer in kinds:
        later.of(layer, [])
    drawn = lambda heads, kind: torch.randn(steps, 2, heads, 1, 16, generator=draw).to(kind)
    went = {layer: drawn(*kind) for layer, kind in kinds.items()}
    for step in range(steps):
        for layer, waiting in later.layers.items():
            waiting.hold((None, None, went[layer][step], None, None, None, None, {}))
        later.release()
    came = {waiting.layer: queries for room in later.blocks for waiting, queries in room.take()}
    assert len(later.blocks) == 3
    assert came.keys() == went.keys()
    for layer, queries in came.items():
        assert queries.dtype == kinds[layer][1]
        assert torch.equal(queries, went[layer][:, :, :, 0].permute(1, 2, 0, 3))


@pytest.mark.parametrize("losing", [(0,), (0, 2)], ids=["one_layer", "every_layer"])
def test_keys_that_go_before_they_were_read_are_told_and_not_left_out(tiny, losing, monkeypatch):
    """A cache that forgets in the middle of a run without a window that says so: the third pass has too few keys."""
    plain, passes = attention._attention, {0: 0, 2: 0}

    def forgetting(module, query, key, value, mask, *args, **kwargs):
        passes[module.layer_idx] += 1
        if module.layer_idx in losing and passes[module.layer_idx] >= 3:
            key, value, mask = key[:, :, 4:], value[:, :, 4:], mask[..., 4:] if mask is not None else None
        return plain(module, query, key, value, mask, *args, **kwargs)

    monkeypatch.setitem(attention.ALL_ATTENTION_FUNCTIONS, attention.NAME, forgetting)
    keep = lambda call: call.probabilities(call.producing)[..., :4].transpose(1, 2)
    with pytest.raises(RuntimeError, match=r"let keys go in the middle of a run.* use a cache that keeps them"):
        read(tiny, keep, deferred_readings.DeferredReadings())


def test_one_query_goes_straight_to_torch_where_the_layers_own_function_adds_nothing(tiny, monkeypatch):
    """Not where heads share keys, nor with an argument that may mean something to it, nor where it is another's."""
    straight, torchs = [], attention.scaled_dot_product_attention

    def counting(query, *args, **kwargs):
        straight.append(query.shape[2])
        return torchs(query, *args, **kwargs)

    def logits():
        straight.clear()
        looks, later = Reading("mine", [0, 2], keep=padded), deferred_readings.DeferredReadings()
        options = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
        _, fold, _ = run(tiny.lvlm, tiny.inputs, [], Observers([looks], deferred=later), return_logits=True, **options)
        return torch.stack(fold.logits, 1), straight.copy()

    monkeypatch.setattr(attention, "scaled_dot_product_attention", counting)
    expected, calls = logits()
    shared = tiny.lvlm.model.config.text_config.num_key_value_heads < 8
    assert calls == ([] if shared else [1] * 8), "two layers in each of the four passes after the prompt's"
    with monkeypatch.context() as other:
        other.setattr(attention, "UNUSED", frozenset())
        found, calls = logits()
    assert calls == []
    assert torch.equal(found, expected)
    requests, own = [], attention.ALL_ATTENTION_FUNCTIONS["sdpa"]
    another = lambda module, *args, **kwargs: requests.append(module) or own(module, *args, **kwargs)
    monkeypatch.setitem(attention.ALL_ATTENTION_FUNCTIONS, "sdpa", another)
    found, calls = logits()
    assert calls == []
    assert requests.count(tiny.lvlm.layers[0].self_attn) == 5
    assert torch.equal(found, expected)


def test_a_layers_own_scaling_reaches_torch(tiny, monkeypatch):
    """Llama's is torch's default, and would not be missed."""
    options = {"return_logits": True, "max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    usual = veridical.generate(tiny.lvlm, tiny.inputs, **options).logits
    monkeypatch.setattr(tiny.lvlm.layers[0].self_attn, "scaling", 2.0)
    plain = veridical.generate(tiny.lvlm, tiny.inputs, **options).logits
    read_along = veridical.generate(tiny.lvlm, tiny.inputs, [], ["lookback_lens"], **options).logits
    assert torch.equal(read_along, plain)
    assert float((plain - usual).abs().max()) > 1e-3


# ---------------------------------------------------------------------- totals over a text


def total(call):
    """The rows of `padded` added up over the real tokens: (row, 1, head, key)."""
    return (padded(call) * call.real[:, :, None, None]).sum(1, keepdim=True)


@pytest.mark.parametrize("later", [True, False], ids=["waiting", "at_once"])
def test_a_total_is_over_the_tokens_up_to_the_end_of_each_text(tiny, later):
    """The first text ends before the first readings are taken; the second has no end, or a later one."""
    built, _, prompt = run(tiny.lvlm, tiny.inputs, [], max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False)
    first, second = built[:, prompt:].tolist()
    end = next(token for token in first[4:20] if token not in second[: deferred_readings.STEPS + 2])
    options = {"max_new_tokens": TOKENS, "do_sample": False, "eos_token_id": end}
    taken = []
    for keep, totals in ((padded, ()), (total, ("mine",))):
        recorder = Recorder(["mine"], deferred_readings.DeferredReadings(), [end], totals)
        reading = Reading("mine", [0, 2], keep=keep, total=bool(totals))
        waits = recorder.deferred if later else None
        out, _, prompt = run(tiny.lvlm, tiny.inputs, [], Observers([reading], recorder, waits), **options)
        ids = out[:, prompt:]
        mask = real(ids, [end])
        taken.append(recorder.record(ids, mask, torch.ones(2).long())["mine"])
    each, summed = taken
    assert mask.sum(1)[0] <= 20 < deferred_readings.STEPS < mask.sum(1)[1], "one ends early, one goes on"
    assert summed.shape == (2, 1, *each.shape[2:])
    expected = (each * mask[:, :, None, None, None]).sum(1, keepdim=True)
    assert float((summed - expected).abs().max()) <= mask.shape[1] * ROWS
    behind = float((summed - each.sum(1, keepdim=True))[0].abs().max())
    assert behind == 0 if later else behind > 0.1, "what follows the end would count, where it is read"


def test_dhcps_total_is_that_of_its_columns(tiny, monkeypatch):
    """One sum per text, with the map of a few rows at a time, against the columns of every token."""
    ids = torch.arange(2 * TOKENS).view(2, -1) % 50 + 4
    ids[0, 20:] = 2
    monkeypatch.setattr(type(tiny.lvlm), "end_tokens", property(lambda lvlm: (2,)))
    inputs = {name: value[[0, 0]] for name, value in tiny.inputs.items() if name != "pixel_values"}
    inputs["pixel_values"] = tiny.inputs["pixel_values"][:1].repeat(2, 1, 1, 1)
    columns = teacher_force(tiny.lvlm, inputs, ids, [DHCP(weights=None)])
    expected = columns["dhcp/columns"] * columns.mask[:, :, None, None, None]
    expected = expected.sum(1) / columns.mask.sum(1)[:, None, None, None]
    assert columns.mask.sum(1).tolist() == [21, TOKENS]
    for largest in (1, 2**30):
        monkeypatch.setattr(calls, "LARGEST", (largest, largest))
        found = DHCP(weights=None).features(tiny.lvlm, inputs, ids)
        assert float((found - expected).abs().max()) <= ROWS
    assert float(expected.std()) > 1e-3


# ---------------------------------------------------------------------- how sure the model was


def test_how_sure_the_model_was_is_worked_out_when_asked_for(tiny, monkeypatch):
    requests = []
    plain = record.confidence
    monkeypatch.setattr(record, "confidence", lambda logits: requests.append(logits.shape[1]) or plain(logits))
    options = {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS, "do_sample": False}
    veridical.generate(tiny.lvlm, tiny.inputs, [], ["image_attention"], **options)
    assert requests == []
    out = veridical.generate(tiny.lvlm, tiny.inputs, [], ["entropy"], return_logits=True, **options)
    assert sum(requests) == TOKENS
    shares = out.logits.double().softmax(-1)
    expected = -(shares * shares.log()).nan_to_num().sum(-1)
    assert float((out.risk["entropy"] - expected).abs().max()) <= 1e-5
    monkeypatch.setattr(record, "VALUES", 1)  # so few that each step's logits go at once
    each = veridical.generate(tiny.lvlm, tiny.inputs, [], ["entropy"], **options)
    assert torch.allclose(each.risk["entropy"], out.risk["entropy"], atol=1e-6)


def test_forbidden_tokens_and_ties_leave_entropy_and_margin_numbers():
    logits = torch.tensor([[0.0, 0.0, -torch.inf], [1.0, -torch.inf, -torch.inf], [2.0, 1.0, 0.0]])
    logs, entropy, margin = record.confidence(logits)
    assert torch.allclose(entropy, torch.tensor([0.693147, 0.0, 0.832395]), atol=1e-6)
    assert torch.allclose(margin, torch.tensor([0.0, 1.0, 0.420512]), atol=1e-6)
    assert torch.equal(logs.isinf(), logits.isinf())


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
@pytest.mark.parametrize("queries", [1, 4, calls.MANY + 3])
@pytest.mark.parametrize("largest", [1, 2**30], ids=["head_by_head", "at_once"])
def test_sums_over_keys_are_those_of_the_map(kind, cap, heads, queries, largest, monkeypatch):
    """1e-6: with the keys first they are added up in another order."""
    monkeypatch.setattr(calls, "LARGEST", (largest, largest))
    draw = torch.Generator().manual_seed(0)
    rows, keys, size = 3, queries if kind == "none" and queries > 1 else queries + 8, 16
    query = torch.randn(rows, 8, queries, size, generator=draw) * 3
    key, value = (torch.randn(rows, heads, keys, size, generator=draw) for _ in range(2))
    where = Sequences(torch.ones(rows, 4).bool(), torch.zeros(rows, 4).bool(), torch.arange(rows), seen=keys)
    call = AttentionCall(0, where, query, key, value, Masks(rows, queries, keys).every[kind], 0.25, cap)
    columns = torch.rand(rows, keys, 2, generator=draw)
    expected = torch.einsum("bhqk,bkc->bqhc", call.probabilities().double(), columns.double())
    assert float((call.sums(columns).double() - expected).abs().max()) <= ROWS
    last = slice(queries - 1, queries)
    assert float((call.sums(columns, last).double() - expected[:, last]).abs().max()) <= ROWS
    parts = list(call.maps())
    assert len(parts) == (rows * heads if largest == 1 else 1), "of one row and one key-value head each"
    whole = call.joined(parts).unflatten(3, (8 // heads, queries)).permute(0, 1, 3, 4, 2)
    assert float((whole.flatten(1, 2) - call.probabilities()).abs().max()) <= ROWS


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
