"""What every decoder must be: plain at its neutral strength, visible at its own, the same alone, in a batch, and again.

Logits are compared in proportion to the largest of them, at least 1: float32 keeps seven digits, and another number of
rows or another padding sums in another order.
"""

import warnings

import pytest
import torch

from veridical.pipelines.registry import DECODERS

from . import table
from .models import every_model
from .setting import difference, scale

EXACT = 1e-6  # of the largest logit: the same arithmetic, at most other matrix shapes
CLOSE = 1e-5  # of the largest logit: other paddings through eight layers, about 2e-6 measured
FAINT = 1e-4  # a step of 1e-6 off neutral, amplified through eight layers
SHOWS = 1e-3

pytestmark = pytest.mark.filterwarnings("ignore::veridical.pipelines.generate.NeverActed")


def test_every_registered_decoder_has_a_line_in_the_table():
    """The one test that fails for a new method without it: the others are run for those that have theirs."""
    for name in table.missing():
        table.entry(name)


def test_the_table_has_no_decoder_that_is_not_registered():
    assert set(table.ENTRIES) <= set(DECODERS.own)


def test_a_new_decoder_without_its_line_fails_once(monkeypatch):
    """The shared cases leave it out; the one test above names it."""
    before = table.covered()
    monkeypatch.setitem(DECODERS.__dict__, "own", {**DECODERS.own, "newcomer": DECODERS.own["vcd"]})
    assert table.covered() == before
    assert table.missing() == ["newcomer"]
    with pytest.raises(pytest.fail.Exception, match=r'"newcomer" .* add its neutral'):
        test_every_registered_decoder_has_a_line_in_the_table()


def test_a_decoder_without_a_line_fails_with_what_to_add():
    with pytest.raises(pytest.fail.Exception, match=r'"newcomer" .* add its neutral'):
        table.entry("newcomer")


@every_model
def test_neutral_strength_is_plain_decoding(setting, name):
    plain = setting.plain()
    assert difference(setting.logits([table.neutral(name)]), plain) <= EXACT * scale(plain)


@every_model
def test_next_to_neutral_the_arithmetic_runs_and_is_next_to_plain_decoding(setting, name):
    row = table.entry(name)
    if row.faint is None:
        assert row.no_faint, f"{name}: give it faint settings, or say why there are none"
        return
    plain, near = setting.plain(), setting.logits([row.faint])
    assert difference(near.log_softmax(-1), plain.log_softmax(-1)) <= FAINT * scale(plain)


def test_composed_with_itself_at_neutral_strength_changes_nothing(setting, name):
    plain = setting.plain()
    twice = setting.logits([table.neutral(name), table.neutral(name)])
    assert difference(twice, plain) <= EXACT * scale(plain)


def test_neutral_beside_any_other_method_leaves_that_one_as_it_is(tiny, name):
    """In front and behind. VSV is the other one: it acts in every layer and opens no branch."""
    alone = tiny.acting_logits("vsv")
    for chain in ([table.neutral(name), "vsv"], ["vsv", table.neutral(name)]):
        assert difference(tiny.logits(chain), alone) <= EXACT * scale(alone)


@every_model
def test_a_method_acts(setting, name):
    if not table.entry(name).acts:
        assert torch.equal(setting.logits([name]), setting.plain())
        return
    moved, plain = setting.acting_logits(name), setting.plain()
    for row in range(len(setting.prompts)):
        finite = moved[row, 0].isfinite()
        assert finite.any()
        moves = (moved[row, 0] - plain[row, 0])[finite]
        if len(moves) > 1:  # a constant alone is no act; where a cut leaves one token there is nothing else to see
            moves = moves - moves.mean()
        shift = float(moves.abs().max())
        assert shift > SHOWS, f"row {row}: logits of the first token moved by {shift:.1e} only"


def test_a_method_that_acts_is_not_reported_as_idle(setting, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = setting.generate([setting.acting(name)])
    if table.entry(name).acts:
        (acted,) = out.acted.values()
        assert (acted.acted > 0).all()


@every_model
def test_a_batch_is_its_rows_one_by_one(setting, name):
    together = setting.acting_logits(name)
    for row, prompt in enumerate(setting.prompts):
        alone = setting.logits([setting.acting(name)], prompt)
        assert difference(alone[0], together[row]) <= CLOSE * scale(together)


def test_adding_a_sample_to_the_batch_does_not_change_another(setting, name):
    together = setting.acting_logits(name)
    fewer = {key: value[:2] for key, value in setting.inputs.items()}
    assert difference(setting.logits([setting.acting(name)], fewer), together[:2]) <= CLOSE * scale(together)


def test_the_order_of_the_batch_does_not_matter(tiny, name):
    order = [2, 0, 1]
    shuffled = {key: value[order] for key, value in tiny.inputs.items()}
    forward, other = tiny.acting_logits(name), tiny.logits([tiny.acting(name)], shuffled)
    assert difference(other, forward[order]) <= CLOSE * scale(forward)


def test_a_sample_run_again_after_another_gives_the_same_bits(setting, name):
    """The released VAR keeps the first question's sinks for all that follow."""
    decoder = setting.acting(name)
    first, _, again = (setting.logits([decoder], setting.prompts[row]) for row in (0, 1, 0))
    assert torch.equal(first, again)


def test_a_static_cache_gives_the_logits_of_a_dynamic_one(setting, name):
    decoder = setting.acting(name)
    dynamic, static = setting.acting_logits(name), setting.logits([decoder], cache_implementation="static")
    assert difference(static, dynamic) <= CLOSE * scale(dynamic)


@every_model
def test_without_a_cache_the_logits_are_the_same(setting, name):
    """Every pass then feeds the whole sequence again, so that prompt and generated positions meet in one pass."""
    decoder = setting.acting(name)
    cached, uncached = setting.acting_logits(name), setting.logits([decoder], use_cache=False)
    assert difference(uncached, cached) <= CLOSE * scale(cached)
