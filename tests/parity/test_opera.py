"""OPERA against a beam loop of its own without a cache: the same tokens and returns, alone and in left-padded batches.

Float64 on both sides, so that no near tie decides. Attention among few new tokens is made large by `scale`, so that
products are about 1 and the same summary token stays for long.
"""


import pytest
import torch

import veridical
from veridical.decoders.opera import OPERA
from veridical.decoders.retrospection import Sample
from veridical.pipelines.engine.lookahead import Lookahead

from . import reference_opera
from .reference_more import Scored
from .test_methods import HEADS
from .tiny import batch, prompt, tiny_llava

LASTING = {"scale": 40.0, "threshold": 2, "first_tokens": 2, "candidates": 3}
STEPS = 12
PROMPTS = [(3, 5, 1), (6, 7, 2), (1, 2, 3)]
ENDS = {1: 34, 2: 121, 3: 34}  # a token that ends some of the texts

pytestmark = pytest.mark.filterwarnings("ignore::veridical.pipelines.compatibility.DoubtfulPair")


class Tiny:
    def __init__(self, heads, kv_heads):
        self.model = tiny_llava(heads, kv_heads).double()
        prompts = [prompt(self.model, *given) for given in PROMPTS]
        self.rows = [(one["input_ids"][0], one["pixel_values"].double()) for one in prompts]
        self.lvlm, self.reference = veridical.LVLM(self.model), Scored(self.model)
        self.inputs = batch(prompts)


@pytest.fixture(scope="module")
def gqa():
    return Tiny(*HEADS["gqa"])


@pytest.fixture
def places(monkeypatch):
    """Where each sample has gone back to, in its order."""
    gone, back = {}, Sample.go_back

    def noted(self, step):
        gone.setdefault(id(self), []).append(step)
        back(self, step)

    monkeypatch.setattr(Sample, "go_back", noted)
    return gone


def generate(tiny, steps, beams, options, inputs=None):
    options = {"max_new_tokens": steps, "do_sample": False, "num_beams": beams, **options}
    decoder = OPERA(**{name: options.pop(name) for name in list(options) if hasattr(OPERA, name)})
    return veridical.generate(tiny.lvlm, tiny.inputs if inputs is None else inputs, [decoder], **options)


CASES = [
    ("mha", 1, {"retries": 1}),
    ("gqa", 1, {"retries": 1}),
    ("gqa", 1, {"retries": 2, "mode": "official"}),
    ("mha", 2, {"retries": 1}),  # it votes, and never agrees for long enough
    ("gqa", 2, {"retries": 1, "mode": "official"}),
    ("gqa", 2, {"retries": 0, "first_tokens": 0, "weight": 0.5, "scale": 700.0}),
]


@pytest.mark.parametrize(("heads", "beams", "options"), CASES, ids=str)
def test_tokens_and_returns_are_those_of_an_uncached_loop(heads, beams, options, places):
    tiny, options = Tiny(*HEADS[heads]), {**LASTING, **options}
    out = generate(tiny, STEPS, beams, options)
    total = []
    for row, (ids, pixels) in enumerate(tiny.rows[: 3 - beams]):
        scores: list = []
        found = reference_opera.opera(tiny.reference, ids, pixels, STEPS, beams, **options, logits=scores)
        assert out.ids[row].tolist() == found.tokens
        total += found.returns
        if options["retries"]:
            assert found.returns in [*places.values(), []]
            assert int(out.acted["opera"].rollbacks[row]) == len(found.returns)
        if beams == 1:
            logits = generate(tiny, STEPS, 1, {**options, "return_logits": True}).logits[row]
            for step, table in dict(scores).items():
                theirs, ours = logits[step].double(), torch.tensor(table, dtype=torch.float64)
                assert torch.equal(theirs.isfinite(), ours.isfinite()), f"step {step}"
                assert float((theirs - ours)[ours.isfinite()].abs().max()) < 1e-4, f"step {step}"
    assert bool(total) == bool(options["retries"] and (heads, beams) != ("mha", 2)), "no return was seen"


@pytest.mark.parametrize(("beams", "mode"), [(1, "paper"), (3, "paper"), (2, "official")])
def test_a_sample_returns_as_often_and_to_the_same_text_in_a_batch_with_end_tokens(gqa, beams, mode, places):
    """Where one has ended the others go on; it must not go back in what is settled."""
    options = {**LASTING, "mode": mode, "retries": 1, "candidates": 6, "eos_token_id": ENDS[beams]}
    together = generate(gqa, STEPS, beams, options)
    rows = [prompt(gqa.model, *given) for given in PROMPTS]
    alone = [generate(gqa, STEPS, beams, options, one) for one in rows]
    lengths = []
    for row, one in enumerate(alone):
        length = one.ids.shape[1]
        lengths.append(length)
        assert torch.equal(one.ids[0], together.ids[row, :length])
        assert (together.ids[row, length:] == gqa.lvlm.pad_token).all()
        assert float(one.acted["opera"].rollbacks) == float(together.acted["opera"].rollbacks[row])
    assert len(set(lengths)) > 1, f"all ended at once: {lengths}"
    assert float(together.acted["opera"].rollbacks.sum()) > 0


def test_a_run_that_starts_over_leaves_no_trace_of_the_first(gqa):
    """Detectors that read along, counts and logits are those of the text that is returned."""
    options = {**LASTING, "retries": 1}
    with_return = generate(gqa, STEPS, 1, {**options, "return_logits": True})
    assert with_return.logits.shape[1] == STEPS
    assert with_return.acted["opera"].steps.tolist() == [STEPS] * 3
    out = veridical.generate(
        gqa.lvlm, gqa.inputs, [OPERA(**options)], ["entropy", "image_attention"], max_new_tokens=STEPS, do_sample=False
    )
    assert torch.equal(out.ids, with_return.ids)
    forced = veridical.score(gqa.lvlm, gqa.inputs, out.ids, ["entropy", "image_attention"])
    for name, risk in forced.items():
        torch.testing.assert_close(out.risk[name], risk, atol=1e-4, rtol=1e-4)


def test_sampling_draws_the_same_again_up_to_where_it_went_back(gqa):
    options, steps = {**LASTING, "retries": 1, "do_sample": True}, 8
    first, again, other = (generate(gqa, steps, 1, {**options, "seed": seed}) for seed in (5, 5, 6))
    assert torch.equal(first.ids, again.ids)
    assert not torch.equal(first.ids, other.ids)
    assert generate(gqa, steps, 1, options).ids.shape == first.ids.shape  # without a seed it draws one


def test_the_same_without_a_cache_for_the_tries(gqa, monkeypatch):
    """As where a sliding window or flash attention rules the cache out."""
    options = {**LASTING, "retries": 1}
    cached = generate(gqa, 8, 2, options)
    monkeypatch.setattr(Lookahead, "__call__", lambda self, new, tries: None)
    uncached = generate(gqa, 8, 2, options)
    assert torch.equal(cached.ids, uncached.ids)
    assert torch.equal(cached.acted["opera"].rollbacks, uncached.acted["opera"].rollbacks)


def test_other_methods_in_the_chain_are_replayed_too(gqa):
    options = {"max_new_tokens": 10, "do_sample": False, "num_beams": 2}
    decoder = OPERA(**LASTING, retries=1)
    together = veridical.generate(gqa.lvlm, gqa.inputs, ["icd:prefix_ids=(9,33)", decoder, "sla"], **options)
    for row, given in enumerate(PROMPTS):
        one = prompt(gqa.model, *given)
        alone = veridical.generate(gqa.lvlm, one, ["icd:prefix_ids=(9,33)", decoder, "sla"], **options)
        assert torch.equal(alone.ids[0], together.ids[row])
