"""A gated branch is read late, and the text is that of a branch whose rows run along at every step.

The gate opens at scripted steps, each row at its own: at once, after a while, twice in a row, seldom, never.
"""

from dataclasses import dataclass

import pytest
import torch

from veridical.decoders.gate import Gate
from veridical.decoders.m3id import M3ID
from veridical.pipelines.engine import rows
from veridical.pipelines.method import Detector
from veridical.pipelines.prefill import late as late_branch
from veridical.pipelines.prefill import row_cost

from . import setting as settings
from .models import tiny_ones_and_smollm2
from .test_costs import counted

STEPS = 24
OPEN = ([3, 4, 5, 20], [], [0, 1, 9, 10, 22])  # by row


@dataclass(frozen=True)
class Scripted(Detector):
    """A risk of 1 at some steps of each sample, known by its prompt's length, and 0 at the others."""

    opens: tuple[tuple[int, ...], ...] = tuple(map(tuple, OPEN))
    lengths: tuple[int, ...] = ()

    def score(self, record):
        risk = torch.zeros(record.ids.shape)
        for row, length in enumerate(record.prompt.tolist()):
            for step in self.opens[self.lengths.index(length)]:
                if step < risk.shape[1]:
                    risk[row, step] = 1.0
        return risk


@pytest.fixture(params=[(8, 8), (8, 2)], ids=["mha", "gqa"], scope="module")
def tiny(request):
    return settings.tiny(*request.param)


def scripted(tiny, opens=OPEN):
    lengths = tuple(tiny.inputs["attention_mask"].sum(1).tolist())
    return Scripted(tuple(map(tuple, opens)), lengths)


def both(tiny, monkeypatch, decoders, inputs=None, **options):
    """The same run with branches that are read late, and with rows of their own at every step."""
    options = {"max_new_tokens": STEPS, "return_logits": True, **options}
    late = tiny.generate(decoders, inputs, **options)
    with monkeypatch.context() as eager:
        eager.setattr(rows, "can_wait", lambda inputs: False)
        return late, tiny.generate(decoders, inputs, **options)


def alike(late, eager):
    """5e-5 through 8 layers in float32, other orders of sums; 5e-6 of the largest logit where that is more."""
    off = max(5e-5, 5e-6 * settings.scale(eager.logits))
    torch.testing.assert_close(late.logits, eager.logits, rtol=0, atol=off)
    assert torch.equal(late.ids, eager.ids)
    for name, acted in eager.acted.items():
        assert torch.equal(late.acted[name].acted, acted.acted)
        assert torch.equal(late.acted[name].flipped, acted.flipped)


@tiny_ones_and_smollm2
@pytest.mark.parametrize("decoder", ["vcd", "icd", "m3id", "ritual", "pai", "imbalanced", "agla", "code", "marine"])
def test_a_late_branch_gives_the_text_of_one_that_runs_along(setting, decoder, monkeypatch):
    steps = 12 if setting.kind == "smollm2" else STEPS
    gate = Gate(setting.acting(decoder), scripted(setting), 0.5)
    late, eager = both(setting, monkeypatch, [gate], max_new_tokens=steps)
    alike(late, eager)
    for opens, acted in zip(OPEN, late.acted["gate"].acted.tolist(), strict=False):
        assert (acted > 0) == bool(opens)


@pytest.mark.parametrize(
    "chain",
    [
        ["vista", "GATE:vcd"], ["GATE:vcd", "vista"], ["GATE:icd", "pai"], ["vcd", "GATE:m3id"],
        ["GATE:vcd", "GATE:m3id"], ["GATE:sid"], ["GATE:avc"], ["GATE:rbd"], ["GATE:vsv"], ["GATE:vhr"],
    ],
    ids="+".join,
)  # fmt: skip
def test_chains_branches_with_edits_and_edits_of_the_main_rows_are_as_before(tiny, chain, monkeypatch):
    """An edit before a branch holds in it, and one inside it makes it what it is: such rows run along."""
    gated = lambda name: Gate(tiny.acting(name), scripted(tiny), 0.5)
    parts = [one.partition(":") for one in chain]
    alike(*both(tiny, monkeypatch, [gated(name) if name else tiny.acting(first) for first, _, name in parts]))


@pytest.mark.parametrize("row", range(3))
def test_a_row_alone_is_as_in_the_batch(tiny, row):
    gate = [Gate("vcd", scripted(tiny), 0.5)]
    together = tiny.generate(gate, max_new_tokens=STEPS, return_logits=True)
    alone = tiny.generate(gate, tiny.prompts[row], max_new_tokens=STEPS, return_logits=True)
    torch.testing.assert_close(alone.logits[0], together.logits[row], rtol=0, atol=5e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": True, "seed": [11, 12, 13], "temperature": 0.9, "top_p": 0.95},
        {"cache_implementation": "static"}, {"use_cache": False}, {"repetition_penalty": 1.3},
        {"detectors": ["lookback_lens"]},
    ],
    ids=["sampling", "static", "uncached", "penalty", "deferred"],
)  # fmt: skip
def test_modes_of_decoding_give_the_same_text(tiny, options, monkeypatch):
    late, eager = both(tiny, monkeypatch, [Gate("vcd", scripted(tiny), 0.5)], **options)
    alike(late, eager)
    for name, risk in eager.risk.items():
        torch.testing.assert_close(late.risk[name], risk, rtol=0, atol=1e-5)


def test_behind_its_end_a_row_is_read_no_further(tiny, monkeypatch):
    gate = [Gate("vcd", scripted(tiny, ([1, 2, 9, 12, 13], [2, 12], [])), 0.5)]
    end = int(tiny.generate(gate, max_new_tokens=STEPS).ids[0, 8])
    late, eager = both(tiny, monkeypatch, gate, eos_token_id=end, pad_token_id=0, return_logits=False)
    assert torch.equal(late.ids, eager.ids)
    assert late.ids[0, 9:].tolist() == [0] * (late.ids.shape[1] - 9)
    assert torch.equal(late.acted["gate"].acted, eager.acted["gate"].acted)


def test_without_a_seed_the_global_generator_gives_the_same_text(tiny, monkeypatch):
    gate = [Gate("vcd", scripted(tiny), 0.5)]
    texts = []
    for waits in (True, False):
        with monkeypatch.context() as patched:
            patched.setattr(rows, "can_wait", lambda inputs, waits=waits: waits)
            torch.manual_seed(5)
            texts.append(tiny.generate(gate, do_sample=True, max_new_tokens=STEPS).ids)
    assert torch.equal(*texts)


def test_beams_are_as_before(tiny, monkeypatch):
    late, eager = both(tiny, monkeypatch, [Gate("vcd", scripted(tiny), 0.5)], num_beams=3, return_logits=False)
    assert torch.equal(late.ids, eager.ids)


def test_a_gate_that_reads_attention_meets_rows_that_go_along(tiny, monkeypatch):
    risk = tiny.generate([], detectors=["lookback_lens"], max_new_tokens=STEPS).risk["lookback_lens"]
    alike(*both(tiny, monkeypatch, [Gate("vcd", "lookback_lens", float(risk.median()) + 1e-4)]))


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_m3ids_own_gate_spares_its_branch(tiny, share, monkeypatch):
    most = tiny.generate([], max_new_tokens=STEPS, return_logits=True).logits.softmax(2).amax(2)
    decoder = M3ID(beta=0, gate=float(most.quantile(share)))
    late, eager = both(tiny, monkeypatch, [decoder])
    alike(late, eager)
    with counted(tiny.lvlm) as (_, passes):
        tiny.generate([M3ID(beta=0, gate=1e-6)], max_new_tokens=STEPS)
    assert {rows for rows, _ in passes} == {3}


def positions(tiny, inputs, opens):
    """Images encoded, and rows × positions of every pass, of VCD gated at these steps."""
    with counted(tiny.lvlm) as (images, passes):
        tiny.generate([Gate("vcd", scripted(tiny, opens), 0.5)], inputs, max_new_tokens=STEPS)
    return sum(images), passes


def test_what_a_late_branch_costs_is_counted(tiny, monkeypatch):
    monkeypatch.setattr(late_branch, "further_row", lambda lvlm, rows: row_cost.CHEAP)
    alone = tiny.prompts[0]
    width = alone["input_ids"].shape[1]
    plain = [(1, width)] + [(1, 1)] * (STEPS - 1)
    closed = ([], [], [])
    assert positions(tiny, alone, closed) == (1, plain)
    # opened at the sixth token: the image and the prompt with five tokens of text, once
    images, passes = positions(tiny, alone, ([5], [], []))
    assert images == 2
    assert sorted(passes) == sorted([*plain, (1, width + 5)])
    # opened again 14 steps later: the tokens that were missed, in one pass
    _, passes = positions(tiny, alone, ([5, 19], [], []))
    assert sorted(passes) == sorted([*plain, (1, width + 5), (1, 14)])
    # opened again soon: three tokens in one pass, and from then on one row more in the main passes
    _, passes = positions(tiny, alone, ([5, 8, 20], [], []))
    assert passes[:1] + passes[1:6] == plain[:6]
    assert sorted(passes) == sorted([*plain[:9], (1, width + 5), (1, 3), *[(2, 1)] * (STEPS - 9)])


SELDOM, OFTEN = [2, 3, 5, 9, 10, 14, 21], [2, 3, 4, 6, 7, 8, 20]


@pytest.mark.parametrize(("opens", "own"), [(SELDOM, [1, 2, 4, 1, 4, 7]), (OFTEN, [1, 1, 2, 1, 1])])
def test_where_a_second_row_is_dear_a_branch_goes_along_only_if_it_is_read_often(tiny, opens, own, monkeypatch):
    """A row in every pass costs as much as a pass of its own at half of the steps."""
    alone, width = tiny.prompts[0], tiny.prompts[0]["input_ids"].shape[1]
    monkeypatch.setattr(late_branch, "further_row", lambda lvlm, rows: row_cost.DEAR)
    along = 0 if opens == SELDOM else STEPS - 1 - opens[5]
    _, passes = positions(tiny, alone, (opens, [], []))
    main = [(1, 1)] * (STEPS - 1 - along) + [(2, 1)] * along
    assert sorted(passes) == sorted([(1, width), *main, (1, width + 2), *[(1, tokens) for tokens in own]])
    gate = [Gate("vcd", scripted(tiny, (opens, [], [])), 0.5)]
    alike(*both(tiny, monkeypatch, gate, alone))


class Clock:
    """The time of passes, which take as long as `seconds` has it for their number of rows."""

    def __init__(self, model, seconds):
        self.now, self.seconds, self.passes = 0.0, seconds, []
        self.hook = model.register_forward_pre_hook(self.add, with_kwargs=True)

    def add(self, module, args, kwargs):
        self.passes.append(tuple(kwargs["input_ids"].shape))
        self.now += self.seconds[len(kwargs["input_ids"])]

    def __call__(self):
        return self.now


@pytest.mark.parametrize(("two", "cost"), [(1.1, row_cost.CHEAP), (1.7, row_cost.DEAR)])
def test_the_cost_of_a_second_row_is_measured_once_per_model(tiny, two, cost, monkeypatch):
    monkeypatch.setattr(row_cost, "_found", {})
    clock = Clock(tiny.lvlm.model, {1: 1.0, 2: two})
    monkeypatch.setattr(row_cost.time, "perf_counter", clock)
    try:
        assert row_cost.further_row(tiny.lvlm, 8) == row_cost.CHEAP  # beside others, without a look
        assert not clock.passes
        assert [row_cost.further_row(tiny.lvlm, 1) for _ in range(3)] == [cost] * 3
    finally:
        clock.hook.remove()
    assert clock.passes == [(1, 1), (2, 1)] * (row_cost.PASSES + 1)


def test_rows_of_a_batch_are_read_apart(tiny):
    width = tiny.inputs["input_ids"].shape[1]
    plain = [(3, width)] + [(3, 1)] * (STEPS - 1)
    lengths = tiny.inputs["attention_mask"].sum(1).tolist()
    images, passes = positions(tiny, None, ([2], [], [4]))
    assert images == 5
    assert sorted(passes) == sorted([*plain, (1, lengths[0] + 2), (1, lengths[2] + 4)])
    # two rows at one step with other debts: one pass, padded to the longer
    _, passes = positions(tiny, None, ([0, 20], [], [3, 20]))
    assert sorted(passes) == sorted([*plain, (1, lengths[0]), (1, lengths[2] + 3), (2, 20)])


def test_a_prompt_that_begins_like_the_main_one_is_not_read_again(tiny):
    alone = tiny.prompts[0]
    with counted(tiny.lvlm) as (images, passes):
        tiny.generate([Gate("icd:prefix_ids=(5,6,7)", scripted(tiny, ([4], [], [])), 0.5)], alone, max_new_tokens=STEPS)
    behind = len(alone["input_ids"][0]) - int(tiny.lvlm.image_mask(alone["input_ids"])[0].nonzero()[-1]) - 1
    assert sum(images) == 1
    assert (1, 3 + behind + 4) in passes


def test_nothing_of_a_late_branch_is_left_in_the_model(tiny):
    before = settings.snapshot(tiny.lvlm)
    tiny.generate([Gate("vcd", scripted(tiny), 0.5), "vista"], max_new_tokens=STEPS)
    settings.assert_unchanged(before, settings.snapshot(tiny.lvlm))
