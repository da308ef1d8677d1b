"""Decoders that edit by fixed directions, against the reference: batched and left-padded, cached and not.

Tolerance and measure of an effect as in `test_more_methods`.
"""

import pytest
import torch

import veridical
from veridical.decoders.project_away import ProjectAway

from ..test_methods import HEADS, TOLERANCE, furthest
from ..test_more_methods import Setting, hold
from . import reference_states as states

STEPS = 4
WORDS = ((5, 6), (9,), (33, 34, 35))


@pytest.fixture(params=HEADS, scope="module")
def tiny(request):
    return Setting(*HEADS[request.param])


@pytest.fixture(scope="module")
def gqa():
    return Setting(*HEADS["gqa"])


# ---------------------------------------------------------------------- ProjectAway


@pytest.mark.parametrize(
    "options",
    [{}, {"alpha": 3.5, "layer": 5, "text_layer": 6}, {"layer": 0, "text_layer": -1}, {"layer": 6, "text_layer": 7}],
    ids=str,
)
def test_project_away_subtracts_each_words_direction_in_turn(tiny, options):
    hold(tiny, [ProjectAway(objects=WORDS, **options)], lambda *given: states.project_away(*given, WORDS, **options))


def test_objects_of_one_sample_leave_the_other_plain(gqa):
    out = gqa.generate([ProjectAway(objects=((), WORDS[:2]))])
    ids, pixels = gqa.rows[1]
    expected = states.project_away(gqa.reference, ids, pixels, STEPS, WORDS[:2])
    assert furthest(out.logits[0], gqa.plain[0].logits) < TOLERANCE
    assert furthest(out.logits[1], expected.logits) < TOLERANCE
    assert furthest(out.logits[1, 0], gqa.plain[1].logits[0]) > 1e-3


# ---------------------------------------------------------------------- without a cache


ALL = [ProjectAway(objects=WORDS, layer=5)]
named = lambda decoder: type(decoder).__name__


@pytest.mark.parametrize("decoder", ALL, ids=named)
def test_a_run_without_a_cache_is_the_run_with_one(gqa, decoder):
    options = {"return_logits": True, "max_new_tokens": STEPS, "do_sample": False}
    one = veridical.generate(gqa.lvlm, gqa.inputs, [decoder], **options)
    other = veridical.generate(gqa.lvlm, gqa.inputs, [decoder], use_cache=False, **options)
    assert torch.equal(one.ids, other.ids)
    assert furthest(one.logits, other.logits) < TOLERANCE
