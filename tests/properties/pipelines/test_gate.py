"""What a gate must be between its ends: never is plain, always is ungated, and each sample opens on its own."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from veridical.decoders.gate import Gate, gate, running
from veridical.pipelines.engine.declarations import Branch, Reading
from veridical.pipelines.engine.online_risk import prefixed
from veridical.pipelines.engine.rows import came_from
from veridical.pipelines.generate import NeverActed
from veridical.pipelines.registry import DECODERS

from ...contract import setting as settings
from ...contract import table
from ...contract.models import pytest_generate_tests, setting, tiny_and_smollm2
from ...contract.setting import MODES, SEEDS, difference, scale, seeded

__all__ = ["pytest_generate_tests", "setting"]  # pytest finds them here

CLOSE = 1e-5
MIDDLE = {"vcd": "entropy", "vsv": "entropy", "pai": "lookback_lens"}
GATED = [name for name in DECODERS.own if name not in ("greedy", "gate", "opera")]  # OPERA goes back, and is refused

pytestmark = pytest.mark.filterwarnings("ignore::veridical.pipelines.generate.NeverActed")


@pytest.fixture(scope="module")
def tiny():
    return settings.tiny(8, 2)


def half_open(tiny, name):
    """A gate that is open at some steps of some samples: its threshold is a risk in the middle of a plain run."""
    detector = MIDDLE[name]
    risk = tiny.generate([], detectors=[detector]).risk[detector].flatten().sort().values
    method = Gate(tiny.acting(name), detector, float(risk[len(risk) // 2 - 1 : len(risk) // 2 + 1].mean()))
    acted = tiny.generate([method]).acted["gate"]
    assert 0 < acted.acted.sum() < acted.steps.sum(), "it must open, and not always, or nothing is tested"
    return method


# ---------------------------------------------------------------------- the ends


@tiny_and_smollm2
@pytest.mark.parametrize("name", GATED)
@pytest.mark.parametrize("detector", ["entropy", "lookback_lens"])
def test_always_open_from_the_prompt_on_is_the_ungated_decoder_to_the_last_bit(setting, name, detector):
    """VHR's run goes on from the pass that chose its heads, in rows of another number: the last bits are others."""
    always = Gate(setting.acting(name), detector, "-inf", prefill=True)
    gated, ungated = setting.logits([always]), setting.acting_logits(name)
    assert torch.equal(gated, ungated) or (name == "vhr" and difference(gated, ungated) <= 2e-6 * scale(ungated))


@pytest.mark.parametrize("name", ["vcd", "sla", "m3id", "dola", "avc"])
def test_always_open_needs_no_prefill_where_logits_alone_are_edited(tiny, name):
    """Nobody knows beforehand that it is: a branch is read apart at first, and the last bits are others."""
    always, ungated = tiny.logits([Gate(tiny.acting(name), "entropy", 0)]), tiny.logits([tiny.acting(name)])
    assert torch.equal(always.isinf(), ungated.isinf())
    assert difference(always, ungated) <= 2e-6 * scale(ungated)


@pytest.mark.parametrize("name", ["vsv", "vhr", "var"])
def test_without_prefill_the_first_step_is_plain_and_the_second_is_not(tiny, name):
    """VAR's layers compute their attention anew, open or not."""
    always, plain = tiny.logits([Gate(tiny.acting(name), "entropy", "-inf")]), tiny.plain()
    assert difference(always[:, 0], plain[:, 0]) <= 1e-6 * scale(plain)
    assert difference(always[:, 1], plain[:, 1]) > 1e-4


@tiny_and_smollm2
@pytest.mark.parametrize("name", GATED)
def test_never_open_is_plain_decoding(setting, name):
    with pytest.warns(NeverActed):
        closed = setting.generate([Gate(setting.acting(name), "entropy", 1e9)], return_logits=True)
    plain = setting.plain()
    assert difference(closed.logits, plain) <= 2e-6 * scale(plain)  # other rows beside; 1.1e-6 through thirty layers
    assert closed.acted["gate"].acted.tolist() == [0] * len(setting.prompts)
    assert torch.equal(setting.logits([Gate(setting.acting(name), "entropy", float("inf"))]), plain)


@pytest.mark.parametrize("mode", MODES)
def test_always_open_follows_the_ungated_decoder_in_every_mode(tiny, mode):
    for name in MIDDLE:
        always = Gate(tiny.acting(name), MIDDLE[name], "-inf", prefill=True)
        assert torch.equal(tiny.tokens([always], mode=mode), tiny.tokens([tiny.acting(name)], mode=mode)), name


# ---------------------------------------------------------------------- in between


@pytest.mark.parametrize("name", MIDDLE)
def test_a_half_open_gate_in_a_batch_is_the_gate_alone(tiny, name):
    door = half_open(tiny, name)
    together = tiny.logits([door])
    for row, prompt in enumerate(tiny.prompts):
        assert difference(tiny.logits([door], prompt)[0], together[row]) <= CLOSE * scale(together)


@pytest.mark.parametrize("name", MIDDLE)
@pytest.mark.parametrize("mode", MODES)
def test_the_tokens_of_a_sample_behind_a_half_open_gate_are_its_own_affair(tiny, name, mode):
    door = half_open(tiny, name)
    together = tiny.tokens([door], mode=mode)
    for row, prompt in enumerate(tiny.prompts):
        assert torch.equal(tiny.tokens([door], prompt, mode, SEEDS[row : row + 1])[0], together[row])


@pytest.mark.parametrize("name", MIDDLE)
def test_without_a_cache_each_position_keeps_what_was_decided_when_it_was_fed(tiny, name):
    door = half_open(tiny, name)
    cached, uncached = tiny.logits([door]), tiny.logits([door], use_cache=False)
    assert difference(uncached, cached) <= CLOSE * scale(cached)
    static = tiny.logits([door], cache_implementation="static")
    assert difference(static, cached) <= CLOSE * scale(cached)


def test_acted_counts_the_steps_above_the_threshold(tiny):
    """The same detector beside the gate reads the same risks."""
    door = half_open(tiny, "vcd")
    out = tiny.generate([door], detectors=[door.detector])
    above = (out.risk[door.detector] > door.threshold).sum(1)
    assert out.acted["gate"].acted.tolist() == above.tolist()
    assert len(set(above.tolist())) > 1, "samples that open equally often would not show that each has its own gate"


def test_a_closed_sample_is_untouched_beside_an_open_one(tiny):
    built, plain = half_open(tiny, "vcd"), tiny.plain()
    first = tiny.logits([built], max_new_tokens=1)[:, 0]
    risk = tiny.generate([], detectors=["entropy"], max_new_tokens=1).risk["entropy"][:, 0]
    closed = risk <= built.threshold
    assert closed.any()
    assert not closed.all()
    assert torch.equal(first[closed], plain[closed, 0])
    assert not torch.isclose(first[~closed], plain[~closed, 0]).all(1).any()


def test_detectors_beside_a_gate_read_as_they_do_without_names_getting_mixed_up(tiny):
    """The gate's own image-free branch stands beside the detector's."""
    method = Gate("vcd", "vhd", "-inf")
    beside = tiny.generate([method], detectors=["vhd", "lookback_lens"]).risk
    ungated = tiny.generate(["vcd"], detectors=["vhd", "lookback_lens"]).risk
    for name in beside:
        assert torch.allclose(beside[name], ungated[name], atol=1e-4), name


@pytest.mark.parametrize(("name", "mode"), [("vcd", "greedy"), ("vsv", "beams"), ("vcd", "beams")])
def test_two_gates_compose(tiny, name, mode):
    one = half_open(tiny, name)
    assert torch.equal(tiny.tokens([one, Gate("sla", "entropy", 1e9)], mode=mode), tiny.tokens([one], mode=mode))


@pytest.mark.parametrize(("first", "second"), [("vsv", "vcd"), ("vcd", "vsv"), ("vcd", "sla")])
def test_an_open_gate_composes_as_its_decoder_does(tiny, first, second):
    """A branch opened behind it inherits its edits, and one opened before it does not."""
    one, other = tiny.acting(first), tiny.acting(second)
    expected = tiny.logits([one, other])
    assert torch.equal(tiny.logits([Gate(one, "entropy", "-inf", prefill=True), other]), expected)
    assert torch.equal(tiny.logits([one, Gate(other, "entropy", "-inf", prefill=True)]), expected)
    assert difference(expected, tiny.logits([other, one])) > 1e-4, "order must matter, or nothing is tested"


def test_a_decoder_named_in_a_gate_takes_its_papers_values_for_the_model(tiny):
    shikra = replace(tiny, lvlm=replace(tiny.lvlm, name="shikra-7b"))
    named = shikra.logits([Gate("vsv", "entropy", "-inf", prefill=True)])
    assert torch.equal(named, shikra.logits(["vsv"]))
    assert torch.equal(named, shikra.logits(["vsv:strength=0.12"]))
    assert not torch.equal(named, tiny.logits(["vsv"]))


def test_in_beams_the_risks_of_a_beam_follow_it(tiny):
    """A running mean over all steps is a beam's own: recomputed from the texts of the beams at every step."""
    seen = []

    class Recorded:
        def readings(self, lvlm, inputs):
            yield Reading("look", [1], keep=lambda call: call.probabilities(slice(-1, None)).sum(-1).transpose(1, 2))

        def score(self, record):
            seen.append((record.ids.clone(), record.log_probability.clone()))
            return -record.log_probability

    method = Gate("vcd", Recorded(), 1e9, over="mean", window=100)
    tiny.generate([method], num_beams=3)
    assert any(not torch.equal(now[0][:, :-2], before[0][:, :-1]) for before, now in pairwise(seen))
    ids, report = seen[-1]
    for row in range(len(ids)):
        prompt = tiny.prompts[row // 3]
        forced = settings.veridical.score(tiny.lvlm, prompt, ids[row : row + 1], ["token_probability"])
        assert torch.allclose(-report[row], forced["token_probability"][0], atol=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_inside_transformers_generate_it_is_the_same(tiny, mode):
    door = half_open(tiny, "vcd")
    options = {**MODES[mode], **({} if mode != "sampling" else {"do_sample": True})}
    out = tiny.model.generate(
        **tiny.inputs, custom_generate=settings.veridical.mitigate([door], **seeded(mode, SEEDS)),
        max_new_tokens=settings.STEPS, **options,
    )  # fmt: skip
    assert torch.equal(out[:, tiny.inputs["input_ids"].shape[1] :], tiny.tokens([door], mode=mode))


# ---------------------------------------------------------------------- pieces


def test_the_running_risk_is_the_newest_or_over_a_window():
    risks = torch.tensor([[4.0, 1.0, 3.0, 2.0]])
    assert running(risks, "now", 3).tolist() == [2.0]
    assert running(risks, "mean", 3).tolist() == [2.0]
    assert running(risks, "max", 3).tolist() == [3.0]
    assert running(risks, "max", 99).tolist() == [4.0]


def test_a_row_comes_from_the_row_of_its_own_sample_with_its_text():
    before = torch.tensor([[1, 2], [1, 3], [1, 3], [1, 2]])  # two samples of two beams
    now = torch.tensor([[1, 3], [1, 2], [1, 2], [1, 2]])
    assert came_from(before, now, 2).tolist() == [1, 0, 3, 3]
    assert came_from(before, before, 2).tolist() == [0, 1, 2, 3]


def test_readings_get_names_of_their_own_and_keep_their_branches():
    declared = [Branch("b", {}), Reading("r", [0], keep=len, branch="b"), Reading("s", [0], keep=len, branch="all")]
    named = prefixed(declared, "gate/")
    assert [(one.name, getattr(one, "branch", None)) for one in named] == [
        ("gate/b", None), ("gate/r", "gate/b"), ("gate/s", "all"),
    ]  # fmt: skip


def test_a_written_gate_holds_a_written_decoder():
    detector = 'lookback_lens:context="prompt"'
    method = DECODERS.make(f"gate:decoder='vcd:alpha=0.5,beta=0',detector='{detector}',threshold=-0.5")
    assert method == Gate("vcd:alpha=0.5,beta=0", detector, -0.5)
    assert gate("vcd", "entropy", 0.5, over="max") == Gate("vcd", "entropy", 0.5, "max")


@pytest.mark.parametrize(("written", "message"), [
    ("gate:decoder='vdc'", 'no decoder "vdc".*Did you mean "vcd"'),
    ("gate:detector='entropi'", 'no detector "entropi".*Did you mean "entropy"'),
    ("gate:decoder='gate'", "is a gate itself"),
    ("gate:threshold=high", "threshold='high' is no number"),
    ("gate:threshold=none", "threshold=None is no number"),
    ("gate:over=min", "over='min' is none of 'now', 'mean', 'max'"),
    ("gate:window=0", "window=0 is below 1"),
])  # fmt: skip
def test_wrong_settings_are_refused_with_what_is_possible(written, message):
    with pytest.raises((ValueError, KeyError), match=message):
        DECODERS.make(written)


def test_the_table_runs_a_gate_that_is_open():
    assert table.acting("gate") == Gate(threshold=0)
