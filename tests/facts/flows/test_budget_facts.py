"""A budget of time on a machine whose times are known: which setting is chosen, and what is timed for it."""

import itertools
import math
import random

import pytest

from veridical.flows.gating import budget as budgets
from veridical.flows.gating.budget import SHARES, Bench, NothingFits, check, choose, gated, images_for, ratio
from veridical.flows.gating.choice import Choice
from veridical.pipelines.registry import DECODERS
from veridical.pipelines.results import Answer

TOKENS = 40


class Machine:
    """Captions of 40 tokens. A plain one takes a second, vcd `ungated`, and a gate 1 + fixed + slope · share, by its
    detector. drift: how much slower every further run is. jitter: what a gate's run takes more, per image. Image -1
    cannot be used."""

    def __init__(self, ungated, costs, drift=0.0, jitter=lambda gate: 0.0):
        self.ungated, self.costs, self.drift, self.jitter = ungated, costs, drift, jitter
        self.now, self.runs = 0.0, []

    def risk(self, image):
        """Entropies are all different; positions are the same in every caption."""
        draw = random.Random(image)
        return {"entropy": [draw.random() for _ in range(TOKENS)], "position": [t / (t + 32) for t in range(TOKENS)]}

    def acted(self, gate, image):
        return sum(risk > gate.threshold for risk in self.risk(image)[gate.detector])

    def answers(self, decoders, detectors, batch):
        self.runs.append((tuple(decoders), len(batch)))
        seconds, out = 0.0, []
        for image in batch:
            if image == -1:
                out.append(Answer("", error="cut off"))
                continue
            steps = 0
            if decoders == ["vcd"]:
                seconds, steps = seconds + self.ungated, TOKENS
            elif decoders:
                gate = DECODERS.make(decoders[0])
                steps = self.acted(gate, image)
                fixed, slope = self.costs[gate.detector]
                seconds += 1 + fixed + slope * steps / TOKENS
            else:
                seconds += 1
            acted = {"gate": {"steps": float(TOKENS), "acted": float(steps)}} if decoders else {}
            out.append(Answer("a dog", ["a"] * TOKENS, self.risk(image) if detectors else {}, acted))
        if decoders and decoders != ["vcd"]:
            seconds += len(batch) * self.jitter(DECODERS.make(decoders[0]))
        self.now += seconds * (1 + self.drift * len(self.runs))
        return out

    def choose(self, budget, images=range(32), batch=8):
        batches = [list(images)[start : start + batch] for start in range(0, len(images), batch)]
        return choose(Bench(self.answers, batches, [], lambda: self.now), "vcd", budget)


def every_setting(machine, images=range(32)):
    """(share, ratio, detector) of every threshold, without a search: the k-th largest risk lets k − 1 tokens pass."""
    for detector, wanted in itertools.product(("entropy", "position"), SHARES):
        risks = sorted((risk for image in images for risk in machine.risk(image)[detector]), reverse=True)
        threshold = risks[math.floor(wanted * len(risks))]
        steps = sum(risk > threshold for risk in risks)
        fixed, slope = machine.costs[detector]
        yield steps / len(risks), 1 + fixed + slope * steps / len(risks), detector


@pytest.mark.parametrize("budget", [1.12, 1.2, 1.3, 1.45, 1.7])
@pytest.mark.parametrize("costs", [
    {"entropy": (0.1, 1.0), "position": (0.05, 1.0)}, {"entropy": (0.05, 1.0), "position": (0.1, 1.5)},
    {"entropy": (0.4, 3.0), "position": (0.02, 0.7)},
], ids=["position is cheaper", "entropy is cheaper", "entropy hardly ever fits"])  # fmt: skip
def test_the_largest_share_of_steps_within_the_budget_is_chosen(costs, budget):
    machine = Machine(2.0, costs)
    every = list(every_setting(machine))
    choice = machine.choose(budget)
    found = choice.chosen
    assert found.share == max(share for share, cost, _ in every if cost <= budget)
    assert [cost for share, cost, name in every if (name, share) == (found.detector, found.share)] == [
        pytest.approx(found.ratio, abs=1e-9)  # sums of 32 captions in another order
    ]
    assert len(choice.tried) <= 8  # of the 13 that there are
    assert Choice.from_record(choice.record()) == choice


def test_a_decoder_that_is_cheap_enough_gets_no_gate():
    choice = Machine(1.19, {}).choose(1.2)
    assert (choice.chosen.decoder, choice.chosen.detector, choice.chosen.share) == ("vcd", None, 1.0)
    assert len(choice.tried) == 1
    assert "vcd needs no gate, predicted ×1.19" in choice.prediction


def test_where_nothing_fits_the_cheapest_is_named_with_what_would_do():
    machine = Machine(1.6, {"entropy": (0.4, 1.0), "position": (0.3, 1.0)})
    cheapest = min(cost for share, cost, _ in every_setting(machine) if share)  # 2 % of 40 positions is none
    with pytest.raises(NothingFits) as failed:
        machine.choose(1.2)
    text = str(failed.value)
    assert f"×{cheapest:.2f}" in text
    assert "detector=position" in text
    assert "ungated vcd took ×1.60" in text
    enough = float(text.partition("--budget ")[2].split()[0])
    assert machine.choose(enough).chosen.ratio == pytest.approx(cheapest, abs=1e-9)
    assert enough - cheapest < 0.011  # rounded up


def test_a_gate_that_never_opens_is_no_choice():
    """Of one caption of 40 tokens 2 % is no token; 5 % are two, which cost 1 + 20 · 0.05."""
    with pytest.raises(NothingFits, match=r"×2\.00 .*--budget 2\.0[01] or more") as failed:
        Machine(3.0, {"entropy": (0.0, 20.0), "position": (0.0, 20.0)}).choose(1.4, range(1))
    assert "at 5.0% of the steps" in str(failed.value)


def test_the_ends_of_a_ratio_by_hand():
    """Pairs 1:1 and 2:1: ratio 1.5, s = √(2/1 · (0.25 + 0.25)) / 2 = 0.5, t of 0.9 with one degree 3.0777."""
    assert ratio([(1.0, 1.0), (2.0, 1.0)]) == pytest.approx((1.5, 1.5 - 3.0777 * 0.5, 1.5 + 3.0777 * 0.5), abs=1e-4)
    assert ratio([(3.0, 2.0), (1.5, 1.0)]) == (1.5, 1.5, 1.5)  # a longer batch counts for more, and scatters no more


def test_a_setting_whose_time_scatters_across_the_budget_is_not_chosen():
    """A gate at half of the steps costs 1.25, at which it fits; ±0.3 from run to run, and it may as well cost 1.5. A
    gate that is closed more often runs evenly."""
    turns = itertools.cycle([0.3, -0.3])
    open_often = lambda gate: next(turns) if gate.threshold < 0.6 else 0.0
    costs = {"entropy": (0.0, 0.5), "position": (9.0, 0.0)}
    even = Machine(2.0, costs).choose(1.3).chosen
    uneven = Machine(2.0, costs, jitter=open_often).choose(1.3).chosen
    assert even.share == pytest.approx(0.5, abs=0.01)
    assert uneven.share < 0.41
    assert uneven.high <= 1.3


def test_a_machine_that_becomes_slower_meanwhile_shifts_no_ratio():
    """Which run of a pair comes first alternates; were plain captions always first, 2 % a run would look like 2 %."""
    choice = Machine(1.5, {"entropy": (0.1, 1.0), "position": (0.1, 1.0)}, drift=0.02).choose(1.6)
    assert choice.chosen.ratio == pytest.approx(1.5, abs=0.002)


def test_what_is_chosen_was_timed_on_all_images_and_what_is_far_off_on_few():
    machine = Machine(3.0, {"entropy": (0.1, 1.0), "position": (0.1, 1.0)})
    choice = machine.choose(1.25)
    by_name = {one.decoder: one for one in choice.tried}
    assert by_name["vcd"].pairs == 2
    assert choice.chosen.pairs == by_name[choice.chosen.decoder].pairs == 4
    gates = [batch for decoders, batch in machine.runs if decoders == (choice.chosen.decoder,)]
    assert gates == [1, 8, 8, 8, 8]  # one image to warm up, then each batch once
    assert choice.worth == pytest.approx(choice.seconds)  # a plain caption takes a second


def test_a_single_batch_is_timed_several_times():
    choice = Machine(1.1, {}).choose(1.2, range(3))
    assert (choice.images, choice.chosen.pairs) == (3, 4)


def test_images_that_cannot_be_used_are_left_out_and_counted():
    machine = Machine(1.1, {})
    choice = machine.choose(1.2, [-1, 1, 2, -1, -1], batch=2)
    assert (choice.images, choice.skipped) == (2, 3)
    assert [batch for decoders, batch in machine.runs if not decoders][3:] == [1, 1, 1, 1]  # behind the three for risks
    assert "2 images, without 3 that cannot be used" in choice.evidence
    with pytest.raises(ValueError, match="none of the first images can be used"):
        machine.choose(1.2, [-1, -1])


def test_one_detector_is_tried_of_those_that_read_the_same():
    assert budgets.free_detectors() == ["entropy", "position"]


def test_small_batches_need_fewer_images():
    assert [images_for(batch) for batch in (1, 4, 6, 8, 16, 48)] == [16, 16, 24, 32, 32, 48]


def test_risks_that_differ_in_their_last_digits_alone_give_the_shares_that_were_wanted():
    """As a model's entropies do that is nearly undecided among all words."""
    machine = Machine(2.0, {"entropy": (0.1, 1.0), "position": (9.0, 0.0)})
    wide = machine.risk
    machine.risk = lambda image: {**wide(image), "entropy": [10.2187 + 1e-7 * one for one in wide(image)["entropy"]]}
    assert machine.choose(1.45).chosen.share == pytest.approx(0.3, abs=1e-9)


def test_a_gates_text_is_read_as_that_gate():
    gate = DECODERS.make(gated("vcd:alpha=0.5", "position", -0.25))
    assert (gate.decoder, gate.detector, gate.threshold) == ("vcd:alpha=0.5", "position", -0.25)


@pytest.mark.parametrize(("decoders", "budget", "message"), [
    (["vcd", "icd"], 1.2, "one decoder, such as -d vcd; found 2: vcd, icd"),
    ([], 1.2, "found 0: none"),
    (["greedy"], 1.2, "greedy is plain decoding"),
    (["vsv+vcd"], 1.2, "joins 2"),
    (["mvp"], 1.2, "several times for one text"),
    (["gate:threshold=0.5"], 1.2, "is a gate already"),
    (["opera"], 1.2, "goes back in the text"),
    (["vcd"], 1.0, "budget=1 is not above 1"),
    (["vcd"], math.nan, "budget=nan is not above 1"),
    (["vdc"], 1.2, 'Did you mean "vcd"'),
])  # fmt: skip
def test_what_a_budget_cannot_gate_is_refused_with_what_is_possible(decoders, budget, message):
    with pytest.raises((ValueError, KeyError)) as refused:
        check(decoders, budget)
    assert message in str(refused.value)
