"""Order is meaning: a branch inherits the edits declared before it and no other.

Against the uncached reference of tests/parity, to 1e-4: its text model runs in float64, ours in float32, and the wrong
order is off by more than 1e-2.
"""

from dataclasses import replace

import pytest
import torch

from veridical.decoders.vcd import VCD, diffuse
from veridical.decoders.vhr import VHR
from veridical.decoders.vista import SLA, VSV
from veridical.pipelines.engine.declarations import Branch, LogitsEdit, ResidualEdit

from ...contract.setting import Declares, difference
from ...parity import reference_methods as methods
from ...parity.reference_model import Reference

STEPS, TOLERANCE, APART = 3, 1e-4, 1e-2
CONTRAST, STEERING = VCD(alpha=1.0, beta=0.0), VSV(strength=0.17)


@pytest.fixture(scope="module")
def reference(tiny):
    return Reference(tiny.model)


def expected(tiny, reference, both):
    """(batch, step, vocab): VCD on steered main rows; the noised branch steered too, or not."""
    rows = []
    for prompt in tiny.prompts:
        ids, pixels = prompt["input_ids"][0], prompt["pixel_values"]
        noised = diffuse(pixels, CONTRAST.noise_step, CONTRAST.seed)
        steer = methods.steering(reference, ids, pixels, STEERING.strength, "paper")

        def logits_after(new, ids=ids, pixels=pixels, noised=noised, steer=steer):
            clean = reference(ids, pixels, new, **steer).logits[-1]
            other = reference(ids, noised, new, **(steer if both else {})).logits[-1]
            return methods.contrast_and_cut(clean, other, CONTRAST.alpha, CONTRAST.beta)

        rows.append(methods.greedy(STEPS, logits_after).logits)
    return torch.stack(rows)


def test_steering_declared_before_a_contrast_steers_both_branches(tiny, reference):
    found = tiny.logits([STEERING, CONTRAST], max_new_tokens=STEPS)
    assert difference(found, expected(tiny, reference, both=True)) < TOLERANCE
    assert difference(found[:, :1], expected(tiny, reference, both=False)[:, :1]) > APART


def test_steering_declared_after_a_contrast_steers_the_main_rows_alone(tiny, reference):
    found = tiny.logits([CONTRAST, STEERING], max_new_tokens=STEPS)
    assert difference(found, expected(tiny, reference, both=False)) < TOLERANCE
    assert difference(found[:, :1], expected(tiny, reference, both=True)[:, :1]) > APART


@pytest.mark.parametrize("site", ["input", "mlp", "block"])
def test_which_rows_an_edit_reaches_is_told_by_its_place(tiny, site):
    """Counted in rows: three samples, so six with one branch open and nine with two."""
    seen = {}

    def edit(name):
        def apply(hidden, call):
            seen[name] = hidden.shape[0]
            return hidden

        return ResidualEdit([2], apply, at=site)

    one, two = Branch("one", tiny.inputs), Branch("two", tiny.inputs)
    named = replace(edit("named"), branch="two")
    tiny.logits([Declares([edit("first"), one, edit("second"), two, edit("third"), named])])
    assert seen == {"first": 9, "second": 6, "third": 3, "named": 3}


def test_logits_edits_fold_in_the_order_of_the_methods(tiny):
    """(l + 1)·2 is not l·2 + 1; the difference is exactly 1 but for rounding of logits up to 10."""
    add, double = LogitsEdit(lambda logits, step: logits + 1), LogitsEdit(lambda logits, step: logits * 2)
    one = tiny.logits([Declares([add]), Declares([double])], max_new_tokens=1)
    other = tiny.logits([Declares([double]), Declares([add])], max_new_tokens=1)
    torch.testing.assert_close(one - other, torch.ones_like(one), rtol=0, atol=1e-5)


def test_vista_is_its_two_halves_in_order(tiny):
    assert torch.equal(tiny.logits(["vista"]), tiny.logits([VSV(), SLA()]))


def test_a_chain_of_all_kinds_runs_and_does_not_depend_on_the_batch(tiny):
    """1e-4: five methods on top of each other amplify rounding."""
    chain = [tiny.acting("var"), VSV(), VHR(), VCD(beta=0.0), SLA()]
    together = tiny.logits(chain)
    for row, prompt in enumerate(tiny.prompts):
        assert difference(tiny.logits(chain, prompt)[0], together[row]) < TOLERANCE


def test_two_contrasts_of_one_kind_can_be_chained(tiny):
    """Each against its own noise. At α = 0 the second is no contrast, whatever its noise."""
    twice = tiny.logits([VCD(alpha=1.0, beta=0.0), VCD(alpha=0.0, beta=0.0, seed=5)])
    assert difference(twice, tiny.logits([VCD(alpha=1.0, beta=0.0)])) < TOLERANCE


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (lambda inputs: [Branch("one", inputs), Branch("one", inputs)], "two branches are called 'one'"),
        (lambda inputs: [Branch("main", inputs)], "main"),
        (lambda inputs: [Branch("all", inputs)], "all"),
        (
            lambda inputs: [ResidualEdit([0], lambda hidden, call: hidden, branch="nowhere")],
            "no branch 'nowhere'; opened here: main",
        ),
        (
            lambda inputs: [Branch("one", {key: value[:2] for key, value in inputs.items()})],
            "branch 'one' has 2 rows, the main inputs 3",
        ),
    ],
    ids=["same_name", "called_main", "called_all", "unknown_branch", "other_number_of_rows"],
)
def test_branches_that_cannot_be_arranged_are_refused(tiny, declared, message):
    with pytest.raises(ValueError, match=message):
        tiny.logits([Declares(declared(tiny.inputs))])
