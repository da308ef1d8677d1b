"""What a run reports of its methods: at how many steps each acted, flipped the choice, and how far it moved it."""

import warnings
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from veridical.decoders.var import VAR
from veridical.decoders.vcd import VCD
from veridical.decoders.vista import SLA, VSV
from veridical.pipelines.engine.declarations import LogitsEdit, ResidualEdit
from veridical.pipelines.engine.logits import Fold
from veridical.pipelines.engine.run import Observers, run
from veridical.pipelines.generate import NeverActed

from ...contract.setting import STEPS, Declares

EVERY = [STEPS] * 3


def acted_of(out):
    (acted,) = out.acted.values()
    return acted


@pytest.mark.parametrize("decoder", ["vcd", "vhr", "vsv", "sla", "vista"])
def test_a_method_that_acts_at_every_step_is_counted_at_every_step(tiny, decoder):
    out = tiny.generate([decoder])
    assert list(out.acted) == [decoder]
    assert acted_of(out).steps.tolist() == EVERY
    assert acted_of(out).acted.tolist() == EVERY


def test_steps_at_which_an_edit_changed_nothing_are_not_counted(tiny):
    """It doubles the logits of the second row at steps 1 and 3."""

    def sometimes(logits, step):
        logits = logits.clone()
        if step.index in (1, 3):
            logits[1] *= 2
        return logits

    acted = acted_of(tiny.generate([Declares([LogitsEdit(sometimes)])]))
    assert acted.steps.tolist() == EVERY
    assert acted.acted.tolist() == [0, 2, 0]
    assert acted.flipped.tolist() == [0, 0, 0], "twice the logits have the same largest one"


def test_an_edit_of_states_is_counted_in_the_rows_that_it_changed(tiny):
    def some(hidden, call):
        hidden = hidden.clone()
        hidden[2] += 1
        return hidden

    acted = acted_of(tiny.generate([Declares([ResidualEdit([3], some)])]))
    assert acted.acted.tolist() == [0, 0, STEPS]
    assert acted.flipped.tolist() == [0, 0, 0]
    assert acted.kl.tolist() == [0, 0, 0]


def test_flips_and_divergences_are_those_of_the_logits(tiny):
    """1e-4 nats: means of sums over 128 tokens in float32."""
    before = []
    keep = lambda step, logits: before.append(step.branches["main"].clone())
    options = {"max_new_tokens": STEPS, "do_sample": False}
    _, fold, _ = run(tiny.lvlm, tiny.inputs, [SLA()], Observers(observe=keep), return_logits=True, **options)
    old, new = torch.stack(before, 1), torch.stack(fold.logits, 1)
    acted = fold.acted(0)
    assert acted.flipped.tolist() == (old.argmax(-1) != new.argmax(-1)).sum(1).tolist()
    assert acted.flipped.sum() > 0, "otherwise this shows nothing"
    p, q = new.log_softmax(-1), old.log_softmax(-1)
    torch.testing.assert_close(acted.kl, (p.exp() * (p - q)).sum(-1).mean(1), rtol=0, atol=1e-4)


def test_a_divergence_over_cut_tokens_is_a_number(tiny):
    acted = acted_of(tiny.generate([VCD(beta=0.9)]))
    assert acted.kl.isfinite().all()
    assert (acted.kl > 0).all()


def test_each_of_two_methods_has_its_own_count(tiny):
    idle = VAR(tau=1e6)
    with pytest.warns(NeverActed, match=r"VAR\(.*tau=1000000\.0.*changed nothing at any step of 3 samples"):
        out = tiny.generate([idle, VSV()])
    assert list(out.acted) == ["var", "vsv"]
    assert out.acted["var"].acted.tolist() == [0, 0, 0]
    assert out.acted["vsv"].acted.tolist() == EVERY


def test_two_methods_of_one_class_are_told_apart(tiny):
    out = tiny.generate([VSV(0.1), VSV(0.2), VSV(0.0)])
    assert len(out.acted) == 3
    assert [int(acted.acted[0]) for acted in out.acted.values()] == [STEPS, STEPS, 0]
    assert next(iter(out.acted)) == "vsv"


@pytest.mark.parametrize("decoders", [["vcd"], ["vsv"], ["sla", "vhr"], ["greedy"], []], ids=str)
def test_a_run_that_does_what_was_asked_is_silent(tiny, decoders):
    """Plain decoding is no method that failed to act."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny.generate(decoders)


def test_a_method_that_never_acts_is_warned_of_where_the_user_called(tiny):
    import veridical

    with pytest.warns(NeverActed) as caught:
        veridical.generate(tiny.lvlm, tiny.inputs, [VAR(tau=1e6)], max_new_tokens=1, do_sample=False)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("given", ["in_the_model", "in_the_call"])
def test_steps_after_the_end_are_not_counted(tiny, monkeypatch, given):
    """The second token of the first row ends its text; the other rows go on, unless they have it too."""
    ids = tiny.generate(["sla"]).ids
    end = int(ids[0, 1])
    options = {"eos_token_id": end} if given == "in_the_call" else {}
    if not options:
        monkeypatch.setattr(tiny.model.generation_config, "eos_token_id", end)
    acted = acted_of(tiny.generate(["sla"], **options))
    expected = [row.index(end) + 1 if end in row else STEPS for row in ids.tolist()]
    assert expected[0] <= 2
    assert acted.steps.tolist() == expected
    assert acted.acted.tolist() == expected


@pytest.mark.parametrize("mode", [{"num_beams": 3}, {"do_sample": True, "seed": 0}], ids=["beams", "sampling"])
def test_methods_are_counted_in_other_modes_too(tiny, mode):
    for decoder in ("vcd", "vsv"):
        acted = acted_of(tiny.generate([decoder], **mode))
        assert acted.acted.tolist() == EVERY


def test_a_second_cut_is_warned_of(tiny):
    """It sees logits that the first has changed."""

    @dataclass(frozen=True)
    class Cuts(Declares):
        beta: float = 0.1

    other = Cuts([LogitsEdit(lambda logits, step: logits * 1.5)])
    with pytest.warns(UserWarning, match=r"VCD\(.* and .*Cuts\(.* each cut by plausibility; the second cut sees"):
        tiny.generate([VCD(), other])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny.generate([VCD(beta=0.0), other])


def test_the_sum_over_steps_is_taken_in_their_order_so_that_its_last_digit_never_changes():
    """Sums of float32 depend on their order: what was written before must come out again to the last digit."""
    fold = Fold(SimpleNamespace(batch=1), SimpleNamespace(step=None), beams=1, methods=1)
    steps = torch.full((64,), 0.1)
    fold.kls[0], fold.acts[0], fold.flips[0] = ([one[None] for one in steps] for _ in range(3))
    fold.path, fold.real = torch.zeros(1, 64, dtype=torch.long), torch.ones(1, 64, dtype=torch.bool)
    total = torch.zeros(1)
    for one in steps:
        total += one
    assert float(steps.sum()) != float(total), "numbers by which the order shows"
    assert float(fold.acted(0).kl) == float(total / 64)
