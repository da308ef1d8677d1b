"""Gated decoding against a hand-made loop: one uncached pass per token, its own risk, its own decision.

Tolerances as in `test_methods.py`. The thresholds lie between risks that are at least 1e-3 apart, so that rounding
decides no step, and every case must open at some steps and stay closed at others.
"""

import pytest
import torch

import veridical
from veridical.decoders.gate import Gate
from veridical.decoders.vcd import VCD, diffuse
from veridical.decoders.vista import VSV

from . import reference_methods as methods
from .reference_model import Reference
from .test_methods import STEPS, TOLERANCE, furthest
from .tiny import batch, prompt, tiny_llava


@pytest.fixture(params=[(8, 8), (8, 2)], ids=["mha", "gqa"], scope="module")
def tiny(request):
    model = tiny_llava(*request.param)
    prompts = [prompt(model, 3, [50, 60, 77, 9, 100], 1), prompt(model, 6, [5, 6, 77, 8, 9, 10, 11], 2)]
    rows = [(one["input_ids"][0], one["pixel_values"]) for one in prompts]
    return veridical.LVLM(model), batch(prompts), rows, Reference(model)


def entropy(done):
    p = done.logits[-1].softmax(0)
    return -float((p * p.log()).sum())


def look_away(reference, ids, done, new):
    """1 − the mean lookback ratio of the last row, over heads of all layers."""
    image = reference.image_mask(ids).nonzero().flatten().tolist()
    recent = range(len(ids), len(ids) + len(new)) if new else range(max(image) + 1, len(ids))
    ratios = [methods.ratio(row[-1], image, recent) for maps in done.probabilities for row in maps]
    return 1 - sum(ratios) / len(ratios)


def risk_of(name, reference, ids, done, new):
    if name == "entropy":
        return entropy(done)
    if name == "token_probability":  # of the likeliest token
        return -float(done.logits[-1].log_softmax(0).max())
    return look_away(reference, ids, done, new)


def gated_vcd(reference, ids, pixels, detector, threshold):
    noise = torch.randn(pixels.shape[1:], generator=torch.Generator().manual_seed(0))
    noised, risks = methods.diffuse(pixels, 500, noise), []
    assert torch.allclose(noised, diffuse(pixels, 500), atol=1e-6)

    def logits_after(new):
        done = reference(ids, pixels, new)
        risks.append(risk_of(detector, reference, ids, done, new))
        if risks[-1] > threshold:
            return methods.contrast_and_cut(done.logits[-1], reference(ids, noised, new).logits[-1], 1.0, 0.1)
        return done.logits[-1]

    return methods.greedy(STEPS, logits_after), risks


def gated_vsv(reference, ids, pixels, detector, threshold, prefill):
    """Position len(ids) + j was fed after step j, and is steered if that step's risk was above the threshold."""
    vectors, risks = methods.steering_vectors(reference, ids, pixels), []

    def steer(layer, rows):
        open_ = [prefill] * len(ids) + [risk > threshold for risk in risks]
        return torch.stack([
            methods.steer_paper(row, vectors[layer], 0.17) if is_open else row
            for row, is_open in zip(rows, open_, strict=True)
        ])  # fmt: skip

    def logits_after(new):
        done = reference(ids, pixels, new, on_block=steer)
        risks.append(risk_of(detector, reference, ids, done, new))
        return done.logits[-1]

    return methods.greedy(STEPS, logits_after), risks


def between(risks, place=0.5):
    """A threshold in the middle of a wide gap between two risks, near that share of them."""
    ordered = sorted(risks)
    wide = [k for k in range(1, len(ordered)) if ordered[k] - ordered[k - 1] > 2e-3]
    at = min(wide, key=lambda k: abs(k - place * len(ordered)))
    return (ordered[at] + ordered[at - 1]) / 2


def hold(tiny, by_hand, decoder, detector, **settings):
    lvlm, inputs, rows, reference = tiny
    plain = [by_hand(reference, *row, detector, float("inf")) for row in rows]
    threshold = between([risk for _, risks in plain for risk in risks])
    gate = Gate(decoder, detector, threshold, **settings)
    out = veridical.generate(
        lvlm, inputs, [gate], [detector], return_logits=True, max_new_tokens=STEPS, do_sample=False
    )
    opened = []
    for row, (ids, pixels) in enumerate(rows):
        run, risks = by_hand(reference, ids, pixels, detector, threshold)
        assert min(abs(risk - threshold) for risk in risks) > 1e-4
        opened.append([risk > threshold for risk in risks])
        for step in range(STEPS):
            ours, theirs = run.logits[step], out.logits[row, step]
            assert torch.equal(theirs.isfinite(), ours.isfinite()), f"row {row}, step {step}: other tokens were cut"
            assert furthest(theirs, ours) < TOLERANCE, f"row {row}, step {step}: {furthest(theirs, ours):.2e}"
            assert int(out.ids[row, step]) == run.tokens[step]
    everything = [one for row in opened for one in row]
    assert any(everything)
    assert not all(everything)
    return out, opened


@pytest.mark.parametrize("detector", ["entropy", "token_probability", "lookback_lens"])
def test_vcd_acts_at_the_steps_whose_own_risk_is_high(tiny, detector):
    out, opened = hold(tiny, gated_vcd, VCD(), detector)
    assert out.acted["gate"].acted.tolist() == [sum(row) for row in opened]


@pytest.mark.parametrize("prefill", [False, True])
@pytest.mark.parametrize("detector", ["entropy", "lookback_lens"])
def test_vsv_steers_the_positions_fed_after_a_step_whose_risk_was_high(tiny, detector, prefill):
    by_hand = lambda *given: gated_vsv(*given, prefill)
    out, opened = hold(tiny, by_hand, VSV(), detector, prefill=prefill)
    assert out.acted["gate"].acted.tolist() == [prefill + sum(row[:-1]) for row in opened]


def test_the_risk_that_opens_the_gate_is_the_one_that_the_run_reports(tiny):
    """Of the run as it is gated: the same detector beside it reads the same numbers."""
    lvlm, inputs, rows, reference = tiny
    out = veridical.generate(
        lvlm, inputs, [Gate("vcd", "lookback_lens", 0.3)], ["lookback_lens"], max_new_tokens=STEPS, do_sample=False
    )
    for row, (ids, pixels) in enumerate(rows):
        ratios = methods.lookback(reference, ids, pixels, out.ids[row].tolist())
        assert float((out.risk["lookback_lens"][row] - (1 - ratios.mean((1, 2)))).abs().max()) < 1e-5
